"""What a user names on the command line to be compared, read from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava_tui.analysis.comparison import Side
from llava_tui.analysis.fairness import machine_of, model_of
from llava_tui.session import several, spreads, store
from llava_tui.session.reader import SessionError, read_header, read_notes, safe_text

PINNED = "@pinned"


def read_sides(folder: Path, references: Sequence[str]) -> list[Side]:
    """A side each reference: ``SESSION``, ``SESSION:CASE``, several sessions that belong together with commas between,
    or ``@pinned``. A session that is named twice is read once. Raises :class:`SessionError`."""
    named = [_resolve(folder, reference) for reference in references]
    timelines = several.read([path for paths, _ in named for path in paths])
    sides = []
    for paths, case in named:
        label = _label(paths[0]) + (f" +{len(paths) - 1}" if len(paths) > 1 else "")
        sides.append(Side(label, tuple(timelines[path].now() for path in paths), case))
    labels = [side.label for side in sides]
    return [side if labels.count(side.label) == 1 else Side(_ids(side), side.views, side.case) for side in sides]


def _ids(side: Side) -> str:
    name = safe_text(side.views[0].timeline.path.name)
    return name + (f" +{len(side.views) - 1}" if len(side.views) > 1 else "")


def _label(path: Path) -> str:
    return safe_text(read_notes(path).name, 40) or safe_text(path.name)


def _resolve(folder: Path, reference: str) -> tuple[list[Path], str]:
    head, colon, case = reference.rpartition(":")
    if colon and "/" not in case and not (folder / reference).exists() and not Path(reference).exists():
        reference = head
    else:
        case = ""
    if reference == PINNED:
        found = pinned(folder)
        if not found:
            raise SessionError("no session is pinned as the baseline: `llava-tui pin SESSION` does it")
        return found, case
    parts = [part for part in reference.split(",") if part] if not Path(reference).exists() else [reference]
    paths = [store.find(folder, part) for part in parts or [reference]]
    return list(dict.fromkeys(paths)), case


def pinned(folder: Path) -> list[Path]:
    """The sessions that are pinned as the baseline, oldest first."""
    return sorted(session.path for session in store.list_sessions(folder) if session.notes.baseline)


def pin(folder: Path, paths: Sequence[Path]) -> None:
    """Makes these sessions, and no others of ``folder``, the baseline. Raises :class:`SessionError`."""
    from msgspec.structs import replace

    for path in paths:
        read_header(path)  # what cannot be read is no baseline
    for path in {*pinned(folder), *paths}:
        notes = read_notes(path)
        if notes.baseline != (path in paths):
            store.set_notes(path, replace(notes, baseline=path in paths))


def stored_spread(sides: Sequence[Side]) -> dict[str, float]:
    """The A/A spread by row of the machines and models involved, the widest where they are several; empty where none
    was stored."""
    widest: dict[str, float] = {}
    for machine, model in {(machine_of(view), model_of(view)) for side in sides for view in side.views}:
        if (found := spreads.find(machine, model)) is not None:
            widest |= {key: max(value, widest.get(key, 0.0)) for key, value in found.spread.items()}
    return widest
