"""The comparison as lines: the sentence, the verdicts, distributions on one axis, machines step by step, plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llava_tui import units
from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import figures, plots
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left, right, runs, wrap
from llava_tui.tui.widgets.signs import VERDICTS

if TYPE_CHECKING:
    from llava_tui.analysis.aligned import Profile, StepProfile
    from llava_tui.analysis.comparison import Comparison, Row
    from llava_tui.analysis.side_by_side import Column, Difference, Group
    from llava_tui.analysis.statistics import Floats

SIDES = "ABCDEF"
STYLES = ("accent", "step2", "step4", "step5", "memory", "step1")
"""Of the sides; their letters say the same."""
LETTER = 2
TITLE = 26
FIGURE = 13


def draw_compare(
    group: Group, chosen: str, differences: Sequence[Difference], labels: Sequence[str], width: int
) -> list[Line]:
    """The whole page for one group. ``chosen``: the row whose distribution is shown; ``labels``: of the sides, in the
    order of the differences' values."""
    parts = [
        draw_sentences(group, width),
        draw_sides(group, width),
        draw_table(group, chosen, width),
        draw_distributions(group, chosen, width),
        draw_profiles(group, width),
        draw_differences(differences, labels, width),
    ]
    lines: list[Line] = []
    for part in parts:
        if part:
            lines += [[], *part] if lines else part
    return [fit(line, width) for line in lines]


def draw_sentences(group: Group, width: int) -> list[Line]:
    """What can be claimed, a sentence a side, and why not where it cannot."""
    lines: list[Line] = []
    for one in group.comparisons:
        glyph, _, style = VERDICTS[one.verdict]
        for index, text in enumerate(wrap(one.sentence, max(width - 4, 1))):
            lines.append([(f" {glyph if not index else ' '} ", style), (text, "strong")])
        for note in one.notes:
            lines += [[("   ", TEXT), (text, "dim")] for text in wrap(note, max(width - 4, 1))]
    if any(one.simulated for one in group.comparisons):
        lines.append([(" ", TEXT), (" SIMULATED ", "watermark"), (" times from a model of the hardware", "dim")])
    return lines


def draw_sides(group: Group, width: int) -> list[Line]:
    """A line a side: its letter, its name, its case, how many runs."""
    lines: list[Line] = []
    for index, column in enumerate(group.columns):
        how = "baseline" if not index else group.comparisons[index - 1].method
        text = f"{column.label}  {column.case}  n {column.n}  {how}"
        lines.append([(f" {SIDES[index]} ", STYLES[index]), (text, TEXT)])
    return lines


