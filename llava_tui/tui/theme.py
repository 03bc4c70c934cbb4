"""Colours: named styles for a dark screen, a light screen, and the terminal's own colours.

Colour is never the only sign: whatever a style says is also said by a glyph, a digit or a word.
"""

from __future__ import annotations

import os

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

from llava_tui.tui.widgets.cells import TEXT, ascii_text

STEPS = 5
"""Steps have styles ``step1`` … ``step5``, then again from the first."""

# Each: dark, light, the terminal's own.
_COLOURS: dict[str, tuple[str, str, str]] = {
    TEXT: ("#d5d8de", "#24292f", "default"),
    "dim": ("#7f8792", "#6a737d", "bright_black"),
    "strong": ("bold #f2f4f8", "bold #0b0e12", "bold default"),
    "accent": ("#7cc4ff", "#0757a8", "blue"),
    "good": ("#7fd38a", "#17692a", "green"),
    "warn": ("#f0b95b", "#8a4b00", "yellow"),
    "bad": ("bold #ff7b72", "bold #b3121d", "bold red"),
    "key": ("bold #f2f4f8", "bold #0b0e12", "bold default"),
    "watermark": ("bold #1a1206 on #f0b95b", "bold #fff8ec on #8a4b00", "bold reverse yellow"),
    "live": ("bold #7fd38a", "bold #17692a", "bold green"),
    "track": ("#3a404a", "#c3c9d1", "bright_black"),
    "memory": ("#b79cf0", "#6a3fc0", "magenta"),
    "step1": ("#5fd0c0", "#00695f", "cyan"),
    "step2": ("#f0b95b", "#8a4b00", "yellow"),
    "step3": ("#7cb0ff", "#1f56c4", "blue"),
    "step4": ("#e58bd0", "#9a1f80", "magenta"),
    "step5": ("#a5d65f", "#3f6d00", "green"),
}
_BACKGROUNDS = ("#14171c", "#fbfcfd")

DARK, LIGHT, TERMINAL = "llava-dark", "llava-light", "llava-terminal"


def step_style(index: int) -> str:
    """The style of the step at ``index``, from 0."""
    return f"step{index % STEPS + 1}"


def themes() -> list[Theme]:
    """The three themes, for :meth:`textual.app.App.register_theme`."""
    dark, light = (
        Theme(
            name=name,
            primary=_colour("accent", index),
            secondary=_colour("memory", index),
            accent=_colour("accent", index),
            foreground=_colour(TEXT, index),
            background=_BACKGROUNDS[index],
            surface=("#1c2027", "#f0f2f5")[index],
            panel=("#262b34", "#e3e7ec")[index],
            success=_colour("good", index),
            warning=_colour("warn", index),
            error=_colour("bad", index),
            dark=index == 0,
        )
        for index, name in enumerate((DARK, LIGHT))
    )
    terminal = Theme(
        name=TERMINAL,
        primary="ansi_blue",
        secondary="ansi_magenta",
        accent="ansi_blue",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        success="ansi_green",
        warning="ansi_yellow",
        error="ansi_red",
        dark=True,
        ansi=True,
    )
    return [dark, light, terminal]


def _colour(name: str, index: int) -> str:
    return _COLOURS[name][index].split(" on ")[0].split()[-1]


def styles(theme: Theme) -> dict[str, Style]:
    """Every named style under a theme, background included; for a theme that is not ours, by its darkness."""
    index = 2 if theme.ansi else 0 if theme.dark else 1
    if theme.ansi:
        base = Style.parse("default on default")
    elif theme.name in (DARK, LIGHT):
        base = Style.parse(f"on {_BACKGROUNDS[index]}")
    else:
        background = theme.background or _BACKGROUNDS[index]
        base = Style(bgcolor=Color.parse(background).rich_color)
    return {name: base + Style.parse(colours[index]) for name, colours in _COLOURS.items()}


def preferred(low_bandwidth: bool) -> str:
    """The theme to start with: the terminal's own where bytes are dear, light where the terminal says that it is."""
    if low_bandwidth:
        return TERMINAL
    # "15;0": foreground and background of the 16 colours, set by rxvt, Konsole and others.
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT if background in ("7", "15") else DARK


class AsciiFilter(LineFilter):
    """Everything that is drawn, in ASCII: our own glyphs by their nearest, foreign text's as ``?``."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Cell for cell."""
        return [Segment(text if control else ascii_text(text), style, control) for text, style, control in segments]
