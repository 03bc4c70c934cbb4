"""The heart of the screen: the machine's quantities as strips, and on the same time axis which step was running."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llava_tui.tui.widgets import figures, rank_lanes
from llava_tui.tui.widgets.axis import Axis, axis_of, ruler, shows_stages, shows_steps, zooms
from llava_tui.tui.widgets.cells import TEXT, Line, Run, fit, right, runs
from llava_tui.tui.widgets.course import median_wall
from llava_tui.tui.widgets.gauges import gpus, gpus_shown
from llava_tui.tui.widgets.lanes import NUMBERED, incident_legend, incident_marks, runs_lane
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.quantities import draw_strip, gpu_strips, host_strips
from llava_tui.tui.widgets.ribbon import APART, glyphs

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

LABEL = 7
WIDE = 100
"""From this width on a strip's peak stands beside its scale."""
STEADY = 256
"""The axis follows what so many runs took, so that it does not change with every one."""
_TABLES = (
    "states", "trees", "started", "runs", "stages", "stage_hints", "text_hints", "samples", "absences", "host", "log",
    "facts",
)  # fmt: skip


def figure_width(width: int) -> int:
    """Cells right of the strips."""
    return 16 if width >= WIDE else 9


def rows_wanted(view: View, look: Look) -> tuple[int, int]:
    """Lines with the first GPU's two strips (or the host's), the ribbon and the ruler; and with everything, each strip
    two lines high."""
    found = gpus(view)
    shown = 1 if look.gpu in found else max(len(found), 1)
    # Power is the one that may not be told, and then has no strip.
    told = not found or np.isfinite(view.samples["power_mw"][-64:]).any() or "power_mw" in view.absent(found[0])
    lanes = len(view.timeline.ranks) - 1
    return 4 + lanes, shown * (6 if told else 4) + 3 + lanes


def strips_key(view: View, look: Look) -> object:
    """The axis moves with the time; a reading, a span or an incident may come late."""
    told = (getattr(view, name).n for name in _TABLES)
    return (view.t, look.zoom, look.gpu, look.page, *told, rank_lanes.key(view), look.over(view))


def axis_for(view: View, look: Look, width: int) -> Axis:
    """The axis of strips that are ``width`` cells wide in all."""
    return axis_of(view, _cells(width), _wall(view, look), zoom=look.zoom, page=look.page)


def zoom_range(view: View, look: Look, width: int) -> tuple[int, int]:
    """The least and the greatest ``look.zoom`` that make a difference on strips ``width`` cells wide in all."""
    return zooms(view, _cells(width), _wall(view, look))


def _wall(view: View, look: Look) -> float | None:
    return look.once("axis wall", view.runs.n, lambda: median_wall(view, newest=STEADY))