def draw_table(group: Group, chosen: str, width: int) -> list[Line]:
    """A row a step, stage and metric. With one other side everything; with several, what fits."""
    rows = group.comparisons[0].rows
    if len(group.comparisons) == 1:
        return _pair_table(group.comparisons[0], rows, chosen, width)
    title = max(min(TITLE, width - FIGURE - 14 * len(group.comparisons)), 12)
    cell = min(max((width - LETTER - title - FIGURE) // len(group.comparisons), 10), 22)
    head: Line = [(left("", LETTER + title) + right("A", FIGURE), "dim")]
    head += [(right(SIDES[place], cell), STYLES[place]) for place in range(1, len(group.columns))]
    lines = [head]
    for row in rows:
        line = _begin(row, chosen, title)
        line.append((right(_value(row, row.a), FIGURE), TEXT))
        for one in group.comparisons:
            other = one.row(row.key)
            if other is None:
                line.append((right(units.UNKNOWN, cell), "dim"))
                continue
            glyph, word, style = VERDICTS[other.verdict]
            word = f" {word}" if cell >= 20 and len(word) < 9 else ""
            line.append((right(f"{units.change(other.effect)} {glyph}{word}", cell), style))
        lines.append(line)
    return lines


def _pair_table(one: Comparison, rows: Sequence[Row], chosen: str, width: int) -> list[Line]:
    wide = width >= 96
    title = TITLE if wide else max(width - LETTER - 3 * FIGURE - 17, 12)
    head: Line = [(left("", LETTER + title), "dim"), (right("A", FIGURE), STYLES[0]), (right("B", FIGURE), STYLES[1])]
    head.append((right("B to A", FIGURE - 1) + ("   95 % interval         " if wide else "") + "  verdict", "dim"))
    lines: list[Line] = [head]
    before = rows[0].family
    for row in rows:
        if (row.family == "metric") != (before == "metric"):
            lines.append([])
        before = row.family
        glyph, word, style = VERDICTS[row.verdict]
        line = _begin(row, chosen, title)
        line += [(right(_value(row, row.a), FIGURE) + right(_value(row, row.b), FIGURE), TEXT)]
        line.append(
            (right(units.change(row.effect), FIGURE - 1), style if row.verdict in ("faster", "slower") else TEXT)
        )
        if wide:
            line.append((left("   " + _interval(row), 24), "dim"))
        line.append((f"  {glyph} {word}", style))
        if wide and row.reason and row.verdict == "inconclusive":
            line.append((f"  {_needed(row, one)}", "dim"))
        lines.append(line)
    return lines


def _begin(row: Row, chosen: str, width: int) -> Line:
    mark = "▸ " if row.key == chosen else "  "
    style = "strong" if row.family in ("run", "step") else TEXT
    return [(mark, "accent"), (left("  " * row.depth + row.title, width), style)]


def _needed(row: Row, one: Comparison) -> str:
    unit = "rounds" if one.method == "paired rounds" else "sessions a side"
    return f"{row.needed} {unit} would decide" if row.needed else row.reason


def _value(row: Row, value: float | None) -> str:
    return units.duration(value) if row.unit == "ns" else units.number(value, row.unit.split("/")[0] + "/s")


def _interval(row: Row) -> str:
    return units.UNKNOWN if row.low is None else f"{units.change(row.low)} … {units.change(row.high)}"


# --- distributions ----------------------------------------------------------------------------------------------------


def draw_distributions(group: Group, chosen: str, width: int) -> list[Line]:
    """The runs of every side on one axis: how many took how long, with median marked. What lies far out on either end
    is counted there, so that one spike does not squeeze the rest."""
    row = group.comparisons[0].row(chosen)
    if row is None:
        return []
    values = [_finite(column.values.get(chosen)) for column in group.columns]
    cells = width - 2 - LETTER - 8
    if cells < 16 or not any(one.size for one in values):
        return []
    every = np.concatenate(values)
    low, high = np.percentile(every, [1, 99]) if every.size >= 20 else (every.min(), every.max())
    margin = max((high - low) * 0.05, abs(high) * 1e-3, 1e-9)
    low, high = float(low - margin), float(high + margin)
    lines: list[Line] = [
        [
            (f" {row.title}", "strong"),
            ("  runs by what they took" if row.unit == "ns" else f"  runs by {row.unit}", "dim"),
        ]
    ]
    counts = [np.histogram(one, bins=cells * 2, range=(low, high))[0] / max(one.size, 1) for one in values]
    counts = [_smooth(one) for one in counts]
    top = max((float(one.max()) for one in counts), default=0.0) or 1.0
    for index, (one, heights) in enumerate(zip(values, counts, strict=True)):
        upper, lower = plots.strip(heights / top, 2)
        below, above = int((one < low).sum()), int((one > high).sum())
        lines.append([(" " * (2 + LETTER + 3), TEXT), (upper, STYLES[index])])
        before = right(f"‹{below}" if below else "", 3) + " "
        after = f" {above}›" if above else ""
        lines.append([(f" {SIDES[index]} ", STYLES[index]), (before, "dim"), (lower, STYLES[index]), (after, "dim")])
        lines.append([(" " * (2 + LETTER + 3), TEXT), *_median_mark(one, low, high, cells, STYLES[index])])
    lines.append([(" " * (2 + LETTER + 3), TEXT), (_axis(row, low, high, cells), "dim")])
    return lines


def _finite(values: Floats | None) -> Floats:
    return np.empty(0) if values is None else values[np.isfinite(values)]


def _smooth(counts: Floats) -> Floats:
    """Over five slots: a histogram of some dozen runs is else a comb."""
    return np.convolve(counts, np.array([1, 2, 3, 2, 1]) / 9, mode="same")


def _median_mark(values: Floats, low: float, high: float, cells: int, style: str) -> Line:
    """The middle half as a line, the median on it."""
    if not values.size:
        return [("no runs", "dim")]
    first, middle, last = (
        min(max(int((value - low) / (high - low) * cells), 0), cells - 1)
        for value in np.percentile(values, [25, 50, 75])
    )
    glyphs = [" "] * cells
    glyphs[first : last + 1] = "─" * (last + 1 - first)
    glyphs[middle] = "●"
    return [("".join(glyphs), style)]


def _axis(row: Row, low: float, high: float, cells: int) -> str:
    texts = [_value(row, low + (high - low) * share) for share in (0.0, 0.5, 1.0)]
    room = cells - sum(map(len, texts))
    if room < 2:
        return texts[0]
    return texts[0] + " " * (room // 2) + texts[1] + " " * (room - room // 2) + texts[2]


# --- machines, step by step ---------------------------------------------------------------------------------------


def draw_profiles(group: Group, width: int) -> list[Line]:
    """Every side's steps one under the other, each step beginning at the same place: how long it is, and how busy the
    machine was in it."""
    room = width - 9 - 10
    profiles = [column.profile for column in group.columns]
    widths = step_widths(profiles, room)
    if not widths or room < 20:
        return []
    lines: list[Line] = [
        [(" the machine, step by step", "strong"), ("  mean of all measured runs at each moment of a step", "dim")]
    ]
    for index, one in enumerate(profiles):
        lines.append(
            [(f" {SIDES[index]} ", STYLES[index]), (left("step", 6), "dim"), *_step_bar(one, profiles, widths)]
        )
        lines.append(
            [(left("", 3), TEXT), (left(one.source, 6), "dim"), *_step_strip(one, profiles, widths, "utilization")]
        )
        if _most_memory(one) is not None:
            lines.append(
                [(left("", 3), TEXT), (left("mem", 6), "dim"), *_step_strip(one, profiles, widths, "memory"),
                 (" " + figures.memory(_most_memory(one)), "dim")]
            )  # fmt: skip
    return lines


def step_widths(profiles: Sequence[Profile], room: int) -> list[int]:
    """Cells of each step: in proportion to the longest that any side took, at least two."""
    count = max((len(one.steps) for one in profiles), default=0)
    longest = [
        max((one.steps[place].duration or 0.0 for one in profiles if place < len(one.steps)), default=0.0)
        for place in range(count)
    ]
    total = sum(longest)
    if total <= 0 or room < 2 * count:
        return []
    widths = [max(int(room * value / total), 2) for value in longest]
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _lengths(one: Profile, profiles: Sequence[Profile], widths: Sequence[int]) -> list[int]:
    """Cells that each step of this side fills."""
    filled = []
    for place, cells in enumerate(widths):
        took = one.steps[place].duration if place < len(one.steps) else None
        most = max((other.steps[place].duration or 0.0 for other in profiles if place < len(other.steps)), default=0.0)
        filled.append(0 if not took or not most else min(max(math.ceil(cells * took / most - 1e-9), 1), cells))
    return filled


def _step_bar(one: Profile, profiles: Sequence[Profile], widths: Sequence[int]) -> Line:
    line: Line = []
    for place, (cells, filled) in enumerate(zip(widths, _lengths(one, profiles, widths), strict=True)):
        took = units.duration(one.steps[place].duration) if place < len(one.steps) else ""
        glyphs = ["─"] * filled + [" "] * (cells - filled)
        if filled:
            glyphs[0] = "│"
        label = f"{place + 1} {took}" if len(took) + 3 < filled else str(place + 1) if filled > 1 else ""
        glyphs[1 : 1 + len(label)] = label
        line += runs(glyphs[:cells], [step_style(place)] * cells)
    return line


def _step_strip(one: Profile, profiles: Sequence[Profile], widths: Sequence[int], what: str) -> Line:
    top = _most_memory(one) or 1.0
    line: Line = []
    for place, (cells, filled) in enumerate(zip(widths, _lengths(one, profiles, widths), strict=True)):
        text = ""
        if filled and place < len(one.steps):
            values = getattr(one.steps[place], what) / (1.0 if what == "utilization" else top)
            text = plots.strip(_stretched(values, filled * 2))[0]
        line.append((text.ljust(cells), "accent" if what == "utilization" else "memory"))
    return line


def _stretched(values: Floats, count: int) -> Floats:
    """Parts of a step onto slots: the mean of those that fall together, the nearest where there are fewer."""
    edges = np.linspace(0, values.size, count + 1)
    out = np.full(count, np.nan)
    for slot in range(count):
        here = values[int(edges[slot]) : max(math.ceil(edges[slot + 1]), int(edges[slot]) + 1)]
        here = here[np.isfinite(here)]
        if here.size:
            out[slot] = here.mean()
    return out


def _most_memory(one: Profile) -> float | None:
    if one.memory_total:
        return one.memory_total
    known = [_top(step) for step in one.steps]
    return max((value for value in known if value is not None), default=None)


def _top(step: StepProfile) -> float | None:
    finite = step.memory[np.isfinite(step.memory)]
    return float(finite.max()) if finite.size else None


# --- plans --------------------------------------------------------------------------------------------------------


def draw_differences(differences: Sequence[Difference], labels: Sequence[str], width: int) -> list[Line]:
    """What the plans do not have in common, a column a side."""
    if len(labels) < 2:
        return []
    if not differences:
        return [[(" plans", "strong"), ("  the same", "dim")]]
    name = min(max((len(one.name) for one in differences), default=0), 18)
    cell = max((width - name - 4) // len(labels), 6)
    lines: list[Line] = [
        [
            (left(" plans differ", name + 3), "strong"),
            *((left(label, cell - 1) + " ", STYLES[place]) for place, label in enumerate(labels)),
        ]
    ]
    lines += [
        [(left("   " + one.name, name + 3), "dim"), *((left(value, cell - 1) + " ", TEXT) for value in one.values)]
        for one in differences
    ]
    return lines


def rows_of(columns: Sequence[Column], comparisons: Sequence[Comparison]) -> list[str]:
    """The rows whose distributions can be shown, in the table's order."""
    return [
        row.key for row in comparisons[0].rows if any(_finite(column.values.get(row.key)).size for column in columns)
    ]
