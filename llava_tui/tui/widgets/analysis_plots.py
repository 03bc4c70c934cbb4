"""The analysis page's pictures: lines through frame counts, bars against the roofs, one model beside another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llava_tui import units
from llava_tui.report.analysis_blocks import prefixed, why_impossible
from llava_tui.session.reader import safe_text
from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import plots
from llava_tui.tui.widgets.cells import TEXT, Line, Run, clip, fit, left, right, runs, width_of, wrap

if TYPE_CHECKING:
    from llava_tui.analysis.insights import BatchImpact, Beside, CaseInsight, Fit
    from llava_tui.analysis.roofline import Roofline, StageRoof

CHART = 6
"""Lines of a fit's picture."""
CHART_WIDTH = (24, 44)
"""Its cells, at the least and at the most."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of a braille cell, by row and column."""


# --- frames -----------------------------------------------------------------------------------------------------------


def draw_fits(fits: Sequence[Fit], cases: Sequence[CaseInsight], case: str, width: int) -> list[Line]:
    """What a frame adds, as a formula with its intervals and as a picture: measured medians and the line through them.
    Of the group that ``case`` is in; of the first where it is in none."""
    own = [fit_ for fit_ in fits if case in fit_.cases] or [fit_ for fit_ in fits if fit_.alike == fits[0].alike]
    lines: list[Line] = []
    for fit_ in own:
        lines += _formula(fit_, width)
    if not own:
        return []
    others = sorted({fit_.alike for fit_ in fits} - {own[0].alike})
    if others:
        lines.append([(f" of {own[0].alike}; the same was fitted for {', '.join(others)}", "dim")])
    count = max(min(len(own), (width - 2) // CHART_WIDTH[0]), 1)
    cells = min((width - 2) // count - 2, CHART_WIDTH[1])
    if cells < CHART_WIDTH[0] - 2:
        return lines
    charts = [_chart(fit_, cases, cells) for fit_ in own[:count]]
    for row in zip(*charts, strict=True):
        line: Line = [(" ", TEXT)]
        for part in row:
            line += [*fit(part, cells), ("  ", TEXT)]
        lines.append(line)
    return lines


def _formula(found: Fit, width: int) -> list[Line]:
    name = found.path.rpartition(".")[2].replace("_", " ")
    line: Line = [(left(f" {name}", 15), "strong"), (units.duration(found.a), TEXT), (" + ", "dim")]
    line += [(units.duration(found.b), "accent"), (" a frame", "dim")]
    if found.b_low is None:
        more = f"too few rounds for an interval ({found.rounds})"
    else:
        more = f"95 %: {units.duration(found.b_low)} … {units.duration(found.b_high)}, {found.rounds} rounds"
    if found.misfit is not None:
        more += f", off by {units.percent(found.misfit)} at most"
    if width_of(line) + len(more) + 3 <= width:
        return [[*line, ("   " + more, "dim")]]
    return [line, *([(" " * 15, TEXT), (text, "dim")] for text in wrap(more, max(width - 16, 1)))]


def _chart(found: Fit, cases: Sequence[CaseInsight], cells: int) -> list[Line]:
    """A title, the picture, the frame counts beneath."""
    medians = {each.case: each.table.row(found.path) for each in cases}
    points: list[tuple[float, float]] = []
    if len(found.cases) == len(found.frames):
        for count, case in zip(found.frames, found.cases, strict=True):
            row = medians.get(case)
            if row is not None and row.summary.median is not None:
                points.append((float(count), row.summary.median))
    right_edge = max(found.frames) * 1.08
    top = max([found.a + found.b * right_edge, found.a, *(y for _, y in points)]) or 1.0
    label = units.duration(top)
    title = found.path.rpartition(".")[2].replace("_", " ")
    lines: list[Line] = [[(clip(title, cells - len(label) - 1), TEXT), (f"  {label}", "dim")]]
    lines += picture(found.a, found.b, points, right_edge, top, cells, CHART)
    scale = [" "] * cells
    for count in found.frames:
        at = min(int(count / right_edge * cells), cells - 1)
        text = str(count)
        if scale[max(at - 1, 0) : at + len(text)] == [" "] * (at + len(text) - max(at - 1, 0)):
            scale[at : at + len(text)] = text
    return [*lines, [("".join(scale)[:cells], "dim")]]


def picture(
    a: float, b: float, points: Sequence[tuple[float, float]], most: float, top: float, cells: int, rows: int
) -> list[Line]:
    """The line a + b x for x from 0 to ``most`` in ``cells`` × ``rows`` cells that reach up to ``top``, and a mark for
    every point."""
    dots = [[0] * cells for _ in range(rows)]
    for x in range(cells * 2):
        y = (a + b * most * (x + 0.5) / (cells * 2)) / top
        at = rows * 4 - 1 - int(y * rows * 4)
        if 0 <= at < rows * 4:
            dots[at // 4][x // 2] |= _DOTS[at % 4][x % 2]
    grid = [[chr(0x2800 + cell) if cell else " " for cell in row] for row in dots]
    styles = [["accent"] * cells for _ in range(rows)]
    for x_, y_ in points:
        column = min(int(x_ / most * cells), cells - 1)
        row = rows - 1 - min(max(int(y_ / top * rows), 0), rows - 1)
        grid[row][column], styles[row][column] = "●", "strong"
    return [runs(row, style) for row, style in zip(grid, styles, strict=True)]


# --- batch ------------------------------------------------------------------------------------------------------------


def draw_batch(impact: BatchImpact, width: int) -> list[Line]:
    """A bar a batch: what a sequence takes, of what it takes alone."""
    most = max(point.per_sequence for point in impact.points)
    cells = max(width - 10 - 12 - 14 - 14 - 12 - 1, 0)
    head = left(" batch", 10) + right("a run", 12) + right("a sequence", 14) + right("tok/s", 14) + right("gain", 12)
    lines: list[Line] = [[(f" of {impact.alike}", "dim")], [(head, "dim")]]
    lines += [
        [
            (left(f" {point.batch}", 10), "strong"),
            (right(units.duration(point.wall), 12), TEXT),
            (right(units.duration(point.per_sequence), 14), TEXT),
            (right(units.number(point.tokens_per_second), 14), TEXT),
            (right(f"{point.efficiency:.2f} ×", 12), "accent"),
            (" " + plots.bar(point.per_sequence / most, cells), "accent"),
        ]
        for point in impact.points
    ]
    return lines


# --- another model ----------------------------------------------------------------------------------------------------


def draw_beside(other: Beside, insight: CaseInsight, name: str, width: int) -> list[Line]:
    """Each model's run as a bar of its steps, and the steps beneath, this session's on the left."""
    own = [
        (row.title, row.share, row.summary.median)
        for row in insight.table.rows
        if not row.depth and row.path != "unaccounted"
    ]
    theirs = [(safe_text(step.title), step.share, step.ns) for step in other.steps]
    label = min(max(len(name), len(other.model)) + 3, 20)
    lines: list[Line] = []
    for who, steps in ((name, own), (safe_text(other.model), theirs)):
        if steps:
            lines.append(
                [(left(" " + who, label), TEXT), *_stacked([share for _, share, _ in steps], width - label - 1)]
            )
    half = (width - 2) // 2
    for index in range(max(len(own), len(theirs))):
        line: Line = [(" ", TEXT)]
        for steps in (own, theirs):
            line += fit(_step_words(steps[index], index, half) if index < len(steps) else [], half)
        lines.append(line)
    lines += [
        [(" ", TEXT), (text, "dim")]
        for text in wrap(
            f"{safe_text(other.label)}; to look at, nothing is claimed of the difference", max(width - 2, 1)
        )
    ]
    return lines


def _step_words(step: tuple[str, float | None, float | None], index: int, width: int) -> Line:
    title, share, took = step
    line: Line = [("▌ ", step_style(index)), (left(title, max(width - 26, 6)), TEXT)]
    return [*line, (right(units.percent(share), 9), TEXT), (right(units.duration(took), 11), "dim")]


def _stacked(shares: Sequence[float | None], cells: int) -> Line:
    """Steps in proportion, each with its number where there is room."""
    known = [share or 0.0 for share in shares]
    whole = sum(known) or 1.0
    edges = [round(sum(known[:place]) / whole * cells) for place in range(len(known) + 1)]
    line: list[Run] = []
    for index in range(len(known)):
        size = max(edges[index + 1] - edges[index], 0)
        text = "│" + str(index + 1) if size > 2 else "│"
        line.append((text[:size].ljust(size, "─"), step_style(index)))
    return line


# --- roofs ------------------------------------------------------------------------------------------------------------


def draw_roofline(roof: Roofline, paths: Sequence[str], width: int) -> list[Line]:
    """Each stage against both roofs: how much of the peak arithmetic and of the bandwidth it reached. The roof that
    bounds it is the bright one."""
    lines: list[Line] = []
    if roof.peaks is not None:
        flops = roof.peaks.of(roof.dtype)
        each = f"{prefixed(flops)}FLOP/s {roof.dtype}, " if flops is not None else ""
        text = f"{roof.peaks.device}: {each}{prefixed(roof.peaks.bandwidth)}B/s; {roof.peaks.source}"
        lines += [[(" ", TEXT), (line, "dim")] for line in wrap(safe_text(text), max(width - 2, 1))]
    steps = list(dict.fromkeys(path.split(".")[0] for path in paths if path != "unaccounted"))
    if roof.stages and all(row.floor is None for row in roof.stages):
        # Without peaks there is no roof; what a stage asks for is known even so.
        lines.append([(left(" stage", 16) + right("took", 10) + right("FLOP", 12) + right("bytes", 12), "dim")])
        for row in roof.stages:
            asked = right(prefixed(row.flops), 12) + right(prefixed(row.bytes), 12)
            lines.append([(left(f" {row.title}", 16) + right(units.duration(row.median), 10) + asked, TEXT)])
    elif roof.stages:
        cells = max((width - 16 - 10 - 12 - 2 * 9 - 4) // 2, 0)
        title = left(" stage", 16) + right("took", 10) + right("floor", 12)
        lines.append([(title + right("MFU", 9) + " " * (cells + 2) + right("MBU", 9), "dim")])
        lines += [_roof_line(row, steps, cells) for row in roof.stages]
    for row in roof.stages:
        if row.impossible:
            lines += [[(" ✗ ", "bad"), (line, "bad")] for line in _impossible(row, roof, width)]
    for why in roof.unknown:
        lines += [[(" ", TEXT), (line, "dim")] for line in wrap("unknown: " + safe_text(why), max(width - 2, 1))]
    return lines


def _roof_line(row: StageRoof, steps: Sequence[str], cells: int) -> Line:
    step = row.path.split(".")[0]
    colour = step_style(steps.index(step)) if step in steps else "accent"
    line: Line = [(left(f" {row.title}", 16), TEXT), (right(units.duration(row.median), 10), TEXT)]
    line.append((right(units.duration(row.floor), 12), "dim"))
    for share, bound in ((row.mfu, "compute"), (row.mbu, "memory")):
        mine = row.bound == bound
        line.append((right(units.percent(share), 9) + " ", "strong" if mine else "dim"))
        line += [(plots.bar(share, cells), colour if mine else "track"), ("▏" if cells else "", "track")]
    return line


def _impossible(row: StageRoof, roof: Roofline, width: int) -> list[str]:
    text = f"faster than physics: {row.title} took {units.duration(row.median)}, the roofline allows "
    return wrap(f"{text}{units.duration(row.floor)}: {why_impossible(roof)}", max(width - 4, 1))
