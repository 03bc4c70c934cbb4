"""The one table of what can be done: bindings, footer, palette and help are made from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from textual.binding import Binding

Where = Literal["always", "live"]
"""When an action is offered; ``live``: while a worker is there to ask."""


class Action(NamedTuple):
    """One thing that can be done. The method ``do_<id>`` of the screen, or of the app, does it."""

    id: str
    keys: tuple[str, ...]
    """Textual's names; the first is shown."""
    title: str
    """In the footer: a word or two."""
    help: str
    """A sentence."""
    where: Where = "always"
    priority: int = 0
    """Footer: the higher, the longer it stays on a narrow screen; 0 is never shown there."""


ACTIONS: tuple[Action, ...] = (
    Action("pause", ("p",), "pause", "Pause the run between two stages, or go on with it.", "live", 70),
    Action("stop", ("s",), "stop…", "Stop after this run, or at once: asks first.", "live", 80),
    Action("skip", ("k",), "skip case…", "Leave out what remains of the case that is running (asks).", "live", 40),
    Action("more", ("plus",), "more rounds", "One more round of every case.", "live", 30),
    Action("case", ("v",), "next case", "Show the next case's table; after the last, the running one.", priority=50),
    Action("theme", ("t",), "light/dark", "Dark, light, or the terminal's own colours.", priority=10),
    Action("quit", ("q", "d", "ctrl+q"), "quit", "Leave. A live run goes on: this detaches from it.", priority=90),
    Action("help", ("question_mark",), "help", "This page.", priority=100),
)  # fmt: skip

_KEY_NAMES = {"plus": "+", "question_mark": "?"}


_BY_ID = {entry.id: entry for entry in ACTIONS}


def by_id(action: str) -> Action:
    """Raises :class:`KeyError` for an unknown id."""
    return _BY_ID[action]


def bindings() -> list[Binding]:
    """One a key; each carries the action's id, so that a keymap can override it."""
    return [
        Binding(",".join(entry.keys), f"act('{entry.id}')", entry.title, id=entry.id, show=False) for entry in ACTIONS
    ]


def offered(live: bool) -> list[Action]:
    """What can be done now, in the table's order."""
    return [entry for entry in ACTIONS if entry.where == "always" or live]


def key_name(key: str) -> str:
    """A key as it is printed: ``+``, ``^q``."""
    return _KEY_NAMES.get(key, key.replace("ctrl+", "^"))


def footer_keys(actions: Iterable[Action], width: int, renamed: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """(key, title) of the actions that fit ``width`` cells with two spaces between, the most important kept, in the
    table's order. ``renamed``: titles that are others at the moment, by id."""
    actions = [entry._replace(title=(renamed or {}).get(entry.id, entry.title)) for entry in actions]
    wanted = sorted((entry for entry in actions if entry.priority), key=lambda entry: -entry.priority)
    kept: set[str] = set()
    used = 0
    for entry in wanted:
        size = len(key_name(entry.keys[0])) + 1 + len(entry.title) + (2 if kept else 0)
        if used + size > width:
            break
        kept.add(entry.id)
        used += size
    return [(key_name(entry.keys[0]), entry.title) for entry in actions if entry.id in kept]
