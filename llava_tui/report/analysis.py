"""What ``analyze`` tells, as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llava_tui import units
from llava_tui.analysis.advice import Advice
from llava_tui.analysis.insights import BatchImpact, Beside, CaseInsight, Extremes, Fit, Insights
from llava_tui.analysis.roofline import Roofline, StageRoof
from llava_tui.analysis.statistics import Summary
from llava_tui.analysis.steps import StepRow, case_ids
from llava_tui.analysis.whole import Analysis, analyze
from llava_tui.session import shelf, store
from llava_tui.session.reader import SessionError, read_header, safe_text
from llava_tui.session.timeline import View

WATERMARK = "SIMULATED: times from a model of the hardware, not from hardware"


MARKS = {"void": "✗", "red": "✗", "amber": "!", "note": "·"}
MOST_SESSIONS = 200
"""So many of the newest are looked through for one of EventGPT."""


def read(path: Path, folder: Path, case: str | None = None, beside: Path | None = None) -> tuple[View, Analysis]:
    """The session in ``path``, analysed with the peaks that were measured on this machine, beside the session in
    ``beside`` (else the newest of EventGPT in ``folder``). Raises :class:`SessionError`."""
    from llava_tui.measured_peaks import load

    view = shelf.read(path).now()
    known = case_ids(view)
    if case is not None and case not in known:
        raise SessionError(f"--case {case}: {path.name} has no such case; it has {', '.join(known) or 'none yet'}")
    other = beside or _eventgpt(folder, path)
    beside_view = shelf.read(other).now() if other is not None else None
    return view, analyze(view, load(), case, beside_view, store.status(path))


def _eventgpt(folder: Path, path: Path) -> Path | None:
    """The newest session of EventGPT in the folder that is not ``path``."""
    try:
        newest = sorted((each for each in folder.iterdir() if each.is_dir()), key=lambda each: each.name, reverse=True)
    except OSError:
        return None
    for each in newest[:MOST_SESSIONS]:
        try:
            header = read_header(each)
        except (SessionError, OSError):
            continue
        if "eventgpt" in f"{header.pipeline} {header.model}".lower() and each.name != path.name:
            return each
    return None


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the page: a title, lines, and a table whose first column is text."""

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def as_text(view: View, found: Analysis) -> str:
    """A page for a terminal."""
    return "\n\n".join(_block_text(block) for block in _blocks(view, found))


def as_markdown(view: View, found: Analysis) -> str:
    """The same for a pull request, an issue or a paper's notes."""
    parts: list[str] = []
    for number, block in enumerate(_blocks(view, found)):
        parts.append(f"{'##' if number else '#'} {_escape(block.title)}")
        if block.lines:
            parts.append("\n".join(f"- {_escape(line.strip())}" for line in block.lines))
        if block.rows:
            head = f"| {' | '.join(map(_escape, block.columns))} |"
            rule = f"| --- |{' ---: |' * (len(block.columns) - 1)}"
            rows = [f"| {' | '.join(_escape(_indent(cell)) for cell in row)} |" for row in block.rows]
            parts.append("\n".join([head, rule, *rows]))
    return "\n\n".join(parts)


