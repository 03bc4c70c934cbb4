"""The time axis that strips and ribbon share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llava_tui.tui.widgets.course import LOAD, Spans
from llava_tui.tui.widgets.figures import clock
from llava_tui.tui.widgets.plots import nice

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

RUNS_SHOWN = 8
LEAST_NS = 10e9
"""The window holds some runs, and at least this long: a faster axis would be redrawn all the time."""
FIRST_NS = 20e9
"""The window before any run has ended."""


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


def axis_of(view: View, width: int, wall: float | None, *, page: float = 0.25) -> Axis:
    """The window that ends at ``view.t``; ``wall`` is what a run takes, ns.

    It moves on by ``page`` of its width at a time, not by cells: between two moves only the newest cells change, which
    is what a slow line can take. It depends on the view alone, so that a replay shows what the live screen showed.
    """
    width = max(width, 1)
    span = FIRST_NS if wall is None else max(wall * RUNS_SHOWN, LEAST_NS)
    cell = max(int(nice(span / width)), 1)
    origin = view.timeline.start
    index = max(view.t - origin, 0) // cell
    first = 0
    if index >= width:
        step = max(int(width * page), 1)
        first = ((index - width) // step + 1) * step
    return Axis(origin + first * cell, cell, width, view.t)


def ribbon(spans: Spans, axis: Axis) -> list[int | None]:
    """A cell each: the code of the step that ran for most of it; ``None`` where none did for a tenth of it.

    Cells after ``axis.now`` are not in the list.
    """
    count = axis.filled
    if count == 0:
        return []
    edges = (np.arange(count + 1) * axis.cell).astype(np.float64)
    edges[-1] = min(edges[-1], max(axis.now - axis.start, edges[-2] + 1))
    lengths = np.diff(edges)
    best = np.full(count, LOAD - 1)
    most = lengths * 0.1
    for code in np.unique(spans.codes).tolist():
        mine = spans.codes == code
        starts = (spans.starts[mine] - axis.start).astype(np.float64)
        ends = (spans.ends[mine] - axis.start).astype(np.float64)
        # Time of this step up to each moment: piecewise linear, so the cells' shares are differences of it.
        x = np.stack([starts, ends], axis=1).ravel()
        y = np.stack([np.zeros_like(starts), ends - starts], axis=1)
        y = (y + np.concatenate([[0.0], np.cumsum(ends - starts)[:-1]])[:, None]).ravel()
        took = np.diff(np.interp(edges, x, y))
        better = took > most
        best[better] = code
        most = np.where(better, took, most)
    return [None if code < LOAD else code for code in best.tolist()]


def run_starts(view: View, axis: Axis) -> set[int]:
    """The cells in which a run began."""
    t = np.asarray(view.started["t"])
    inside = t[int(np.searchsorted(t, axis.start)) :]
    return set(((inside - axis.start) // axis.cell).tolist())


def ruler(axis: Axis, origin: int) -> str:
    """Times since ``origin`` under the axis, every 20 cells or so, at round moments."""
    labels = [" "] * axis.width
    step = int(nice(max(axis.cell * 16 / 1e9, 1.0)) * 1e9)
    if step > 40e9:
        step = -(-step // int(60e9)) * int(60e9)
    moment = -(-(axis.start - origin) // step) * step
    while origin + moment < axis.end:
        at = (origin + moment - axis.start) // axis.cell
        label = "╵" + clock(moment)
        if at + len(label) <= axis.width:
            labels[at : at + len(label)] = label
        moment += step
    return "".join(labels)
