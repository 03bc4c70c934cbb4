"""Beneath the ribbon: which runs there were, and under the times what happened that is worth a look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from llava_tui.analysis.incidents import KINDS, incidents
from llava_tui.tui.widgets.axis import Axis
from llava_tui.tui.widgets.cells import TEXT, Run, left
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.transport_bar import INCIDENTS

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

_SHORT = {"near out of memory": "memory full"}
NUMBERED = 6
"""Cells that a run takes, from which on each has its number."""
_READABLE = 5
"""Cells of a word by which it is known: a space, some letters, and that there are more."""
_GAP = 2
"""Cells without a run, beyond which those after it are others."""
_WAITING = ("paused", "cooling down")
"""States that are told of between runs."""


def incident_marks(view: View, look: Look, axis: Axis) -> dict[int, Run]:
    """The cells in which something happened, with the mark of the gravest."""
    tables = ("runs", "samples", "host", "log", "states", "absences", "facts")
    stamp = (*(getattr(view, table).n for table in tables), len(view.devices))
    found = look.once("incidents", stamp, lambda: incidents(view))
    first, last = np.searchsorted(found.t, (axis.start, min(axis.end, axis.now + 1)))
    marks: dict[int, int] = {}
    places = (found.t[first:last] - axis.start) // axis.cell
    for cell, kind in zip(places.tolist(), found.kinds[first:last].tolist(), strict=True):
        marks[cell] = min(kind, marks.get(cell, kind))
    return {cell: INCIDENTS[kind] for cell, kind in marks.items()}


def incident_legend(marks: Iterable[Run]) -> str:
    """What the gravest of the marks stands for: ``T throttling``."""
    shown = set(marks)
    kinds = (kind for kind, mark in zip(KINDS, INCIDENTS, strict=True) if mark in shown)
    kind = next(kinds, None)
    return "" if kind is None else f"{INCIDENTS[KINDS.index(kind)][0]} {_SHORT.get(kind, kind)}"


def runs_lane(view: View, axis: Axis, *, numbered: bool) -> list[Run]:
    """What kind of run there was when: ``│cold │warm-up    │measured``; with ``numbered`` each with its number and, if
    there is room, its case: ``│43 f4-b1-n64``. Runs that do not count are dim."""
    starts, ends, titles = _runs(view, axis, numbered)
    glyphs = [" "] * axis.filled
    names = [TEXT] * axis.filled
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first, last = max(axis.place(start), 0), min(axis.place(max(end - 1, start)) + 1, axis.filled)
        if index + 1 < len(starts):
            last = min(last, max(axis.place(starts[index + 1]), first + 1))
        if first >= last:
            continue
        title, style = titles[index]
        room = last - first - 1
        # First the case gives way, then what kind of run it is, if it cannot be read any more.
        words = title.split(" ") if numbered and len(title) > room else []
        for count in range(len(words) - 1, 0, -1):
            title = " ".join(words[:count])
            if len(title) <= room or (count == 2 and style == "dim" and len(words[0]) + _READABLE <= room):
                break
        text = left(title, room)
        # A case may be named in characters of two cells.
        glyphs[first:last] = "│" + (text if len(text) == room else " " * room)
        names[first:last] = ["track", *[style] * (last - first - 1)]
    for start, end, state in _waits(view, axis):
        first, last = max(axis.place(start), 0), min(axis.place(end), axis.filled)
        while first < last and glyphs[first] != " ":
            first += 1
        if glyphs[first:last] == [" "] * (last - first):
            glyphs[first:last] = state[: last - first].ljust(last - first)
            names[first:last] = ["warn"] * (last - first)
    return list(zip(glyphs, names, strict=True))


def _runs(view: View, axis: Axis, numbered: bool) -> tuple[list[int], list[int], list[Run]]:
    """Starts, ends and titles of the runs in the window; those of a kind that follow each other as one, unless they are
    numbered."""
    runs, current = view.runs, view.current
    first = int(np.searchsorted(runs["t"], axis.start))
    starts = np.asarray(runs["start"])[first:]
    ends = np.asarray(runs["t"])[first:]
    kinds = np.asarray(runs["kind"])[first:]
    names = runs.names("kind")
    if numbered:
        cases, case = runs.names("case"), np.asarray(runs["case"])[first:].tolist()
        bad = (np.asarray(runs["outcome"])[first:] != runs.code("outcome", "ok")).tolist()
        numbers = np.asarray(runs["run"])[first:].tolist()
        titles = [
            _title(names[kind], number, cases[code], failed)
            for kind, number, code, failed in zip(kinds.tolist(), numbers, case, bad, strict=True)
        ]
        firsts, lasts = starts.tolist(), ends.tolist()
    else:
        # Of those that begin in one cell the last, then of those of one kind that follow each other the first.
        rows = np.flatnonzero(np.diff((starts - axis.start) // axis.cell, append=np.iinfo(np.int64).max))
        starts, ends, kinds = starts[rows], ends[rows], kinds[rows]
        gap = np.append(True, starts[1:] - ends[:-1] > _GAP * axis.cell)[: rows.size]
        new = np.flatnonzero((np.diff(kinds, prepend=-1) != 0) | gap)
        firsts = starts[new].tolist()
        lasts = ends[np.append(new[1:], rows.size) - 1].tolist() if rows.size else []
        titles = [(names[kind], TEXT if names[kind] == "measured" else "dim") for kind in kinds[new].tolist()]
    if current is not None:
        kind = str(current["kind"])
        if not numbered and titles and titles[-1][0] == kind and current["t"] - lasts[-1] <= _GAP * axis.cell:
            lasts[-1] = view.t
        else:
            title = _title(kind, int(current["run"]), str(current["case"]), False)
            firsts.append(int(current["t"]))
            lasts.append(view.t)
            titles.append(title if numbered else (kind, title[1]))
    return firsts, lasts, titles


def _waits(view: View, axis: Axis) -> list[tuple[int, int, str]]:
    """(start, end, state) of the times within the window in which nothing was to run."""
    states = view.states
    first = max(int(np.searchsorted(states["t"], axis.start)) - 1, 0)
    names = states.names("state")
    times = [*np.asarray(states["t"])[first:].tolist(), view.t]
    told = [names[code] for code in np.asarray(states["state"])[first:].tolist()]
    return [(times[at], times[at + 1], state) for at, state in enumerate(told) if state in _WAITING]


def _title(kind: str, number: int, case: str, failed: bool) -> Run:
    if kind == "load":
        return "load", "dim"
    words = [str(number)] if kind == "measured" else [str(number), kind]
    if failed:
        words.insert(0, "✗")
    return " ".join([*words, case]).rstrip(), "bad" if failed else TEXT if kind == "measured" else "dim"
