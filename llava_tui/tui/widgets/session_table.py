"""The table of sessions: a line a session, drawn as far as it is seen."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, overload

from textual import events
from textual.message import Message

from llava_tui.tui.widgets.cells import TEXT, Line, Run, clip, fit, left, plain, right, width_of
from llava_tui.tui.widgets.columns import Column, fitting
from llava_tui.tui.widgets.page import Page
from llava_tui.tui.widgets.signs import GRADE_STYLES, MARKS, VERDICTS
from llava_tui.units import UNKNOWN, change, clock

if TYPE_CHECKING:
    from pathlib import Path

    from textual.geometry import Region

    from llava_tui.session.store import SessionInfo
    from llava_tui.tui.app import LlavaTui
    from llava_tui.tui.choosing import Choosing
    from llava_tui.tui.digests import Digest

SHORT = {"simulated": "SIM", "random-weights": "RAND", "imported": "IMP"}
"""What is not a measurement of the named model says so in a list too."""
UNREAD = "…"
"""What is being worked out."""
LONGEST = 200
"""Characters of foreign text that a cell can ever show."""

_COLUMNS: tuple[Column, ...] = (  # in the order that they are shown
    ("model", "model", 17, 3),
    ("cases", "cases", 6, 4),
    ("verdict", "verdict", 10, 2),
    ("trust", "trust", 6, 1),
    ("when", "when", 13, 0),
    ("length", "length", 8, 5),
    ("status", "status", 13, 6),
)
_GUTTER = 4
_LEAST_NAME = 14


@dataclass(frozen=True, slots=True)
class Entry:
    """A session as it is listed."""

    info: SessionInfo
    digest: Digest | None = None
    """``None``: not read yet."""
    marked: bool = False
    baseline: bool = False
    compared: bool = False
    """Whether there is a baseline to compare with."""


def layout(width: int) -> dict[str, int]:
    """Cells of each column, gap included, ``name`` among them; what does not fit is left out."""
    room = max(width - _GUTTER, 0)
    name = min(_LEAST_NAME, room)
    kept = fitting(_COLUMNS, room - name)
    room -= name + sum(kept.values())
    if "model" in kept:
        more = min(room // 3, 12)
        kept["model"] += more
        room -= more
    return {"name": name + room, **kept}


def draw_heading(
    infos: Sequence[SessionInfo], shown: Sequence[SessionInfo], marked: int, by: Choosing, folder: Path, width: int
) -> Line:
    """How many there are, what is shown of them and why; the folder at the right, as far as there is room."""
    live = sum(info.status in ("running", "paused") for info in infos)
    parts: list[Line] = [[(" Sessions ", "strong")]]
    parts += [[(f"{len(shown)} of {len(infos)}" if by.filter else str(len(infos)), TEXT)]]
    parts += [[(f"● {live} live", "live")]] if live else []
    parts += [[(f"✓ {marked} marked", "accent")]] if marked else []
    parts += [[("/ ", "dim"), (clip(by.filter, 30), "accent")]] if by.filter else []
    line: Line = []
    for part in [*parts, [(f"by {by.order}", "dim")]]:
        line += [*part, (" ", TEXT)] if not line else [*part, ("  ", TEXT)]
    name, room = plain(str(folder)), max(width - width_of(line) - 1, 0)
    if width_of([(name, TEXT)]) > room:  # its end tells most
        name = "…" + name[-room + 1 :] if room > 8 and name.isascii() else ""
    return fit([*fit(line, width - width_of([(name, TEXT)]) - 1), (name, "dim")], width)


def draw_columns(width: int) -> Line:
    """The headings."""
    columns = layout(width)
    line: Line = [(" " * _GUTTER + left("name", columns["name"]), "dim")]
    for name, heading, _, _ in _COLUMNS:
        if size := columns.get(name):
            aligned = right(heading, size) if name in ("cases", "trust", "length") else " " + left(heading, size - 1)
            line.append((aligned, "dim"))
    return fit(line, width)


def draw_entry(entry: Entry, width: int, chosen: bool, today: datetime.date) -> Line:
    """One session; ``chosen``: the cursor is on it."""
    info = entry.info
    columns = layout(width)
    glyph, word, style = MARKS.get(info.status, ("·", info.status, TEXT))
    gutter: Line = [("▸" if chosen else " ", "live"), ("✓" if entry.marked else " ", "accent")]
    name_style = "strong" if chosen else TEXT
    if info.header is None or info.problem:
        name = left(info.id, min(columns["name"], 40))
        problem = info.problem[:1000].replace(f"{info.path}/", "").removeprefix(str(info.path))
        problem = " ".join(problem.split())[:LONGEST] or "cannot be read"
        return fit([*gutter, ("? ", "warn"), (name, name_style), (" " + problem, "warn")], width)
    line: Line = [*gutter, (glyph + " ", style), (left(name_of(info), columns["name"]), name_style)]
    quiet = TEXT if chosen else "dim"
    for column, *_ in _COLUMNS:
        size = columns.get(column)
        if not size:
            continue
        if column == "model":
            line += _model(info, size, TEXT)
        elif column == "cases":
            line.append((right(_cases(entry), size), TEXT))
        elif column == "verdict":
            text, verdict_style = _verdict(entry)
            line.append((" " + left(text, size - 1), verdict_style))
        elif column == "trust":
            grade = UNREAD if entry.digest is None else entry.digest.grade or UNKNOWN
            known = len(grade) == 1 and grade.isalpha()
            line.append((right(grade, size), GRADE_STYLES.get(grade, "bad") if known else "dim"))
        elif column == "when":
            line.append((" " + left(when(info.header.wall0, today), size - 1), quiet))
        elif column == "length":
            line.append((right(clock(info.duration_ns), size), quiet))
        elif column == "status":
            said = f"{word.lower()} {_runs(info)}" if info.status in ("running", "paused") else word.lower()
            line.append((" " + left(said, size - 1), style if style != "strong" else quiet))
    return fit(line, width)


def name_of(info: SessionInfo) -> str:
    """What people call it, else its id; short enough to be drawn."""
    return info.notes.name.strip()[:LONGEST] or info.id[:LONGEST]


def model_of(info: SessionInfo) -> str:
    """The model without its folder or owner."""
    if info.header is None:
        return ""
    name = info.header.model[-LONGEST:].rstrip("/")
    return name.rpartition("/")[2] or name


def when(wall_ns: int, today: datetime.date) -> str:
    """Local time in twelve cells: the time of day while that tells something."""
    try:
        then = datetime.datetime.fromtimestamp(wall_ns / 1e9)
    except (ValueError, OverflowError, OSError):
        return UNKNOWN
    if then.date() == today:
        return f"today  {then:%H:%M}"
    if abs((today - then.date()).days) < 300:
        return f"{then.day:2} {then:%b %H:%M}"
    return f"{then.day:2} {then:%b %Y}"


def case_count(plan: dict[str, Any]) -> int | None:
    """How many cases a header's plan expands to, going by its axes alone; ``None`` where it has none (imported,
    damaged)."""
    from llava_tui.plan import AXES, SETTINGS, PlanError, from_dict

    if not any(axis in plan for axis in AXES):
        return None
    # Not every cache goes with every compilation; of the other axes all values go together.
    together = ("cache", "compile")
    axes = [axis for axis in (*AXES, *SETTINGS) if axis not in together]
    try:
        count = len(from_dict({axis: plan[axis] for axis in together if axis in plan}).cases())
    except PlanError:
        count, axes = 1, [*axes, *together]
    for axis in axes:
        value = plan.get(axis)
        if isinstance(value, (list, tuple)):
            count *= max(len(value), 1)
        elif isinstance(value, str):
            count *= value.count(",") + 1
    return count


def _runs(info: SessionInfo) -> str:
    return f"{info.runs_done}/{info.runs_planned}" if info.runs_planned else str(info.runs_done)


def _model(info: SessionInfo, size: int, style: str) -> list[Run]:
    short = SHORT.get(info.header.provenance, "") if info.header is not None else ""
    if not short:
        return [(" " + left(model_of(info), size - 1), style)]
    name = clip(model_of(info), size - len(short) - 2)
    return fit([(" " + name, style), (" " + short, "warn")], size)


def _cases(entry: Entry) -> str:
    header = entry.info.header
    count = case_count(header.plan) if header is not None else None
    if entry.digest is not None and entry.digest.cases:
        count = len(entry.digest.cases)
    return str(count) if count is not None else UNKNOWN


def _verdict(entry: Entry) -> tuple[str, str]:
    if entry.baseline:
        return "baseline", "accent"
    if not entry.compared:
        return UNKNOWN, "dim"
    if entry.digest is None:
        return UNREAD, "dim"
    if entry.digest.verdict not in VERDICTS:
        return UNKNOWN, "dim"
    glyph, word, style = VERDICTS[entry.digest.verdict]
    if entry.digest.verdict == "same" or entry.digest.effect is None:
        return f"{glyph} {word.lower()}", style
    return f"{glyph} {signed(entry.digest.effect)}", style


def signed(effect: float) -> str:
    """A relative change: ``+18.2 %``, ``×12.3``."""
    return f"×{1 + effect:.3g}" if abs(effect) >= 10 else change(effect)


class _Drawn(Sequence[Line]):
    """Lines that are drawn when they are looked at."""

    def __init__(self, count: int, draw: Callable[[int], Line]) -> None:
        self._count = count
        self._draw = draw

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        if isinstance(index, slice):
            return [self._draw(at) for at in range(*index.indices(self._count))]
        return self._draw(index)


class PaintedPage(Page):
    """A page that repaints the cells that changed and no other: a list that scrolls is much the same everywhere."""

    def show(self, lines: Iterable[Line]) -> list[Region]:
        """As of any canvas."""
        if regions := self.change(lines):
            cast("LlavaTui", self.app).paint([(self, regions)])
        return regions


class SessionTable(PaintedPage):
    """A page with a cursor whose lines are drawn as far as they are seen, whatever their number."""

    DEFAULT_CSS = "SessionTable { height: 1fr; width: 1fr; }"

    class Opened(Message):
        """A line was clicked twice."""

    class Scrolled(Message):
        """Other lines are in sight."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, choosing=True)
        self._was = 0

    def set_rows(self, count: int, draw: Callable[[int, int, bool], Line]) -> None:
        """``count`` rows of which ``draw(index, width, chosen)`` gives one. The cursor stays at its index."""
        self.set_lines(_Drawn(count, lambda index: draw(index, self.size.width, index == self.cursor)))

    def _settle(self) -> None:
        super()._settle()
        if self.top != self._was:
            self._was = self.top
            self.post_message(self.Scrolled())

    def seen(self) -> range:
        """The rows that are in the window, as far as there are such."""
        return range(self.top, min(self.top + max(self.size.height, 1), sum(self.more) + self.size.height))

    def on_click(self, event: events.Click) -> None:
        """A second click opens."""
        super().on_click(event)
        if event.chain == 2:
            self.post_message(self.Opened())
