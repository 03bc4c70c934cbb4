"""Lists of sessions and of models, as text for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from llava_tui import units
from llava_tui.models import ModelEntry
from llava_tui.session.reader import safe_text
from llava_tui.session.store import SessionInfo

UNREADABLE = "unreadable"
"""Instead of a status, of a session whose header cannot be read: ``problem`` says why."""
MARKS = {"running": "●", "paused": "‖", "finished": "■", "stopped": "□", "failed": "✗", "interrupted": "▲"}
WATERMARKS = {"simulated": "  SIMULATED", "random-weights": "  RANDOM WEIGHTS"}


def as_text(sessions: Sequence[SessionInfo], folder: Path) -> str:
    """A line a session; what cannot be read is listed with the reason."""
    if not sessions:
        return f"no sessions in {folder}"
    width = max(len(session.id) for session in sessions)
    lines = [f"  {'session':<{width}}  {'status':<12}{'runs':>9}  {'length':>8}  model, name"]
    for session in sessions:
        if session.problem or session.header is None:
            lines.append(f"? {session.id:<{width}}  {UNREADABLE:<12}{safe_text(session.problem)}")
            continue
        runs = f"{session.runs_done}/{session.runs_planned}" if session.runs_planned else str(session.runs_done)
        mark = WATERMARKS.get(session.header.provenance, "")
        said = " ".join([*session.notes.name.split(), *(f"#{tag}" for tag in session.notes.tags)])
        lines.append(
            f"{MARKS.get(session.status, ' ')} {session.id:<{width}}  {session.status:<12}{runs:>9}  "
            f"{units.clock(session.duration_ns):>8}  {safe_text(Path(session.header.model).name)}{mark}"
            + (f"  {said}" if said else "")
        )
    return "\n".join(lines)


def as_json(sessions: Sequence[SessionInfo]) -> str:
    """One JSON array."""
    document = [
        {
            "id": session.id,
            "path": str(session.path),
            "status": UNREADABLE if session.problem else session.status,
            "reason": session.reason,
            "problem": session.problem,
            "duration_ns": session.duration_ns,
            "runs_done": session.runs_done,
            "runs_planned": session.runs_planned,
            "created": session.header.created if session.header else None,
            "model": session.header.model if session.header else None,
            "pipeline": session.header.pipeline if session.header else None,
            "provenance": session.header.provenance if session.header else None,
            "name": session.notes.name,
            "tags": session.notes.tags,
        }
        for session in sessions
    ]
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def models_as_text(entries: Sequence[ModelEntry]) -> str:
    """A line a model: what it is, how large, and whether its family was tried; a problem stands beneath."""
    width = max(len(entry.name) for entry in entries)
    families = [safe_text(f"{e.model_type} ({e.family})" if e.model_type else e.family) for e in entries]
    wide = max(len("family"), *map(len, families))
    lines = [f"  {'model':<{width}}  {'from':<10} {'family':<{wide}}{'on disk':>10}"]
    for entry, family in zip(entries, families, strict=True):
        disk = units.size(entry.bytes) if entry.bytes else ""
        mark = "✗" if entry.problem and entry.source != "preset" else " "
        lines.append(f"{mark} {safe_text(entry.name):<{width}}  {entry.source:<10} {family:<{wide}}{disk:>10}".rstrip())
        lines += [f"  {'':<{width}}  {safe_text(note)}" for note in (entry.problem, entry.note) if note]
    return "\n".join(lines)


def models_as_json(entries: Sequence[ModelEntry]) -> str:
    """One JSON array."""
    return msgspec.json.format(msgspec.json.encode(entries), indent=2).decode()
