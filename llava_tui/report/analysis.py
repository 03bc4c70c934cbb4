"""What ``analyze`` tells, as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from llava_tui.analysis.insights import CaseInsight
from llava_tui.analysis.steps import case_ids
from llava_tui.analysis.whole import Analysis, analyze
from llava_tui.report import page
from llava_tui.report.advice_lines import command
from llava_tui.report.analysis_blocks import blocks
from llava_tui.session import shelf, store
from llava_tui.session.reader import SessionError, read_header
from llava_tui.session.timeline import View

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


def as_text(view: View, found: Analysis) -> str:
    """A page for a terminal."""
    return "\n\n".join(map(page.as_text, blocks(view, found)))


def as_markdown(view: View, found: Analysis) -> str:
    """The same for a pull request, an issue or a paper's notes."""
    return "\n\n".join(page.as_markdown(block, 2 if number else 1) for number, block in enumerate(blocks(view, found)))


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
