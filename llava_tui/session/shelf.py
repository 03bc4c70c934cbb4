"""Long sessions that have ended, kept as columns once they were read: opened again, they are there at once.

The shelf is a folder in the user's cache, a file a session; a session's own folder is only ever read. What is kept is
what :meth:`Timeline.open` gave without hints. It counts only while the session's streams are those that it was made
of, which their names, sizes, inodes, times of change and both ends say, and while it is whole, which a checksum says:
a stale or damaged file is never shown, and replaced. Deleting the shelf loses time and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from llava_tui import __version__, events
from llava_tui.session import store
from llava_tui.session.packing import Contents, pack, unpack
from llava_tui.session.reader import stream_paths
from llava_tui.session.rows import COLUMNS
from llava_tui.session.timeline import Reading, Timeline

SWITCH = "LLAVA_TUI_SHELF"
"""``0`` leaves the shelf alone: nothing is taken from it, nothing is put there."""
WORTH = 8 << 20
"""Bytes of streams from which on a session is kept: a shorter one is read in less than 0.1 s."""
MOST = 1 << 30
"""Bytes that the shelf may take; the sessions that were not opened for longest give way."""
SETTLED_NS = 1_000_000_000
"""A stream that changed more recently is not kept: the next change might not show in its time."""
_ABANDONED_S = 3600.0
_ENDS = 64 << 10
_MAGIC = b"llava-tui shelf v01\n"
_HEAD = struct.Struct("<QI")
"""After the magic: bytes of the manifest; the checksum of all that follows. 32 bytes in all: arrays stay aligned."""


class _Stream(msgspec.Struct, frozen=True, gc=False):
    """What tells one state of a stream from another."""

    name: str
    size: int
    inode: int
    changed_ns: int
    ends: bytes


class _Manifest(msgspec.Struct, frozen=True, gc=False):
    version: str
    layout: dict[str, str]
    """The tables' columns when it was written."""
    streams: list[_Stream]
    reading: Reading
    tables: dict[str, Contents]


def read(path: Path) -> Timeline:
    """The session in folder ``path`` without its hints: from the shelf where it is there, else from its streams.

    The same as ``Timeline.open(path, hints=False)``, and raises what that does. Nobody need be able to write the shelf.
    """
    streams = _streams(path)
    if not _is_worth(streams, WORTH):
        return Timeline.open(path, hints=False)
    file = _file(path)
    timeline = _taken(path, file, streams)
    if timeline is None:
        timeline = Timeline.open(path, hints=False)
        if _is_settled(streams) and timeline.now().state in events.FINAL_STATES and _streams(path) == streams:
            _keep(timeline, file, streams)
    return timeline


def is_new(path: Path, worth: int) -> bool:
    """Whether :func:`read` would read streams of ``worth`` bytes or more, and keep what is in them."""
    streams = _streams(path)
    if not _is_worth(streams, worth) or not _is_settled(streams) or store.status(path) in (*store.LIVE, "interrupted"):
        return False
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return not _file(path).exists() and os.access(folder(), os.W_OK)


def _is_worth(streams: list[_Stream], worth: int) -> bool:
    return os.environ.get(SWITCH) != "0" and bool(streams) and sum(stream.size for stream in streams) >= worth


def _is_settled(streams: list[_Stream]) -> bool:
    return time.time_ns() - max(stream.changed_ns for stream in streams) > SETTLED_NS


def forget(path: Path) -> None:
    """Takes the session in folder ``path`` off the shelf, as where it is deleted. Never raises."""
    with suppress(OSError):
        _file(path).unlink(missing_ok=True)


def folder() -> Path:
    """Where the shelf is: in $LLAVA_TUI_CACHE, else in the user's cache folder."""
    if chosen := os.environ.get("LLAVA_TUI_CACHE"):
        return Path(chosen).expanduser().absolute() / "shelf"
    import platformdirs

    return platformdirs.user_cache_path("llava-tui", appauthor=False) / "shelf"


def _file(path: Path) -> Path:
    return folder() / hashlib.blake2b(os.fsencode(path.resolve()), digest_size=16).hexdigest()


def _streams(path: Path) -> list[_Stream]:
    """The streams as they are; none where one cannot be read."""
    found = []
    try:
        for stream in stream_paths(path):
            with open(stream, "rb", buffering=0) as file:
                told = os.fstat(file.fileno())
                ends = file.read(_ENDS) + os.pread(file.fileno(), _ENDS, max(told.st_size - _ENDS, 0))
            digest = hashlib.blake2b(ends, digest_size=16).digest()
            found.append(_Stream(stream.name, told.st_size, told.st_ino, told.st_ctime_ns, digest))
    except OSError:
        return []
    return found


# --- from the shelf ---------------------------------------------------------------------------------------------------


def _taken(path: Path, file: Path, streams: list[_Stream]) -> Timeline | None:
    try:
        data = file.read_bytes()
        size, checksum = _HEAD.unpack_from(data, len(_MAGIC))
        begin = len(_MAGIC) + _HEAD.size
        if not data.startswith(_MAGIC) or zlib.crc32(memoryview(data)[begin:]) != checksum:
            return None
        manifest = msgspec.msgpack.decode(memoryview(data)[begin : begin + size], type=_Manifest)
    except (OSError, struct.error, msgspec.MsgspecError):
        return None
    if (manifest.version, manifest.layout, manifest.streams) != (__version__, COLUMNS, streams):
        return None
    with suppress(OSError):
        os.utime(file)  # opened now: others give way first
    rest = memoryview(data)[begin + size + -size % 8 :]
    timeline = Timeline(path, hints=False)
    for name, contents in manifest.tables.items():
        unpack(timeline.tables[name], contents, rest, manifest.reading.end)
    timeline.restore(manifest.reading)
    return timeline


# --- onto the shelf ---------------------------------------------------------------------------------------------------


def _keep(timeline: Timeline, file: Path, streams: list[_Stream]) -> None:
    """Puts a timeline on the shelf. Where that cannot be done nothing is kept: it would only have saved time."""
    parts: list[bytes] = []
    try:
        tables = {name: pack(table, parts) for name, table in timeline.tables.items()}
    except (ValueError, OverflowError, RecursionError):
        return
    manifest = msgspec.msgpack.encode(_Manifest(__version__, COLUMNS, streams, timeline.reading, tables))
    parts = [manifest, bytes(-len(manifest) % 8), *parts]
    size = len(_MAGIC) + _HEAD.size + sum(map(len, parts))
    if size > MOST:
        return
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(file.parent, size)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            out.writelines([_MAGIC, _HEAD.pack(len(manifest), checksum), *parts])
        temporary.replace(file)  # two that write at once each write all of it: the last one stays
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _make_room(shelf: Path, size: int) -> None:
    """Takes what was not opened for longest off the shelf until ``size`` bytes fit, and what a killed writer left."""
    found = [(path, path.stat()) for path in shelf.iterdir()]
    room = MOST - size
    for path, told in sorted(found, key=lambda one: -one[1].st_mtime_ns):
        abandoned = path.name.startswith(".") and time.time() - told.st_mtime > _ABANDONED_S
        room -= told.st_size
        if room < 0 or abandoned:
            path.unlink(missing_ok=True)
