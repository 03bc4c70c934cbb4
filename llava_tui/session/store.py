"""A folder of sessions: make one, find one, say how each is doing, note something about it, delete it."""

from __future__ import annotations

import datetime
import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llava_tui import events
from llava_tui.session.finding import find as find
from llava_tui.session.finding import sessions_folder as sessions_folder
from llava_tui.session.reader import (
    EVENTS,
    HEADER,
    NOTES,
    TELEMETRY,
    SessionError,
    is_there,
    read_header,
    read_notes,
    safe_text,
    stream_paths,
)
from llava_tui.session.writer import LOCK, RESERVE, is_locked, lock, set_aside, write_atomically

Status = Literal["running", "paused", "finished", "stopped", "failed", "interrupted"]
LIVE: tuple[Status, ...] = ("running", "paused")
_CLOSED: dict[str, Status] = {"closed": "finished", "stopped": "stopped", "failed": "failed"}
_TAIL = 128 << 10
"""Bytes at a stream's end, or its beginning, that are looked at first."""
_FAR = 8 << 20
"""Bytes at its end that are searched for what is not in the tail."""


# --- a new session ---------------------------------------------------------------------------------------------------


def create(folder: Path, slug: str, now: datetime.datetime | None = None) -> Path:
    """A new, empty session folder (mode 0700) within ``folder``, which is made where it is missing.

    Its name is the session's id: ``<local time>-<slug>``, with a number behind where that is taken. Raises
    :class:`SessionError` where nothing can be written or less than the reserve is free; nothing is left behind then.
    """
    now = now or datetime.datetime.now()
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", slug).strip("-._")[:48] or "session"
    id_ = f"{now:%Y%m%d-%H%M%S}-{slug}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _make_unique(folder, id_)
        try:
            set_aside(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    except OSError as error:
        name = safe_text(str(folder))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SessionError(
                f"the disk of {name} is full: free some space, or give another folder (--sessions DIR)"
            ) from None
        raise SessionError(
            f"cannot create a session in {name}: {error.strerror}; give another folder (--sessions DIR)"
        ) from None
    return path


def _make_unique(folder: Path, id_: str) -> Path:
    number = 1
    while True:
        path = folder / (id_ if number == 1 else f"{id_}-{number}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return path


# --- how a session is doing -------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, gc=False):
    """As much of any event as is asked for here."""

    type: str = ""
    t: int = 0
    state: str = ""
    reason: str = ""
    run: int = 0
    runs: int = 0


_LINE = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class SessionInfo:
    """A session in a list. Its text is safe to draw, but for the header's ``plan`` and ``argv``."""

    id: str
    path: Path
    header: events.Header | None
    """``None`` where it could not be read: ``problem`` says why."""
    notes: events.Notes
    status: Status
    duration_ns: int
    """From the header's ``t0`` to the newest event."""
    runs_done: int
    """Runs that ended, after loading."""
    runs_planned: int
    """0: not known."""
    reason: str
    """The last state's."""
    problem: str = ""


def status(path: Path, held: bool | None = None) -> Status:
    """How the session in folder ``path`` is doing: from its lock, held by a living worker alone, and its last state.
    ``held`` is given for a copy of a session, whose lock is elsewhere."""
    # The lock first: a worker says its last word before it lets go.
    held = is_locked(path) if held is None else held
    return _status(held, _last(_whole_lines(_main_stream(path), -_TAIL), "state"))


def _status(held: bool, last: _Line | None) -> Status:
    state = last.state if last is not None else ""
    if held:
        return "paused" if state == "paused" else "running"
    return _CLOSED.get(state, "interrupted")


def info(path: Path) -> SessionInfo:
    """What a list shows of the session in folder ``path``, from its header and the ends of its streams: milliseconds
    however long it is. Never raises for a damaged session: ``problem`` is set instead."""
    held = is_locked(path)
    stream = _main_stream(path)
    tail = _whole_lines(stream, -_TAIL)
    state = _last(tail, "state")
    problem, header = "", None
    try:
        header = read_header(path)
    except SessionError as error:
        problem = str(error)
    telemetry = (_whole_lines(other, -4096) for other in stream_paths(path, TELEMETRY))
    newest = max(_newest(data) for data in (tail, *telemetry))
    end, schedule = (_last(tail, type_) or _far(stream, type_) for type_ in ("end", "schedule"))
    done = end.run if end is not None else 0
    return SessionInfo(
        id=safe_text(path.name),
        path=path,
        header=header,
        notes=read_notes(path),
        status=_status(held, state),
        duration_ns=max(newest - header.t0, 0) if header is not None else 0,
        runs_done=done,
        runs_planned=schedule.runs if schedule is not None else 0,
        reason=safe_text(state.reason) if state is not None else "",
        problem=problem,
    )


def list_sessions(folder: Path) -> list[SessionInfo]:
    """Every session in ``folder``, live ones first, then the newest first; damaged ones last, with their problem. A
    folder that does not exist has none."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SessionError(f"cannot read {safe_text(str(folder))}: {error.strerror}") from None
    found = [info(path) for path in entries if is_session(path)]
    return sorted(found, key=place, reverse=True)


def place(one: SessionInfo) -> tuple[bool, int, str]:
    """By which sessions are listed, from the greatest: live ones first, then the newest; damaged ones last."""
    return one.status in LIVE, one.header.wall0 if one.header is not None else -1, one.id


def is_session(path: Path) -> bool:
    """Whether the folder was made by us; other folders beside the sessions are nobody's business. Another user's
    session is known by its name alone."""
    if any(is_there(path / name) for name in (HEADER, LOCK, RESERVE)):
        return True
    return not os.access(path, os.R_OK | os.X_OK) and re.match(r"\d{8}-\d{6}-", path.name) is not None


def _main_stream(path: Path) -> Path:
    """The stream that tells the session's states: the first rank's."""
    return next(iter(stream_paths(path, EVENTS)), path / f"{EVENTS}.jsonl")


def _whole_lines(stream: Path, size: int) -> bytes:
    """Whole lines out of the first ``size`` bytes, or out of the last where it is negative."""
    try:
        with open(stream, "rb", buffering=0) as file:
            start = max(os.fstat(file.fileno()).st_size + size, 0) if size < 0 else 0
            file.seek(start)
            data = file.read(abs(size))
    except OSError:
        return b""
    return data[data.find(b"\n") + 1 if start else 0 : data.rfind(b"\n") + 1]


def _last(lines: bytes, type_: str) -> _Line | None:
    """The last event of a type. Searched as bytes: only lines that may be it are decoded."""
    mark = f'"{type_}"'.encode()
    at = len(lines)
    while (at := lines.rfind(mark, 0, at)) >= 0:
        start = lines.rfind(b"\n", 0, at) + 1
        line = _decoded(lines[start : lines.find(b"\n", at)])
        if line is not None and line.type == type_:
            return line
        at = start
    return None


def _far(stream: Path, type_: str) -> _Line | None:
    """The last event of a type that is not in the tail: further back, else near the beginning."""
    return _last(_whole_lines(stream, -_FAR), type_) or _last(_whole_lines(stream, _TAIL), type_)


def _newest(lines: bytes) -> int:
    """The ``t`` of the last line that can be read, 0 without one."""
    for line in reversed(lines.rsplit(b"\n", 20)):
        if (found := _decoded(line)) is not None:
            return found.t
    return 0


def _decoded(line: bytes) -> _Line | None:
    try:
        return _LINE.decode(line)
    except (ValueError, RecursionError):
        return None


# --- what people do to a session --------------------------------------------------------------------------------------


def set_notes(path: Path, notes: events.Notes) -> None:
    """Replaces what people said of the session in folder ``path``. Raises :class:`SessionError`."""
    try:
        write_atomically(path / NOTES, notes)
    except OSError as error:
        raise SessionError(f"cannot note anything in {safe_text(str(path))}: {error.strerror}") from None


def delete(path: Path) -> None:
    """Removes the session in folder ``path`` and all that is in it. Raises :class:`SessionError` where it is running,
    is no session, or cannot be removed."""
    name = safe_text(path.name)
    if path.is_symlink() or not is_session(path):
        raise SessionError(f"{safe_text(str(path))} is not a session: not deleted")
    if is_locked(path):
        raise SessionError(f"{name} is running: stop it first (`llava-tui control {name} stop`)")
    held = lock(path, patience=0.1)  # nobody starts to record into what is going away
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise SessionError(f"cannot delete {safe_text(str(path))}: {error.strerror}") from None
    finally:
        held.release()
    from llava_tui.session import shelf  # here: a list of sessions does without its columns

    shelf.forget(path)
