"""What a session says of one case, as lines: trust, where the time goes, frames, another model, the roofs, advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava_tui import units
from llava_tui.session.reader import safe_text
from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import plots
from llava_tui.tui.widgets.analysis_plots import draw_batch, draw_beside, draw_fits, draw_roofline
from llava_tui.tui.widgets.cells import TEXT, Line, fit, join, left, right, wrap
from llava_tui.tui.widgets.signs import GRADE_STYLES, PROVENANCE

if TYPE_CHECKING:
    from llava_tui.analysis.advice import Advice
    from llava_tui.analysis.footprint import Footprint, StageFootprint
    from llava_tui.analysis.insights import CaseInsight, Extremes
    from llava_tui.analysis.steps import StepRow
    from llava_tui.analysis.trust import Trust
    from llava_tui.analysis.whole import Analysis

LEVELS = {"void": ("✗", "bad"), "red": ("✗", "bad"), "amber": ("!", "warn"), "note": ("·", "dim")}
"""How much a reason against a figure weighs: glyph, style."""
WORTH = {
    "A": "nothing against the figures",
    "B": "one doubt",
    "C": "some doubts",
    "D": "measure again before anything is claimed",
    "E": "measure again before anything is claimed",
    "F": "not to be used",
}


@dataclass(frozen=True, slots=True)
class Told:
    """All that the page says, of one case of one session."""

    session: str
    """Its id."""
    provenance: str
    model: str
    """What ran on what: ``llava-1.5-7b · float16 · sdpa · cuda:0``."""
    missing: str
    """What there is to do or to wait for, where nothing was measured; "" otherwise."""
    whole: Analysis
    """Of every case: what only several can tell."""
    one: Analysis
    """Of the case: its advice."""
    case: str
    trust: Trust | None
    """Of the case, measured or not; ``None`` where there is no case."""
    commands: tuple[str, ...]
    """What puts each piece of ``one.advice`` to the test."""
    quiet: str
    """Why there is no advice, where there is none."""

    @property
    def insight(self) -> CaseInsight | None:
        """Of the case; ``None`` where there is none."""
        return next((each for each in self.whole.insights.cases if each.case == self.case), None)


def draw_analysis(told: Told, width: int) -> list[Line]:
    """The whole page."""
    insight = told.insight
    whole = told.whole.insights
    parts: list[tuple[str, list[Line]]] = [("", draw_head(told, width))]
    if told.missing:
        parts.append(("nothing was measured", _text(told.missing, width, "warn")))
    if told.trust is not None and (told.trust.grade or told.trust.reasons):
        parts.append(("trust", draw_trust(told.trust, width)))
    if insight is not None and insight.table.n:
        parts.append(("where the time goes", draw_shares(insight, width)))
        parts.append(("memory and energy", draw_footprint(told.whole.footprints.get(told.case), width)))
    parts.append(("what a frame costs", draw_fits(whole.fits, whole.cases, told.case, width)))
    parts += [("what a batch gives", draw_batch(impact, width)) for impact in whole.batches]
    if insight is not None and insight.table.n:
        parts += [("beside it", draw_beside(each, insight, _name(told), width)) for each in whole.beside]
        parts.append(("roofline", draw_roofline(insight.roofline, [row.path for row in insight.table.rows], width)))
        parts.append(("advice", draw_advice(told, width)))
    lines: list[Line] = []
    for title, part in parts:
        if part:
            lines += [[], heading(title, width), *part] if title else part
    return [fit(line, width) for line in lines]


def heading(title: str, width: int) -> Line:
    """``━━ roofline ━━━━━━━``."""
    return [(" ━━ ", "track"), (title, "strong"), (" " + "━" * max(width - len(title) - 6, 0), "track")]


def _text(text: str, width: int, style: str = TEXT, indent: int = 1) -> list[Line]:
    return [[(" " * indent, TEXT), (line, style)] for line in wrap(text, max(width - indent - 1, 1))]


def _name(told: Told) -> str:
    return told.model.split(" · ")[0]


# --- the head and the badge -------------------------------------------------------------------------------------------


def draw_head(told: Told, width: int) -> list[Line]:
    """What ran, how often; what is no measurement says so."""
    whole = told.whole.insights
    lines: list[Line] = []
    if word := PROVENANCE.get(told.provenance):
        what = {"simulated": "times from a model of the hardware, not from hardware"}.get(told.provenance, "")
        lines.append([(" ", TEXT), (f" {word} ", "watermark"), ("  " + what, "dim")])
    lines += _named("model", told.model, width)
    if whole.device:
        lines += _named("device", safe_text(whole.device), width)
    kinds = [
        f"{count.runs} {count.kind}" + ("" if count.outcome == "ok" else f" {count.outcome}")
        for count in whole.runs
        if count.kind != "load"
    ]
    runs = str(whole.total_runs) + (f": {', '.join(kinds)}" if kinds else "")
    return lines + _named("runs", runs, width)


def _named(name: str, text: str, width: int) -> list[Line]:
    """A name, then text that goes on under itself."""
    lines: list[Line] = []
    for index, line in enumerate(wrap(text, max(width - 10, 1))):
        lines.append([(left(f" {name}" if not index else "", 9), "dim"), (line, TEXT)])
    return lines


def draw_trust(trust: Trust, width: int) -> list[Line]:
    """The badge, and a line a reason, the worst first."""
    lines: list[Line] = []
    if trust.grade is not None:
        style = GRADE_STYLES.get(trust.grade, "bad")
        badge: Line = [("  ", TEXT), (f"▕ {trust.grade} ▏", style), (f"  {WORTH[trust.grade]}", style)]
        lines.append([*badge, (f"  n {trust.n}", "dim")])
    for reason in trust.reasons:
        glyph, style = LEVELS[reason.level]
        for index, line in enumerate(wrap(reason.text, max(width - 6, 1))):
            text = style if style == "bad" else TEXT if reason.level == "amber" else "dim"
            lines.append([(f"   {glyph if not index else ' '} ", style), (line, text)])
    return lines


# --- insights ---------------------------------------------------------------------------------------------------------


def draw_shares(insight: CaseInsight, width: int) -> list[Line]:
    """The figures of a run, a bar a step and stage, what stands out."""
    table = insight.table
    fps = table.frames_per_second.median
    figures = [
        ("run", units.duration(table.wall.summary.median)),
        ("TTFT", units.duration(table.ttft.median)),
        ("TPOT", units.duration(table.tpot.median)),
        ("ITL p95", units.duration(table.itl_p95)),
        ("decode", units.number(table.tokens_per_second.median, "tok/s")),
        ("step 1", units.number(fps, "frames/s") if fps else units.UNKNOWN),
    ]
    known: list[Line] = [[(name + " ", "dim"), (text, "accent")] for name, text in figures if text != units.UNKNOWN]
    lines: list[Line] = [[(" ", TEXT), *join(known, 3, width - 1)]] if known else []
    steps = [row.path for row in table.rows if not row.depth and row.path != "unaccounted"]
    rows = [row for row in table.rows if not row.path.endswith(".rest") or (row.share or 0.0) >= 0.01]
    title = min(max(len(row.title) + 2 * row.depth for row in rows) + 3, max(width - 30, 12))
    interval = width >= 100
    cells = max(width - title - 11 - 10 - (24 if interval else 0) - 2, 0)
    for row in rows:
        place = row.path.split(".")[0]
        style = step_style(steps.index(place)) if place in steps else "dim"
        line: Line = [(left(" " + "  " * row.depth + row.title, title), TEXT if row.depth else "strong")]
        line.append((right(units.duration(row.summary.median), 11), TEXT))
        if interval:
            span = units.interval(row.summary.low, row.summary.high, row.summary.n)
            line.append((right(span, 24), "dim"))
        line += [(right(units.percent(row.share), 9) + " ", TEXT), (plots.bar(row.share, cells), style)]
        lines.append(line)
    return lines + _extremes(insight.extremes, table.rows, width)


def _extremes(found: Extremes, rows: Sequence[StepRow], width: int) -> list[Line]:
    """Which step is slowest, lightest, steadiest."""
    said: list[Line] = []
    for name, step in (("slowest", found.slowest), ("lightest", found.lightest)):
        if step is not None:
            said.append([(f"{name} ", "dim"), (step.title, TEXT), (f" {units.duration(step.value)}", "accent")])
    for name, step in (("steadiest", found.most_stable), ("least steady", found.least_stable)):
        if step is not None:
            said.append([(f"{name} ", "dim"), (step.title, TEXT), (f" ±{units.percent(step.value)}", "accent")])
    lines: list[Line] = []
    while said:
        line = join(said, 3, width - 1)
        lines.append([(" ", TEXT), *line])
        # What did not fit goes on in the next line.
        shown = "".join(text for text, _ in line)
        rest = [part for part in said if "".join(text for text, _ in part) not in shown]
        if len(rest) == len(said):
            break
        said = rest
    if found.unresolved:
        lines += _text(f"too short for the timer to tell how steady: {', '.join(found.unresolved)}", width, "dim")
    return lines


def draw_footprint(found: Footprint | None, width: int) -> list[Line]:
    """Memory by stage as bars of the greatest, the energy of a step, what the cache and the weights take; nothing where
    nothing is known."""
    if found is None:
        return []
    from llava_tui.report import footprints

    rows = [row for row in found.rows if row.peak is not None or row.energy is not None]
    lines: list[Line] = []
    held = [_held(row, found.is_resident) for row in rows]
    greatest = max((more or less or 0.0 for less, more in held), default=0.0)
    cells = max(width - 24 - 12 - 12 - 12, 0)
    if rows:
        first, second = ("resident", "peak") if found.is_resident else ("allocated", "reserved")
        lines.append([(left("", 24) + right("energy", 12) + right(first, 12) + right(second, 12), "dim")])
    for row, (less, more) in zip(rows, held, strict=True):
        depth = row.path.count(".")
        line: Line = [(left(" " + "  " * depth + row.title, 24), TEXT if depth else "strong")]
        line.append((right(units.number(row.energy, "J"), 12), TEXT if row.energy is not None else "dim"))
        line += [(right(units.size(value), 12), TEXT) for value in (less, more)]
        line.append((" " + plots.bar((less or 0.0) / greatest if greatest else None, cells - 1), "memory"))
        lines.append(line)
    if found.energy is not None:
        lines.append([(" a run takes ", "dim"), (units.number(found.energy, "J"), "accent")])
    said = [("cache", footprints.cache(found)), ("weights", footprints.weights(found.weights))]
    if found.short:
        lines += _named("short", f"of memory: {footprints.short(found)}", width)
    for name, text in said:
        lines += _named(name, text, width) if text else []
    return lines


def _held(row: StageFootprint, resident: bool) -> tuple[float | None, float | None]:
    """What a stage held, and the most that was held for it."""
    if resident:
        return row.resident.median, row.resident_peak.median
    return row.allocated.median, row.reserved.median


# --- advice -----------------------------------------------------------------------------------------------------------


def draw_advice(told: Told, width: int) -> list[Line]:
    """A card a piece: what, what it would save, why, what to do, the command that puts it to the test."""
    lines: list[Line] = []
    for number, (advice, command) in enumerate(zip(told.one.advice, told.commands, strict=True), 1):
        lines += [*([[]] if lines else []), *_card(number, advice, command, width)]
    if not told.one.advice:
        lines = _text(told.quiet, width, "dim")
    if told.one.withheld:
        names = ", ".join(each.title for each in told.one.withheld)
        lines += _text(f"held back until the figures can be trusted: {names}", width, "dim")
    return lines


def _card(number: int, advice: Advice, command: str, width: int) -> Iterator[Line]:
    room = max(width - 14, 1)
    for index, text in enumerate(wrap(safe_text(advice.title), max(width - 6, 1))):
        yield [(right(f"{number} ", 4) if not index else "    ", "accent"), (text, "strong")]
    if advice.gain is not None or advice.bound is not None:
        what = "" if advice.metric == "wall" else f" ({advice.metric})"
        words = f"about {units.percent(advice.gain)}{what}" if advice.gain is not None else "not known"
        words += f", at most {units.percent(advice.bound)}" if advice.bound is not None else ""
        cells = max(min(24, width - 14 - len(words) - 2), 0)
        yield [
            (left("    saves", 12), "dim"),
            (gain_bar(advice, cells) + "  " if cells else "", "good"),
            (words, "good"),
        ]
    named = [("because", safe_text(line), TEXT) for line in advice.evidence]
    named.append(("do", safe_text(advice.remedy), TEXT))
    named.append(("verify" if advice.change is not None else "try", safe_text(command), "accent"))
    for name, text, style in named:
        for index, line in enumerate(wrap(text, room)):
            yield [(left(f"    {name}" if not index else "", 12), "dim"), (line, style)]


def gain_bar(advice: Advice, cells: int) -> str:
    """What is expected of a run's time, then what is the most there can be."""
    sure = round((advice.gain or 0.0) * cells)
    most = max(round((advice.bound or 0.0) * cells), sure)
    return ("█" * sure + "░" * (most - sure)).ljust(cells, "·")[:cells]