def as_json(view: View, found: Analysis) -> str:
    """One JSON document: times in ns, memory in bytes, shares and efficiencies as fractions, ``null`` for what is not
    known."""
    header, model = view.header, view.model
    whole = found.insights
    document: dict[str, Any] = {
        "session": header.id,
        "provenance": header.provenance,
        "pipeline": header.pipeline,
        "model": model.name if model is not None else header.model,
        "device": whole.device,
        "runs": {"total": whole.total_runs, "measured": whole.measured_runs, "kinds": _plain(whole.runs)},
        "peaks": _plain(whole.peaks) if whole.peaks is not None else None,
        "cases": [_case_json(case) | {"trust": _trust_json(found, case.case)} for case in whole.cases],
        "fits": _plain(whole.fits),
        "batches": _plain(whole.batches),
        "advice": {
            "case": found.advised,
            "items": [_plain(advice) | {"command": command(advice, header.id)} for advice in found.advice],
        },
        "beside": _plain(whole.beside),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def command(advice: Advice, session: str) -> str:
    """What puts a piece of advice to the test, as one types it."""
    if advice.change is not None:
        return f"llava-tui advise {session} --verify --only {advice.id} --case {advice.case}"
    return advice.command.replace("{session}", session)


def nothing(view: View) -> str:
    """Why there is no advice."""
    if view.model is None:
        return "none: the session does not say which model ran"
    return "nothing stands out: no rule's threshold is crossed"


def advice_lines(number: int, advice: Advice, session: str) -> list[str]:
    """A piece of advice: title and gain, evidence, what to do, the command."""
    what = "" if advice.metric == "wall" else f" ({advice.metric})"
    gain = f"saves about {units.percent(advice.gain)}{what}" if advice.gain is not None else "gain not known"
    if advice.bound is not None:
        gain += f", at most {units.percent(advice.bound)}"
    elif advice.gain is None:
        gain = ""
    lines = [f"{number}. {advice.title}" + (f" — {gain}" if gain else "")]
    lines += [f"   because {line}" for line in advice.evidence]
    lines.append(f"   do      {advice.remedy}")
    lines.append(f"   {'verify ' if advice.change is not None else 'try    '} {command(advice, session)}")
    return lines


# --- blocks -------------------------------------------------------------------------------------------------------


def _blocks(view: View, found: Analysis) -> Iterator[Block]:
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
    return ("  " * row.depth + row.title, units.duration(summary.median), _interval(summary), mean, share, stability)


def _interval(summary: Summary) -> str:
    if summary.n == 0:
        return units.UNKNOWN
    if summary.low is None:
        return f"too few ({summary.n} of 6)"
    return units.interval(summary.low, summary.high, summary.n)


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
    rows = tuple(
        (
            "  " * row.path.count(".") + row.title,
            units.size(row.allocated.median),
            units.size(row.reserved.median),
            units.number(row.energy, "J"),
        )
        for row in of.rows
        if row.allocated.n or row.energy is not None
    )
    lines = (f"a run takes {units.number(of.energy, 'J')}",) if of.energy is not None else ()
    if rows or lines:
        columns = ("step", "allocated at most", "reserved", "energy")
        yield Block(f"memory and energy of {case}", lines, columns, rows)


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
        f"{units.duration(row.floor)}: {_why_impossible(roof)}"
        for row in roof.stages
        if row.impossible
    ]
    columns = ("stage", "median", "floor", "MFU", "MBU", "bound by", "FLOP", "bytes")
    return Block(f"roofline of {case.case}", tuple(lines), columns, tuple(_roof_row(row) for row in roof.stages))


def _why_impossible(roof: Roofline) -> str:
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


# --- the two forms of a block -------------------------------------------------------------------------------------


def _block_text(block: Block) -> str:
    lines = [block.title, *(f"  {line}" for line in block.lines)]
    if block.rows:
        table = [block.columns, *block.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(block.columns))]
        for row in table:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _indent(cell: str) -> str:
    """Leading spaces as Markdown keeps them."""
    text = cell.lstrip(" ")
    return "\N{EM SPACE}" * ((len(cell) - len(text)) // 2) + text


def _escape(text: str) -> str:
    for mark in ("\\", "|", "<", "`", "*", "_"):
        text = text.replace(mark, "\\" + mark)
    return text


# --- JSON ---------------------------------------------------------------------------------------------------------


def _case_json(case: CaseInsight) -> dict[str, Any]:
    table = case.table
    return {
        "case": case.case,
        "n": table.n,
        "wall": _plain(table.wall.summary),
        "ttft": _plain(table.ttft),
        "tpot": _plain(table.tpot),
        "itl": _plain(table.itl),
        "tokens_per_second": _plain(table.tokens_per_second),
        "frames_per_second": _plain(table.frames_per_second),
        "steps": [
            {"path": row.path, "title": row.title, "depth": row.depth, "share": row.share}
            | _plain(row.summary)
            | {"stability": row.summary.stability}
            for row in table.rows
        ],
        "extremes": _plain(case.extremes),
        "roofline": {"stages": _plain(case.roofline.stages), "unknown": list(case.roofline.unknown)},
    }


def _trust_json(found: Analysis, case: str) -> dict[str, Any] | None:
    trust = found.trust.get(case)
    return None if trust is None else {"grade": trust.grade, "reasons": _plain(trust.reasons)}


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
