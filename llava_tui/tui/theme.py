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

# Each: dark, light, the terminal's own. The first two are of the 256-colour palette (its cube of 00 5f 87 af d7 ff, its
# greys): they look the same on a terminal of 256 colours, and are written in half the bytes.
_COLOURS: dict[str, tuple[str, str, str]] = {
    TEXT: ("#d0d0d0", "#262626", "default"),
    "dim": ("#8a8a8a", "#6c6c6c", "bright_black"),
    "strong": ("bold #ffffff", "bold #000000", "bold default"),
    "accent": ("#87d7ff", "#005faf", "cyan"),
    "good": ("#87d787", "#005f00", "green"),
    "warn": ("#ffaf5f", "#af5f00", "yellow"),
    "bad": ("bold #ff8787", "bold #af0000", "bold red"),
    "key": ("bold #ffffff", "bold #000000", "bold default"),
    "watermark": ("bold #121212 on #ffaf5f", "bold #ffffff on #875f00", "bold reverse yellow"),
    "live": ("bold #87d787", "bold #005f00", "bold green"),
    "track": ("#4e4e4e", "#b2b2b2", "bright_black"),
    "memory": ("#af87ff", "#5f00af", "magenta"),
    "power": ("#d7af87", "#875f5f", "yellow"),
    "step1": ("#5fd7af", "#00875f", "cyan"),
    "step2": ("#ffd787", "#875f00", "yellow"),
    "step3": ("#87afff", "#005fd7", "blue"),
    "step4": ("#ff87d7", "#af0087", "magenta"),
    "step5": ("#afd75f", "#5f8700", "green"),
}
_BACKGROUNDS = ("#121212", "#ffffff")

DARK, LIGHT = "llava-dark", "llava-light"
TERMINAL = "ansi-dark"
"""Textual's own theme of the terminal's colours."""


def step_style(index: int) -> str:
    """The style of the step at ``index``, from 0."""
    return f"step{index % STEPS + 1}"


def themes() -> list[Theme]:
    """Our two themes, for :meth:`textual.app.App.register_theme`."""
    return [
        Theme(
            name=name,
            primary=_colour("accent", index),
            secondary=_colour("memory", index),
            accent=_colour("accent", index),
            foreground=_colour(TEXT, index),
            background=_BACKGROUNDS[index],
            surface=("#1c1c1c", "#eeeeee")[index],
            panel=("#262626", "#e4e4e4")[index],
            success=_colour("good", index),
            warning=_colour("warn", index),
            error=_colour("bad", index),
            dark=index == 0,
        )
        for index, name in enumerate((DARK, LIGHT))
    ]


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
