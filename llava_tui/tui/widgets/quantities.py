"""The machine's quantities over the time axis: of a GPU utilization, memory, power; without one, the host's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llava_tui.tui.widgets import figures, plots
from llava_tui.tui.widgets.axis import Axis
from llava_tui.tui.widgets.cells import TEXT, Line, left, right
from llava_tui.tui.widgets.plots import Floats, Ints, Mask

if TYPE_CHECKING:
    from llava_tui.session.columns import TableView
    from llava_tui.session.timeline import View

HOLD_NS = 2_000_000_000
"""A reading is held this long where none follows: the driver's own figures are up to a second old."""
SPARSE = 2.5
"""Cells from one reading to the next, beyond which readings are told from what is held of them."""
WINDOW = " ≤1 s mean"
"""What a reading of utilization is: of the driver's own window, of 1/6 to 1 s before it."""
STANDS_OUT = 0.01
"""By how much of the scale a peak is above the least, to be marked."""


@dataclass(frozen=True, slots=True)
class Strip:
    """One quantity: two values a cell."""

    label: str
    levels: Floats
    """0…1, NaN where nothing is known."""
    own: Mask
    """Which of them are readings; the others are held from the one before."""
    sparse: bool
    """Whether readings are further apart than cells."""
    scale: str
    """What the full height stands for."""
    style: str
    peak: int | None = None
    """Where in ``levels`` the window's greatest reading is, if it is to be marked."""
    before: str = ""
    after: str = ""
    """Around the scale, where there is room: the peak, what a reading is."""
    beside: str = ""
    """What stands for the strips that there is no room for: the newest memory."""
    reason: str = ""
    """Why there is nothing."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Samples of one source, as far back as something is held from."""

    axis: Axis
    table: TableView
    rows: Ints | slice
    at: Ints

    def column(self, name: str) -> Floats:
        values: Floats = self.table[name][self.rows]
        return values

    def strip(self, label: str, name: str, top: float, scale: str, style: str, how: str = "max") -> Strip:
        """The column ``name`` in parts of ``top``."""
        values = self.column(name)
        half = max(self.axis.cell // 2, 1)
        count = int(min(max((self.axis.now - self.axis.start) // half + 1, 0), self.axis.width * 2))
        levels, own = plots.fold(self.at, values, self.axis.start, half, count, how, HOLD_NS)
        newest = self.at[-64:][np.isfinite(values[-64:])]
        sparse = newest.size > 1 and float(np.median(np.diff(newest))) > SPARSE * self.axis.cell
        return Strip(label, levels / top, own, sparse, scale, style)

    def greatest(self, name: str) -> float | None:
        """Of the column."""
        return plots.greatest(self.column(name))

    def newest(self, name: str) -> float | None:
        """Of the column."""
        values = self.table[name][self.rows[-256:] if isinstance(self.rows, np.ndarray) else self.rows][-256:]
        known = np.flatnonzero(np.isfinite(values))
        return float(values[known[-1]]) if known.size else None


def gpu_strips(view: View, gpu: int, axis: Axis, *, several: bool, most: int) -> list[Strip]:
    """Of utilization, memory, and power if it is told, the first ``most``."""
    samples = view.samples
    first = int(np.searchsorted(samples["t"], axis.start - HOLD_NS))
    rows: Ints | slice = slice(first, None)
    if len(view.devices) > 1:
        rows = np.flatnonzero(samples["gpu"][first:] == gpu) + first
    readings = Readings(axis, samples, rows, samples["t"][rows])
    suffix = str(gpu) if several else ""
    total = view.devices[gpu].memory_total
    top = float(total) if total else plots.nice(readings.greatest("memory_used") or 1.0)
    util = readings.strip("util" + suffix, "utilization", 100.0, "100 %", "accent", "mean")
    used = figures.gib(readings.newest("memory_used"))
    strips = [replace(util, beside=f"{used}/{top / 2**30:.0f} G", after=WINDOW if util.sparse else "")]
    if most > 1:
        memory = readings.strip("mem" + suffix, "memory_used", top, f"{figures.gib(top)} GiB", "memory")
        strips.append(_peaked(memory, top))
    if most > 2:
        limit = readings.newest("power_limit_mw") or plots.nice(readings.greatest("power_mw") or 1.0)
        label = ("pow" if several else "power") + suffix
        strips.append(readings.strip(label, "power_mw", limit, f"{limit / 1000:.0f} W", "power"))
    reasons = view.absent(gpu)
    for index, name in enumerate(("utilization", "memory_used", "power_mw")[: len(strips)]):
        if not np.isfinite(strips[index].levels).any():
            strips[index] = replace(strips[index], reason=reasons.get(name) or reasons.get("*", ""))
    silent = len(strips) > 2 and not strips[2].reason and not np.isfinite(strips[2].levels).any()
    return strips[:2] if silent else strips


def host_strips(view: View, axis: Axis) -> list[Strip]:
    """CPU, the worker's memory, the host's."""
    host = view.host
    rows = slice(int(np.searchsorted(host["t"], axis.start - HOLD_NS)), None)
    readings = Readings(axis, host, rows, host["t"][rows])
    # In steps, so that a growing peak does not scale the whole strip anew at every sample.
    most = plots.nice((plots.greatest(host["worker_rss"]) or 2.0**30) / 2**30) * 2**30
    total = readings.newest("memory_total") or plots.nice(readings.greatest("memory_used") or 1.0)
    cpu = readings.strip("cpu", "cpu", 100.0, "100 %", "accent", "mean")
    return [
        replace(cpu, beside=figures.memory(readings.newest("worker_rss"))),
        _peaked(readings.strip("rss", "worker_rss", most, f"{most / 2**30:g} GiB", "memory"), most),
        _peaked(readings.strip("mem", "memory_used", total, f"{figures.gib(total)} GiB", "memory"), total),
    ]


def _peaked(strip: Strip, top: float) -> Strip:
    """With its first greatest reading marked, where it stands out at all."""
    levels = np.where(strip.own, strip.levels, np.nan)
    most, least = plots.greatest(levels), float(np.fmin.reduce(strip.levels)) if strip.levels.size else np.nan
    if most is None or most - least < STANDS_OUT:
        return strip
    return replace(strip, peak=int(np.nanargmax(levels)), before=f"▲{figures.gib(most * top)}/")


def draw_strip(strip: Strip, axis: Axis, rows: int, label: int, figure: int) -> list[Line]:
    """``rows`` lines: a label of ``label`` cells, the strip, its scale in ``figure`` cells."""
    if strip.reason:
        # In the middle of a strip it would be after now.
        cells: list[Line] = [[(left(strip.reason, axis.width), "dim")]] + [[(" " * axis.width, TEXT)]] * (rows - 1)
    else:
        drawn = plots.strip(strip.levels, rows, strip.own if strip.sparse else None)
        cells = [[(line[: axis.width].ljust(axis.width), strip.style)] for line in drawn]
        if strip.peak is not None:
            # The mark stands where the strip's edge is.
            dots = max(round(float(strip.levels[strip.peak]) * rows * 4), 1)
            row = rows - 1 - (min(dots, rows * 4) - 1) // 4
            text, cell = cells[row][0][0], strip.peak // 2
            cells[row] = [(text[:cell], strip.style), ("▲", "warn"), (text[cell + 1 :], strip.style)]
    scale = strip.before + strip.scale + strip.after
    head: list[tuple[str, str]] = [(strip.label, scale if len(scale) < figure else strip.scale)]
    head += [("", "")] * (rows - 1)
    return [
        [(right(name, label - 1) + " ", "dim"), *line, (right(text, figure), "dim")]
        for (name, text), line in zip(head, cells, strict=True)
    ]
