"""What a session holds, as text for a terminal and as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from llava_tui import units
from llava_tui.analysis.footprint import Footprint, footprint, weights_of
from llava_tui.analysis.steps import StepRow, StepTable, case_ids, step_table
from llava_tui.analysis.trust import Trust, badge
from llava_tui.report import facts, footprints, items, ranks
from llava_tui.report.page import WATERMARK, interval, summary_json
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.store import SessionInfo
from llava_tui.session.timeline import Timeline, View

BAR = 20
"""Cells of a bar that stands for the whole run."""


def require_case(timeline: Timeline, case: str | None) -> None:
    """Raises :class:`SessionError` for a case that the session does not have."""
    known = case_ids(timeline.now())
    if case and case not in known:
        raise SessionError(
            f"{timeline.path.name} has no case {safe_text(case, 40)!r}; it has {', '.join(known) or 'none'}"
        )


def as_text(info: SessionInfo, timeline: Timeline, case: str | None = None) -> str:
    """A page: head, then the steps table of each case (or of ``case``)."""
    view = timeline.now()
    blocks = ["\n".join(_head(info, timeline, view))]
    found = {id_: footprint(view, id_) for id_ in ([case] if case else case_ids(view))}
    if across := footprints.across(list(found.values())):
        blocks.append("\n".join(across))
    for id_, held in found.items():
        lines = _table(step_table(view, id_), held) + footprints.lines(held)
        lines += ranks.lines(view, id_) + items.lines(view, id_)
        blocks.append("\n".join(lines + trust_lines(badge(view, id_, info.status))))
    if profile := facts.profile_table(view):
        blocks.append("\n".join(profile))
    return "\n\n".join(blocks)


def as_json(info: SessionInfo, timeline: Timeline, case: str | None = None) -> str:
    """One JSON document; times in ns, memory in bytes, ``null`` for what is not known."""
    view = timeline.now()
    model = view.model
    document: dict[str, Any] = {
        "id": info.id,
        "path": str(info.path),
        "status": info.status,
        "reason": info.reason,
        "corrupt_lines": timeline.corrupt,
        "duration_ns": info.duration_ns,
        "header": info.header,
        "notes": info.notes,
        "model": model,
        "schedule": view.schedule,
        "facts": list(view.facts["event"]),
        "cases": [
            _case_json(step_table(view, id_), footprint(view, id_))
            | {"trust": badge(view, id_, info.status), "ranks": ranks.as_json(view, id_)}
            | {"items": items.as_json(view, id_)}
            for id_ in ([case] if case else case_ids(view))
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _decoding(plan: dict[str, Any]) -> list[str]:
    """How every case decodes, where that is not as by default; where cases differ in it they say so themselves."""
    cache, compiled = str(plan.get("cache", "auto")), str(plan.get("compile", "off"))
    words = [f"{cache} cache"] if cache != "auto" and "," not in cache else []
    words += [f"compiled ({compiled})"] if compiled != "off" and "," not in compiled else []
    vision, resolution = str(plan.get("vision_attention", "auto")), plan.get("resolution") or ()
    words += [f"vision tower {vision}"] if vision != "auto" and "," not in vision else []
    words += [f"{side} pixels" for side in resolution] if len(resolution) == 1 else []
    for field, title in (("quantization", ""), ("device_map", "device map ")):
        value = str(plan.get(field, "none"))
        words += [title + value] if value != "none" and "," not in value else []
    return words


def _head(info: SessionInfo, timeline: Timeline, view: View) -> list[str]:
    header = timeline.header
    watermark = {"simulated": f"   {WATERMARK}"}.get(
        header.provenance, "" if header.provenance == "pretrained" else f"   {header.provenance}"
    )
    lines = [f"{info.id}  {info.status}{watermark}"]
    if info.reason:
        lines.append(f"  reason   {safe_text(info.reason)}")
    if info.notes.name or info.notes.tags:
        lines.append(f"  name     {safe_text(' '.join([info.notes.name, *('#' + tag for tag in info.notes.tags)]))}")
    model = view.model
    if model is not None:
        parts = [model.name, units.counted(model.parameters, "parameter"), model.dtype, model.attention]
        parts.append(model.device + (f" ({model.device_name})" if model.device_name else ""))
        parts += _decoding(header.plan)
        lines.append("  model    " + " · ".join(safe_text(part) for part in parts if part))
    else:
        named = "as the file names it" if header.provenance == "imported" else "not loaded"
        lines.append(f"  model    {safe_text(header.model)} ({named})")
    if weights := footprints.weights(weights_of(model)):
        lines.append(f"  weights  {weights}")
    lines += items.head(timeline)
    host = dict.fromkeys(safe_text(part) for part in (header.host.hostname, header.host.cpu))  # "not known" once
    cores = (units.counted(header.host.cores, "core"),) if header.host.cores else ()
    lines.append("  host     " + " · ".join((*host, *cores)))
    lines.append(f"  started  {header.created}   lasted {units.clock(info.duration_ns)}   runs {_runs(info)}")
    lines += ranks.head(timeline) + facts.head(view)
    if timeline.corrupt:
        lost = units.counted(timeline.corrupt, "line")
        lines.append(f"  warning  left out: {lost} that could not be read")
    return lines


def _runs(info: SessionInfo) -> str:
    return f"{info.runs_done}/{info.runs_planned}" if info.runs_planned else str(info.runs_done)


def _table(table: StepTable, held: Footprint) -> list[str]:
    peaks = {row.path: row.peak for row in held.rows} | {"wall": held.peak}
    has_memory = any(peak is not None for peak in peaks.values())
    head = f"  {'step':<22}{'median':>10}  {'95 % interval':<22}{'share':>8}"
    lines = [f"case {table.case}   n {table.n}", head + ("  peak memory" if has_memory else "")]
    rows = (*table.rows, table.wall)
    lines += [_row_text(row, f"{units.size(peaks.get(row.path)):>13}" if has_memory else "") for row in rows]
    metrics = [("time to first token", units.duration(table.ttft.median))]
    if table.itl.n:
        metrics.append(("time per output token", units.duration(table.tpot.median)))
        p95 = f" (p95 {units.duration(table.itl_p95)})" if table.itl_p95 is not None else ""
        metrics.append(("inter-token latency", units.duration(table.itl.median) + p95))
        metrics.append(("decode", units.number(table.tokens_per_second.median, "tok/s")))
    metrics.append(("step 1", units.number(table.frames_per_second.median, "frames/s")))
    told = [f"{name} {value}" for name, value in metrics if value != units.UNKNOWN]
    return lines + (["  " + "   ".join(told)] if told else [])


def trust_lines(trust: Trust) -> list[str]:
    """The badge of a case, a line a reason."""
    lines = [f"  trust {trust.grade or units.UNKNOWN}"]
    return lines + [f"    {'' if reason.level == 'note' else '! '}{reason.text}" for reason in trust.reasons]


def _row_text(row: StepRow, memory: str) -> str:
    title = "  " * row.depth + row.title
    bar = "█" * round((row.share or 0) * BAR) if row.path != "wall" else ""
    return (
        f"  {title:<22}{units.duration(row.summary.median):>10}  {interval(row.summary):<22}"
        f"{units.percent(row.share):>8}{memory}  {bar}"
    ).rstrip()


def _case_json(table: StepTable, of: Footprint) -> dict[str, Any]:
    return {
        "case": table.case,
        "n": table.n,
        "wall": summary_json(table.wall.summary),
        "ttft": summary_json(table.ttft),
        "tpot": summary_json(table.tpot),
        "itl": summary_json(table.itl) | {"p95": table.itl_p95},
        "tokens_per_second": summary_json(table.tokens_per_second),
        "frames_per_second": summary_json(table.frames_per_second),
        "stages": [
            {"path": row.path, "title": row.title, "share": row.share} | summary_json(row.summary) for row in table.rows
        ],
        "footprint": footprints.as_json(of),
    }
