"""The page of an analysis, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llava_tui import units
from llava_tui.analysis.insights import BatchImpact, Beside, CaseInsight, Extremes, Fit, Insights
from llava_tui.analysis.roofline import Roofline, StageRoof
from llava_tui.analysis.steps import StepRow
from llava_tui.analysis.whole import Analysis
from llava_tui.report import footprints
from llava_tui.report.advice_lines import advice_lines, nothing
from llava_tui.report.page import WATERMARK, Block, interval
from llava_tui.session.reader import safe_text
from llava_tui.session.timeline import View

MARKS = {"void": "✗", "red": "✗", "amber": "!", "note": "·"}
"""Of a reason for distrust, by its level."""


def blocks(view: View, found: Analysis) -> Iterator[Block]:
    """The parts of the page, in order."""
    whole = found.insights
    yield _head(view, whole)
    for case in whole.cases:
        yield _steps(case, found)
        yield from _footprint(found, case.case)
        if case.roofline.stages or case.roofline.unknown:
            yield _roofline(case)
    if whole.fits:
        yield _fits(whole.fits)
    yield from map(_batches, whole.batches)
    yield _advice(view, found)
    yield from map(_beside, whole.beside)


def _head(view: View, whole: Insights) -> Block:
    header, model = view.header, view.model
    lines = []
    if header.provenance == "simulated":
        lines.append(WATERMARK)
    elif header.provenance != "pretrained":
        lines.append(f"provenance {safe_text(header.provenance)}")
    name = model.name if model is not None else header.model
    parts = [name, *([model.dtype, model.attention, model.device] if model is not None else ["not loaded"])]
    lines.append("model   " + " · ".join(safe_text(part) for part in parts if part))
    if whole.device:
        lines.append(f"device  {safe_text(whole.device)}")
    kinds = ", ".join(
        f"{count.runs} {count.kind}" + ("" if count.outcome == "ok" else f" {count.outcome}")
        for count in whole.runs
        if count.kind != "load"
    )
    lines.append(f"runs    {whole.total_runs} in all, {whole.measured_runs} measured" + (f": {kinds}" if kinds else ""))
    return Block(f"analysis of {header.id}", tuple(lines))


def _steps(case: CaseInsight, found: Analysis) -> Block:
    table = case.table
    lines = list(_trust_lines(found, case.case))
    if not table.n:
        return Block(f"case {case.case}", ("no measured run yet",))
    metrics = [
        ("time to first token", units.duration(table.ttft.median)),
        ("a token", units.duration(table.tpot.median)),
        ("between tokens p95", units.duration(table.itl_p95)),
        ("decode", units.number(table.tokens_per_second.median, "tok/s")),
        ("step 1", units.number(table.frames_per_second.median, "frames/s")),
    ]
    lines.append("   ".join(f"{name} {value}" for name, value in metrics if value != units.UNKNOWN))
    lines += _extreme_lines(case.extremes)
    rows = tuple(_step_row(row) for row in (*table.rows, table.wall))
    columns = ("step", "median", "95 % interval", "mean ± std", "share", "MAD/median")
    return Block(f"case {case.case}   n {table.n}", tuple(lines), columns, rows)


def _step_row(row: StepRow) -> tuple[str, ...]:
    summary = row.summary
    mean = units.duration(summary.mean)
    if summary.std is not None:
        mean += f" ± {units.duration(summary.std)}"
    stability = units.percent(summary.stability) if summary.n > 1 else units.UNKNOWN
    if summary.state == "below timer resolution":
        stability = "below timer"
    share = units.percent(row.share)
    return ("  " * row.depth + row.title, units.duration(summary.median), interval(summary), mean, share, stability)


def _extreme_lines(found: Extremes) -> Iterator[str]:
    named = (("slowest", found.slowest), ("lightest", found.lightest))
    parts = [f"{name} {step.title} ({units.duration(step.value)})" for name, step in named if step is not None]
    named = (("most stable", found.most_stable), ("least stable", found.least_stable))
    parts += [f"{name} {step.title} ({units.percent(step.value)})" for name, step in named if step is not None]
    if parts:
        yield "   ".join(parts)
    if found.unresolved:
        yield f"too short for the timer to tell how stable: {', '.join(found.unresolved)}"


def _trust_lines(found: Analysis, case: str) -> Iterator[str]:
    trust = found.trust.get(case)
    if trust is not None:
        yield f"trust {trust.grade}" + ("" if trust.reasons else ": nothing against it")
        for reason in trust.reasons:
            yield f"  {MARKS[reason.level]} {reason.text}"


def _footprint(found: Analysis, case: str) -> Iterator[Block]:
    """Memory by stage and energy by step, where anything of the kind is known."""
    of = found.footprints.get(case)
    if of is None:
        return
    first, second = ("resident", "peak") if of.is_resident else ("allocated at most", "reserved")
    rows = tuple(
        (
            "  " * row.path.count(".") + row.title,
            units.size(row.resident.median if of.is_resident else row.allocated.median),
            units.size(row.resident_peak.median if of.is_resident else row.reserved.median),
            units.number(row.energy, "J"),
        )
        for row in of.rows
        if row.peak is not None or row.energy is not None
    )
    lines = [f"a run takes {units.number(of.energy, 'J')}"] if of.energy is not None else []
    lines += [f"weights {told}" for told in [footprints.weights(of.weights)] if told]
    lines += [told for told in [footprints.cache(of)] if told]
    lines += [f"out of memory {footprints.short(of)}"] if of.short else []
    if rows or lines:
        yield Block(f"memory and energy of {case}", tuple(lines), ("step", first, second, "energy"), rows)


def _roofline(case: CaseInsight) -> Block:
    roof = case.roofline
    lines = []
    if roof.peaks is not None:
        flops = roof.peaks.of(roof.dtype)
        each = f"{prefixed(flops)}FLOP/s {roof.dtype}, " if flops is not None else ""
        lines.append(
            f"{safe_text(roof.peaks.device)}: {each}{prefixed(roof.peaks.bandwidth)}B/s; {safe_text(roof.peaks.source)}"
        )
    lines += [f"unknown: {safe_text(why)}" for why in roof.unknown]
    lines += [
        f"faster than physics: {row.title} took {units.duration(row.median)}, the roofline allows "
        f"{units.duration(row.floor)}: {why_impossible(roof)}"
        for row in roof.stages
        if row.impossible
    ]
    columns = ("stage", "median", "floor", "MFU", "MBU", "bound by", "FLOP", "bytes")
    return Block(f"roofline of {case.case}", tuple(lines), columns, tuple(_roof_row(row) for row in roof.stages))


def why_impossible(roof: Roofline) -> str:
    if roof.peaks is not None and roof.peaks.measured:
        return "a timing bug, or peaks measured while the machine was busy (llava-tui doctor --measure-peaks)"
    return "a timing bug"


def prefixed(value: float) -> str:
    """A count with its decimal prefix: ``1.53 T``, ``13.2 G``."""
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * scale:
            return f"{units.number(value / scale)} {prefix}"
    return f"{units.number(value)} "


def _roof_row(row: StageRoof) -> tuple[str, ...]:
    return (
        row.title,
        units.duration(row.median),
        units.duration(row.floor),
        units.percent(row.mfu),
        units.percent(row.mbu),
        row.bound or units.UNKNOWN,
        prefixed(row.flops),
        prefixed(row.bytes),
    )


def _fits(fits: Sequence[Fit]) -> Block:
    columns = ("T = a + b × frames", "a", "95 % interval", "b, a frame", "95 % interval", "rounds", "misfit")
    rows = tuple(
        (
            f"{fit.path} ({fit.alike}; {', '.join(map(str, fit.frames))})",
            units.duration(fit.a),
            _span(fit.a_low, fit.a_high),
            units.duration(fit.b),
            _span(fit.b_low, fit.b_high),
            str(fit.rounds),
            units.percent(fit.misfit),
        )
        for fit in fits
    )
    return Block("what a frame costs", (), columns, rows)


def _span(low: float | None, high: float | None) -> str:
    return "too few rounds" if low is None else f"{units.duration(low)} … {units.duration(high)}"


def _batches(impact: BatchImpact) -> Block:
    columns = ("batch", "whole run", "a sequence", "tok/s", "gain a sequence")
    rows = tuple(
        (
            str(point.batch),
            units.duration(point.wall),
            units.duration(point.per_sequence),
            units.number(point.tokens_per_second),
            f"{point.efficiency:.2f} ×",
        )
        for point in impact.points
    )
    return Block(f"what a batch gives ({impact.alike})", (), columns, rows)


def _advice(view: View, found: Analysis) -> Block:
    if not found.advised:
        return Block("advice", ("no measured run to advise on",))
    title = f"advice on {found.advised}"
    if not found.advice:
        return Block(title, (nothing(view),))
    lines = [
        line for number, advice in enumerate(found.advice, 1) for line in advice_lines(number, advice, view.header.id)
    ]
    return Block(title, tuple(map(safe_text, lines)))


def _beside(beside: Beside) -> Block:
    rows = tuple((step.title, units.percent(step.share), units.duration(step.ns)) for step in beside.steps)
    title = f"beside it: {safe_text(beside.model)} ({safe_text(beside.label)})"
    return Block(title, ("to look at; nothing is claimed of the difference",), ("step", "share", "median"), rows)