def _cells(width: int) -> int:
    return max(width - LABEL - figure_width(width), 1)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What there is room for."""

    strips: tuple[tuple[int, int, int], ...]
    """(source, quantity, lines), from above."""
    ruler: bool
    lane: bool


def _layout(height: int, counts: list[int], ribbons: int = 1) -> _Layout:
    """``height`` lines for as many sources (GPUs, or the host) as ``counts`` has entries, each with so many quantities.

    First the ribbon (of several ranks, theirs), then a strip a source, its second, the ruler, its third, the runs; then
    strips two lines high. The strips of one kind are shown for all or for none.
    """
    room = max(height - ribbons, 0)
    chosen: list[tuple[int, int]] = []
    ruler = lane = False
    for part in ("0", "1", "ruler", "2", "lane"):
        if not part.isdigit():
            fits = room >= 1
            ruler, lane = ruler or (fits and part == "ruler"), lane or (fits and part == "lane")
            room -= fits
            continue
        some = [(source, int(part)) for source, count in enumerate(counts) if int(part) < count]
        if part == "0":
            some = some[:room]
        if len(some) <= room:
            chosen += some
            room -= len(some)
    chosen.sort()
    return _Layout(tuple((*one, 2 if index < room else 1) for index, one in enumerate(chosen)), ruler, lane)


def draw_strips(view: View, look: Look, width: int, height: int) -> list[Line]:
    """Strips from above, then the ribbon, the runs, the ruler."""
    if height <= 0:
        return []
    axis, wall = axis_for(view, look, width), _wall(view, look)
    found = gpus(view)
    ranks = rank_lanes.others(view)[: max(height - 2, 0)]
    room = max(height - 1 - len(ranks), 1)
    shown = gpus_shown(view, look, room)
    most = room // max(len(shown), 1)
    sources = [gpu_strips(view, gpu, axis, several=len(found) > 1, most=most) for gpu in shown]
    sources = sources or [host_strips(view, axis)]
    layout = _layout(height, [len(strips) for strips in sources], 1 + len(ranks))
    figure = figure_width(width)
    alone = {source for source, _, _ in layout.strips} - {source for source, quantity, _ in layout.strips if quantity}
    lines: list[Line] = []
    sparse = False
    for source, quantity, rows in layout.strips:
        strip = sources[source][quantity]
        if source in alone:
            strip = replace(strip, scale=strip.beside)
        lines += draw_strip(strip, axis, rows, LABEL, figure)
        sparse = sparse or strip.sparse
    hidden = len(found) - len(shown) if look.gpu is None else 0
    lines += _time_lines(view, look, axis, wall, layout, width, sparse, hidden, ranks)
    return [fit(line, width) for line in lines[:height]]


def _time_lines(
    view: View,
    look: Look,
    axis: Axis,
    wall: float | None,
    layout: _Layout,
    width: int,
    sparse: bool,
    hidden: int,
    ranks: Sequence[tuple[int, View]] = (),
) -> list[Line]:
    """What ran when: the ribbon, of every rank, and as there is room the runs and the times."""
    span = f"▕{_length(axis.cell * axis.width)}▏"
    incidents = incident_marks(view, look, axis)
    label = "step"
    lane: list[Run] = []
    # Where a cell holds several runs, their steps say less than what kind of runs they were.
    crowded = not shows_steps(axis, wall) and not layout.lane
    if crowded or layout.lane:
        lane = runs_lane(view, axis, numbered=wall is not None and wall >= NUMBERED * axis.cell)
    bounds = wall is None or wall >= APART * axis.cell
    if crowded:
        label, ribbon = "runs", lane
    else:
        ribbon = glyphs(view, axis, stages=shows_stages(axis, wall), bounds=bounds)
    if not layout.ruler:
        ribbon = [incidents.get(cell, run) for cell, run in enumerate(ribbon)]
    figure = f"+{hidden} GPU" if hidden else span
    if several := len(view.timeline.ranks) - 1:
        room = figure_width(width)
        label, spare = rank_lanes.label(0), figure
        figure = rank_lanes.figure(view, look, 0, room) if ranks else f"+{several} rank{'s' if several > 1 else ''}"
    lines = [_row(label, ribbon, axis, figure, width)]
    for place, (rank, one) in enumerate(ranks):
        if crowded:
            ribbon = runs_lane(one, axis, numbered=False)
        else:
            ribbon = glyphs(one, axis, stages=shows_stages(axis, wall), bounds=bounds)
        unseen = several - len(ranks) if place + 1 == len(ranks) else 0
        figure = f"+{unseen} more" if unseen else rank_lanes.figure(one, look, rank, room)
        lines.append(_row(rank_lanes.label(rank), ribbon, axis, figure, width))
    reading = "⡇reading" if sparse else spare if several else ""
    if layout.lane:
        lines.append(_row("runs", lane, axis, reading, width))
    if layout.ruler:
        times: list[Run] = [(char, "dim") for char in ruler(axis, view.timeline.start, incidents)]
        marked = [incidents.get(cell, run) for cell, run in enumerate(times)]
        if incidents and width >= WIDE:
            reading = incident_legend(incidents.values())
        lines.append(_row("", marked, axis, reading if incidents or not layout.lane else "", width))
    return lines


def _length(ns: int) -> str:
    """What a window spans, without more digits than it has."""
    if ns >= 60 * 10**9:
        return figures.clock(ns)
    return f"{ns / 1e9:.4g} s" if ns >= 10**9 else f"{ns / 1e6:.4g} ms"


def _row(label: str, cells: list[Run], axis: Axis, figure: str, width: int) -> Line:
    return [
        (right(label, LABEL - 1) + " ", "dim"),
        *runs([glyph for glyph, _ in cells], [name for _, name in cells]),
        (" " * (axis.width - len(cells)), TEXT),
        (right(figure, figure_width(width)), "dim"),
    ]
