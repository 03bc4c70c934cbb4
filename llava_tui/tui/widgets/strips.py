"""The machine over time: utilization and memory as strips, and on the same axis which step was running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import figures, plots
from llava_tui.tui.widgets.axis import Axis, axis_of, ribbon, ruler, run_starts
from llava_tui.tui.widgets.cells import TEXT, Line, fit, right, runs
from llava_tui.tui.widgets.course import LOAD, step_paths, step_spans
from llava_tui.tui.widgets.gauges import gpus
from llava_tui.tui.widgets.look import Look

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

LABEL = 7
FIGURE = 9
HOLD_NS = 2_000_000_000
"""A reading is held this long where none follows: the driver's own figures are up to a second old."""


def rows_wanted(view: View) -> tuple[int, int]:
    """Lines with the first GPU's two strips (or the host's), the ribbon and the ruler; and with everything, each strip
    two lines high."""
    return 4, max(len(gpus(view)), 1) * 4 + 2


def strips_key(view: View, look: Look) -> object:
    """The axis moves with the time, so a drawing is as good as the tenth of a second it was made in."""
    return view.t // 100_000_000


def draw_strips(view: View, look: Look, width: int, height: int) -> list[Line]:
    """The ribbon first, then strips from above, then the ruler; what room is left makes strips two lines high."""
    found = gpus(view)
    axis = axis_of(view, max(width - LABEL - FIGURE, 1), look.wall(view), page=look.page)
    strips = [strip for gpu in found for strip in _gpu_strips(view, gpu, axis, len(found) > 1)]
    strips = strips or _host_strips(view, axis)
    strips = strips[: max(height - 1, 0)]
    spare = height - len(strips) - 2
    lines: list[Line] = []
    for index, strip in enumerate(strips):
        lines += _strip_lines(strip, axis, 2 if index < spare else 1)
    lines.append(_ribbon_line(view, axis))
    if spare >= 0:
        lines.append([(" " * LABEL, TEXT), (ruler(axis, view.timeline.start), "dim")])
    return [fit(line, width) for line in lines[:height]]


@dataclass(frozen=True, slots=True)
class Strip:
    """One quantity over the axis: two values a cell, 0…1."""

    label: str
    levels: plots.Floats
    top: str
    """What the full height stands for."""
    style: str
    peak: int | None = None
    """Where in ``levels`` the window's greatest value is, if it is to be marked."""


def _gpu_strips(view: View, gpu: int, axis: Axis, several: bool) -> list[Strip]:
    samples = view.samples
    first = int(np.searchsorted(samples["t"], axis.start - HOLD_NS))
    mine = np.asarray(samples["gpu"])[first:] == gpu
    at = np.asarray(samples["t"])[first:][mine]

    def column(name: str) -> plots.Floats:
        values: plots.Floats = np.asarray(samples[name], dtype=np.float64)[first:][mine]
        return values

    suffix = str(gpu) if several else ""
    strips = [Strip("util" + suffix, _folded(axis, at, column("utilization") / 100, "mean"), "100 %", "accent")]
    total = view.devices[gpu].memory_total
    used = column("memory_used")
    top = float(total) if total else plots.nice(float(np.nanmax(used))) if np.isfinite(used).any() else 1.0
    levels = _folded(axis, at, used / top, "max")
    strips.append(Strip("mem" + suffix, levels, f"{figures.gib(top)} GiB", "memory", _peak(levels)))
    return strips


def _host_strips(view: View, axis: Axis) -> list[Strip]:
    host = view.host
    first = int(np.searchsorted(host["t"], axis.start - HOLD_NS))
    at = np.asarray(host["t"])[first:]
    cpu = np.asarray(host["cpu"], dtype=np.float64)[first:]
    rss = np.asarray(host["worker_rss"], dtype=np.float64)
    greatest = float(np.nanmax(rss)) if np.isfinite(rss).any() else 2.0**30
    # In steps, so that a growing peak does not scale the whole strip anew at every sample.
    top = plots.nice(greatest / 2**30) * 2**30
    levels = _folded(axis, at, rss[first:] / top, "max")
    return [
        Strip("cpu", _folded(axis, at, cpu / 100, "mean"), "100 %", "accent"),
        Strip("rss", levels, f"{top / 2**30:g} GiB", "memory", _peak(levels)),
    ]


def _folded(axis: Axis, at: np.ndarray, values: plots.Floats, how: str) -> plots.Floats:
    """Two slots a cell; nothing after now."""
    half = max(axis.cell // 2, 1)
    count = min(max((axis.now - axis.start) // half + 1, 0), axis.width * 2)
    return plots.fold(at, values, axis.start, half, int(count), how, HOLD_NS)


def _peak(levels: plots.Floats) -> int | None:
    """The first greatest value, where it stands out at all."""
    if not np.isfinite(levels).any() or float(np.nanmax(levels)) - float(np.nanmin(levels)) < 0.01:
        return None
    return int(np.nanargmax(levels))


def _strip_lines(strip: Strip, axis: Axis, rows: int) -> list[Line]:
    lines: list[Line] = []
    for row, cells in enumerate(plots.strip(strip.levels, rows)):
        cells = cells[: axis.width].ljust(axis.width)
        first = row == 0
        # The mark stands where the strip's edge is.
        marked = strip.peak is not None and row == rows - 1 - min(int(strip.levels[strip.peak] * rows), rows - 1)
        line: Line = [(right(strip.label if first else "", LABEL - 1) + " ", "dim")]
        if marked and strip.peak is not None:
            cell = strip.peak // 2
            line += [(cells[:cell], strip.style), ("▲", "warn"), (cells[cell + 1 :], strip.style)]
        else:
            line.append((cells, strip.style))
        line.append((right(strip.top if first else "", FIGURE), "dim"))
        lines.append(line)
    return lines


def _ribbon_line(view: View, axis: Axis) -> Line:
    glyphs: list[str] = []
    names: list[str] = []
    codes = ribbon(step_spans(view, axis.start), axis)
    starts = run_starts(view, axis)
    for cell, code in enumerate(codes):
        if cell in starts and cell and code not in (None, 0, LOAD) and codes[cell - 1] == code:
            # Where steps are too short to be seen, runs are still told apart.
            glyph, name = "│", "track"
        elif code is None:
            glyph, name = "·", "track"
        elif code == LOAD:
            glyph, name = "L", "dim"
        else:
            glyph, name = str((code + 1) % 10), step_style(code)
        glyphs.append(glyph)
        names.append(name)
    known = len(step_paths(view))
    return [
        (right("step", LABEL - 1) + " ", "dim"),
        *runs(glyphs, names),
        (" " * (axis.width - axis.filled), TEXT),
        (right(f"{known} steps" if known else "", FIGURE), "dim"),
    ]
