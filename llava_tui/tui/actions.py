"""The one table of what can be done: bindings, footer, palette, help, the keymap file and ``docs/keys.md`` are made of
it."""

# ruff: noqa: E501 - the table reads better with a line an action

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple, get_args

from textual.binding import Binding

ScreenName = Literal["sessions", "new-run", "monitor", "compare", "analysis"]
Need = Literal["", "live", "sent", "unfinished"]
"""When an action is offered; ``live``: while a worker is there to ask; ``sent``: where commands can be sent at all;
``unfinished``: a data set is not done, and nobody is at it."""
NEEDS: frozenset[str] = frozenset(get_args(Need))
"""With these an action is offered whatever it needs."""

SCREENS: tuple[ScreenName, ...] = ("sessions", "new-run", "monitor", "compare", "analysis")
READING: tuple[ScreenName, ...] = ("sessions", "monitor", "compare", "analysis")
"""Screens on which letters are keys, not text."""
PAGES: tuple[ScreenName, ...] = ("sessions", "compare", "analysis")
"""Screens that scroll."""
MONITOR: tuple[ScreenName, ...] = ("monitor",)
SESSIONS: tuple[ScreenName, ...] = ("sessions",)


class Action(NamedTuple):
    """One thing that can be done. The method ``do_<id>`` of the screen, or of the app, does it."""

    id: str
    """A name of Python's; a hyphen in it is written as an underscore."""
    keys: tuple[str, ...]
    """Textual's names; the first is shown."""
    title: str
    """In the footer: a word or two."""
    help: str
    """A sentence."""
    group: str
    """The heading that it stands under in the help."""
    screens: tuple[ScreenName, ...] = READING
    needs: Need = ""
    priority: int = 0
    """Footer: the higher, the longer it stays on a narrow screen; 0 is never shown there."""
    key_matters: bool = False
    """Whether ``do_<id>`` is told which of the keys was pressed."""


_GO, _TIME, _RUN, _VIEW, _MOVE, _KEEP = "go to", "time", "the run", "view", "move", "sessions"

