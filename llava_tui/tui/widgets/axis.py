"""The time axis that strips and ribbon share."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava_tui.tui.widgets.figures import clock

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

RUNS_SHOWN = 8
LEAST_NS = 10e9
"""Unless it is zoomed, the window holds some runs, and at least this long: a faster axis would be redrawn all the
time."""
FIRST_NS = 20e9
"""The window before any run has ended."""
FINEST_NS = 20_000
"""A cell is never shorter: a window of some milliseconds, in which the shortest stages are seen."""
ABOUT = 0.9
"""So much less than that will do, for a rounder time a cell."""
STAGES_FROM = 4
"""Where the window holds no more runs than this, there is room for their stages."""

_MINUTE = 60 * 10**9
_MOMENTS = (
    *(factor * 10**power for power in range(3, 9) for factor in (1, 2, 5)),
    *(seconds * 10**9 for seconds in (1, 2, 5, 10, 20, 30)),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 720, 1440)),
)
"""How far apart the moments under the axis may be, ns."""
_APART = 16
"""Cells between two of them, at least."""


@dataclass(frozen=True, slots=True)
class Axis:
    """``width`` cells of ``cell`` ns from ``start``; nothing is drawn after ``now``."""

    start: int
    cell: int
    width: int
    now: int

    @property
    def end(self) -> int:
        return self.start + self.cell * self.width

    @property
    def filled(self) -> int:
        """Cells that have begun."""
        return min(max((self.now - self.start) // self.cell + 1, 0), self.width)

    def place(self, t: int) -> int:
        """The cell of a time; below 0 or from ``width`` on where it is not on the axis."""
        return (t - self.start) // self.cell


def axis_of(view: View, width: int, wall: float | None, *, zoom: int = 0, page: float = 0.25) -> Axis:
    """The window that ends at ``view.t``; ``wall`` is what a run takes, ns.

    It moves on by ``page`` of its width at a time, not by cells: between two moves only the newest cells change, which
    is what a slow line can take. It depends on the view, the zoom and the width alone, so that a replay shows what the
    live screen showed, and the same moment is the same picture however it was reached. ``zoom`` is in steps of a cell
    of 1, 2, 5, 10 … ns, from a part of a stage to the whole session; what is beyond is as if it were there.
    """
    width = max(width, 1)
    usual = _usual(width, wall)
    out, in_ = zooms(view, width, wall)
    cell = _rung(usual - min(max(zoom, out), in_))
    origin = view.timeline.start
    index = max(view.t - origin, 0) // cell
    first = 0
    if index >= width:
        step = max(int(width * page), 1)
        first = ((index - width) // step + 1) * step
    return Axis(origin + first * cell, cell, width, view.t)


def zooms(view: View, width: int, wall: float | None) -> tuple[int, int]:
    """The furthest out and the furthest in that zooming shows a difference: (≤ 0, ≥ 0)."""
    usual = _usual(width, wall)
    passed = max(view.t - view.timeline.start, 0)
    whole = _rung_of(passed / max(width, 1))
    if passed // _rung(whole) >= width:
        whole += 1
    return min(usual - whole, 0), max(usual - _rung_of(FINEST_NS), 0)


def shows_stages(axis: Axis, wall: float | None) -> bool:
    """Whether a run is wide enough for its stages to be told apart."""
    return axis.cell * axis.width <= STAGES_FROM * _run(wall)


def shows_steps(axis: Axis, wall: float | None) -> bool:
    """Whether a run is wide enough for its steps to be told apart."""
    return axis.cell <= _run(wall)


def _run(wall: float | None) -> float:
    return FIRST_NS / RUNS_SHOWN if wall is None else wall


def _usual(width: int, wall: float | None) -> int:
    span = FIRST_NS if wall is None else max(wall * RUNS_SHOWN, LEAST_NS)
    return _rung_of(ABOUT * span / max(width, 1))


def _rung(index: int) -> int:
    """1, 2, 5, 10, 20 … ns."""
    return (1, 2, 5)[index % 3] * int(10 ** (index // 3))


def _rung_of(least: float) -> int:
    """The first rung that is at least so long, ns."""
    index = max(3 * int(math.log10(max(least, 1.0))) - 1, 0)
    while _rung(index) < least * (1 - 1e-9):
        index += 1
    return index


def ruler(axis: Axis, origin: int, taken: Collection[int] = ()) -> str:
    """Times since ``origin`` under the axis, some 20 cells apart, at round moments; none where cells are taken."""
    labels = [" "] * axis.width
    least = axis.cell * _APART
    step = next((step for step in _MOMENTS if step >= least), -(-least // _MOMENTS[-1]) * _MOMENTS[-1])
    moment = -(-(axis.start - origin) // step) * step
    while origin + moment < axis.end:
        at = axis.place(origin + moment)
        label = "╵" + moment_text(moment, step)
        cells = range(at, at + len(label))
        if cells.stop <= axis.width and not any(cell in taken for cell in cells):
            labels[at : cells.stop] = label
        moment += step
    return "".join(labels)


def moment_text(ns: int, step: int) -> str:
    """A running time with as many decimals as tell moments ``step`` ns apart: ``02:34``, ``02:34.250``."""
    if step >= 10**9:
        return clock(ns)
    places = -math.floor(math.log10(step / 1e9) + 1e-9)
    return f"{clock(ns)}.{ns % 10**9 // 10 ** (9 - places):0{places}}"