ACTIONS: tuple[Action, ...] = (
    # --- sessions
    Action("open", ("enter",), "open", "Open the session: live while it runs, else to be replayed.", _KEEP, SESSIONS, priority=95),
    Action("filter", ("slash",), "filter", "Show only sessions in which what is typed occurs.", _KEEP, SESSIONS, priority=60),
    Action("mark", ("space",), "mark", "Mark the session, to be compared or deleted with others.", _KEEP, SESSIONS, priority=70),
    Action("rename", ("r",), "rename", "Give the session a name.", _KEEP, SESSIONS, priority=20),
    Action("tags", ("t",), "tags", "Tags, separated by spaces.", _KEEP, SESSIONS, priority=12),
    Action("note", ("e",), "note", "A note on the session.", _KEEP, SESSIONS, priority=11),
    Action("rerun", ("R",), "run again", "A new run with the session's own plan.", _KEEP, SESSIONS, priority=10),
    Action("go_on", ("G",), "go on", "Go on with a data set that was stopped or interrupted, in the same session, from the first item not done.", _KEEP, SESSIONS, "unfinished", 75),
    Action("delete", ("D", "delete"), "delete…", "Delete the session, or those marked (asks).", _KEEP, SESSIONS, priority=15),
    Action("order", ("o",), "order", "Order by time, by name, by model, by length.", _KEEP, SESSIONS, priority=5),
    # --- a new run
    Action("start", ("ctrl+s", "f5"), "start", "Start the run.", _RUN, ("new-run",), priority=95),
    Action("choose", ("f4",), "choose", "Choose among the models on this machine, or a setting's values; enter does it too.", _RUN, ("new-run",), priority=60),
    Action("copy_command", ("f6",), "copy command", "Copy the plan as a command line.", _RUN, ("new-run",), priority=50),
    Action("copy_plan", ("f7",), "copy TOML", "Copy the plan as TOML.", _RUN, ("new-run",), priority=40),
    # --- time
    Action("play", ("space",), "play/hold", "Hold the picture, or let time go on; the run itself does not notice.", _TIME, MONITOR, priority=65),
    Action("event_back", ("comma",), "event ←", "One event back.", _TIME, MONITOR),
    Action("event_on", ("full_stop",), "event →", "One event on.", _TIME, MONITOR),
    Action("step_back", ("left_square_bracket",), "step ←", "To the start of this step, or of the one before.", _TIME, MONITOR, priority=22),
    Action("step_on", ("right_square_bracket",), "step →", "To the start of the next step.", _TIME, MONITOR, priority=21),
    Action("run_back", ("left_curly_bracket",), "run ←", "To the start of this run, or of the one before.", _TIME, MONITOR),
    Action("run_on", ("right_curly_bracket",), "run →", "To the start of the next run.", _TIME, MONITOR),
    Action("back", ("left",), "−10 s", "Ten seconds back.", _TIME, MONITOR),
    Action("on", ("right",), "+10 s", "Ten seconds on.", _TIME, MONITOR),
    Action("first", ("home",), "start", "To the session's start.", _TIME, MONITOR),
    Action("last", ("end",), "end", "To the session's end: of a live one, to what is happening now.", _TIME, MONITOR, priority=23),
    Action("tenth", tuple("0123456789"), "tenths", "To that tenth of the session.", _TIME, MONITOR, key_matters=True),
    Action("slower", ("less_than_sign",), "slower", "Half the speed, down to a quarter.", _TIME, MONITOR, priority=18),
    Action("faster", ("greater_than_sign",), "faster", "Twice the speed, up to 64 times.", _TIME, MONITOR, priority=19),
    Action("time_code", ("g",), "go to", "To a time: 12.5, 1:30, or −5 from the end.", _TIME, MONITOR, priority=24),
    Action("incident", ("n",), "incident →", "To the next incident: throttling, outlier, near out of memory, error.", _TIME, MONITOR, priority=26),
    Action("incident_back", ("N",), "incident ←", "To the incident before.", _TIME, MONITOR),
    Action("loop", ("l",), "loop", "Play this run again and again, then the whole session, then once.", _TIME, MONITOR, priority=4),
    # --- the run
    Action("pause", ("p",), "pause", "Pause the run between two stages, or go on with it.", _RUN, MONITOR, "live", 70),
    Action("stop", ("s",), "stop…", "Stop after this run, or at once: asks first.", _RUN, MONITOR, "live", 80),
    Action("skip", ("k",), "skip case…", "Leave out what remains of the case that is running (asks).", _RUN, MONITOR, "live", 40),
    Action("more", ("plus",), "more rounds", "One more round of every case.", _RUN, MONITOR, "live", 30),
    Action("repeat", ("r",), "repeat case", "One more run of the case that is shown.", _RUN, MONITOR, "live", 25),
    # --- view
    Action("case", ("v",), "next case", "Show the next case's figures; after the last, the running one's.", _VIEW, ("monitor", "compare", "analysis"), priority=50),
    Action("zoom_in", ("z",), "zoom", "A shorter time in the strip.", _VIEW, MONITOR, priority=28),
    Action("zoom_out", ("Z",), "zoom out", "A longer time in the strip.", _VIEW, MONITOR, priority=3),
    Action("gpu", ("u",), "next GPU", "One GPU in the strip, or all of them.", _VIEW, MONITOR, priority=2),
    Action("row", ("n",), "next row", "The distribution of the next step, stage or metric.", _VIEW, ("compare",), priority=52),
    Action("row_back", ("N",), "row before", "The distribution of the one before.", _VIEW, ("compare",)),
    Action("swap", ("x",), "swap", "The next side becomes the baseline.", _VIEW, ("compare",), priority=40),
    Action("copy_markdown", ("m",), "copy Markdown", "Copy the page as Markdown.", _VIEW, ("compare", "analysis"), priority=45),
    Action("copy_verify", ("y",), "copy command", "Copy the command that verifies the first advice.", _VIEW, ("analysis",), priority=35),
    Action("again", ("r",), "refresh", "Look at a live session again, with the runs that have ended since; it happens by itself now and then.", _VIEW, ("analysis",), "live", 38),
    # --- move
    Action("up", ("up",), "up", "A line up.", _MOVE, PAGES),
    Action("down", ("down",), "down", "A line down.", _MOVE, PAGES),
    Action("page_up", ("pageup",), "page up", "A page up.", _MOVE, PAGES),
    Action("page_down", ("pagedown",), "page down", "A page down.", _MOVE, PAGES),
    Action("top", ("home",), "top", "To the top.", _MOVE, PAGES),
    Action("bottom", ("end",), "bottom", "To the bottom.", _MOVE, PAGES),
    Action("field_back", ("up",), "field before", "To the field before; shift+tab does it too.", _MOVE, ("new-run",)),
    Action("field_on", ("down",), "next field", "To the next field; tab does it too.", _MOVE, ("new-run",)),
    Action("plan_up", ("pageup",), "plan up", "The plan a page up.", _MOVE, ("new-run",)),
    Action("plan_down", ("pagedown",), "plan down", "The plan a page down.", _MOVE, ("new-run",)),
    # --- go to
    Action("new_run", ("ctrl+n",), "new run", "Plan a new run.", _GO, READING, priority=55),
    Action("compare", ("c",), "compare", "Compare: the sessions that are marked, or this one with the pinned baseline.", _GO, ("sessions", "monitor"), priority=45),
    Action("analysis", ("a",), "analysis", "What the session says: insights, trust, roofline, advice.", _GO, ("sessions", "monitor"), priority=44),
    Action("pin", ("B",), "baseline", "Make the session the pinned baseline.", _GO, ("sessions", "monitor"), priority=8),
    Action("sessions", ("b",), "sessions", "Browse the sessions.", _GO, ("monitor", "compare", "analysis"), priority=43),
    Action("escape", ("escape",), "back", "Back to the screen before.", _GO, SCREENS, priority=20),
    Action("theme", ("ctrl+t",), "light/dark", "Dark, light, or the terminal's own colours.", _GO, SCREENS, priority=1),
    Action("redraw", ("ctrl+l",), "redraw", "Draw the whole screen again, when something else has written over it.", _GO, SCREENS),
    Action("suspend", ("ctrl+z",), "suspend", "Back to the shell for a while: fg comes back. The run goes on.", _GO, SCREENS),
    Action("detach", ("d",), "detach", "Leave; the run goes on.", _GO, MONITOR, "live", 42),
    Action("quit", ("q", "ctrl+q"), "quit", "Leave. A live run goes on: this detaches from it.", _GO, READING, priority=90),
    Action("leave", ("ctrl+q",), "quit", "Leave; nothing is started.", _GO, ("new-run",), priority=30),
    Action("help", ("question_mark", "f1"), "help", "The keys of this screen.", _GO, READING, priority=100),
    Action("keys", ("f1",), "help", "The keys of this screen.", _GO, ("new-run",), priority=90),
)  # fmt: skip

WRITES = frozenset((
    "rename", "tags", "note", "rerun", "go_on", "delete", "start", "pause", "stop", "skip", "more", "repeat", "new_run",
    "pin",
))  # fmt: skip
"""Actions that change something: a session, its notes, a run. Whoever may only look is not offered them."""

_KEY_NAMES = {
    "plus": "+", "question_mark": "?", "slash": "/", "comma": ",", "full_stop": ".", "left_square_bracket": "[",
    "right_square_bracket": "]", "left_curly_bracket": "{", "right_curly_bracket": "}", "less_than_sign": "<",
    "greater_than_sign": ">", "left": "←", "right": "→", "up": "↑", "down": "↓", "escape": "esc", "pageup": "pgup",
    "pagedown": "pgdn", "delete": "del",
}  # fmt: skip

_BY_ID = {entry.id: entry for entry in ACTIONS}


class Actions:
    """The table with the keys that hold for this user."""

    def __init__(self, keymap: dict[str, tuple[str, ...]] | None = None, *, read_only: bool = False) -> None:
        """``keymap``: other keys, by the action's id (see :mod:`llava_tui.tui.keymap`, which checks them).
        ``read_only``: without what changes anything."""
        self.keymap = dict(keymap or {})
        keyed = [entry._replace(keys=self.keymap.get(entry.id, entry.keys)) for entry in ACTIONS]
        self._withheld = [entry for entry in keyed if read_only and entry.id in WRITES]
        self.all = tuple(entry for entry in keyed if entry not in self._withheld)

    def of(self, screen: ScreenName, conditions: Collection[str] = ()) -> list[Action]:
        """What can be done on that screen, in the table's order; ``conditions`` are the needs that are met."""
        return _on(self.all, screen, conditions)

    def withheld(self, screen: ScreenName, conditions: Collection[str] = ()) -> list[Action]:
        """What could be done there besides, if it changed nothing."""
        return _on(self._withheld, screen, conditions)

    def textual_keymap(self) -> dict[str, str]:
        """For :meth:`textual.app.App.set_keymap`."""
        return {id_: ",".join(keys) for id_, keys in self.keymap.items()}


def _on(entries: Iterable[Action], screen: ScreenName, conditions: Collection[str]) -> list[Action]:
    return [entry for entry in entries if screen in entry.screens and (not entry.needs or entry.needs in conditions)]


def by_id(action: str) -> Action:
    """Raises :class:`KeyError` for an unknown id."""
    return _BY_ID[action]


def bindings(screen: ScreenName) -> list[Binding]:
    """One an action of that screen, or one a key where the key matters; each carries the action's id, so that a keymap
    can override it."""
    made: list[Binding] = []
    for entry in ACTIONS:
        if screen not in entry.screens:
            continue
        if entry.key_matters:
            made += [Binding(key, f"act('{entry.id}', '{key}')", entry.title, show=False) for key in entry.keys]
        else:
            made.append(Binding(",".join(entry.keys), f"act('{entry.id}')", entry.title, id=entry.id, show=False))
    return made


def key_name(key: str) -> str:
    """A key as it is printed: ``+``, ``^q``."""
    return _KEY_NAMES.get(key, key.replace("ctrl+", "^"))


def key_names(action: Action) -> str:
    """All its keys as they are printed."""
    if action.key_matters:
        return f"{key_name(action.keys[0])}…{key_name(action.keys[-1])}"
    return " ".join(key_name(key) for key in action.keys)


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
