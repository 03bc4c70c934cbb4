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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from llava_tui import __version__, events
from llava_tui.session.columns import Table
from llava_tui.session.pieces import Array, Later, Packed, Repeated, without_collector
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
_MAGIC = b"llava-tui shelf 1\n"
_HEAD = struct.Struct("<QI")
"""After the magic: bytes of the manifest; the checksum of all that follows."""


class _Stream(msgspec.Struct, frozen=True, gc=False):
    """What tells one state of a stream from another."""

    name: str
    size: int
    inode: int
    changed_ns: int
    ends: bytes


class _Part(msgspec.Struct, frozen=True, gc=False):
    """Bytes after the manifest: an array of that type, or without one objects as MessagePack."""

    start: int
    size: int
    dtype: str


class _Column(msgspec.Struct, frozen=True, gc=False):
    """An array of ``dtype`` out of ``values``, each of them ``counts`` times in a row. Of objects: ``values`` is a list
    of them, or as many blobs as ``counts`` has numbers, of ``sizes`` bytes each."""

    dtype: str
    values: _Part
    counts: _Part | None = None
    sizes: _Part | None = None


class _Table(msgspec.Struct, frozen=True, gc=False):
    n: int
    columns: dict[str, _Column]
    names: dict[str, list[str]]


class _Manifest(msgspec.Struct, frozen=True, gc=False):
    version: str
    layout: dict[str, str]
    """The tables' columns when it was written."""
    streams: list[_Stream]
    reading: Reading
    tables: dict[str, _Table]


def read(path: Path) -> Timeline:
    """The session in folder ``path`` without its hints: from the shelf where it is there, else from its streams.

    The same as ``Timeline.open(path, hints=False)``, and raises what that does. Nobody need be able to write the shelf.
    """
    streams = [] if os.environ.get(SWITCH) == "0" else _streams(path)
    if not streams or sum(stream.size for stream in streams) < WORTH:
        return Timeline.open(path, hints=False)
    file = _file(path)
    timeline = _taken(path, file, streams)
    if timeline is None:
        timeline = Timeline.open(path, hints=False)
        settled = time.time_ns() - max(stream.changed_ns for stream in streams) > SETTLED_NS
        if settled and timeline.now().state in events.FINAL_STATES and _streams(path) == streams:
            _keep(timeline, file, streams)
    return timeline


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
    rest = memoryview(data)[begin + size :]
    timeline = Timeline(path, hints=False)
    for name, kept in manifest.tables.items():
        columns = {column: _later(column, told, rest) for column, told in kept.columns.items()}
        timeline.tables[name].restore(columns, kept.names, kept.n, manifest.reading.end)
    timeline.restore(manifest.reading)
    return timeline


def _later(column: str, kept: _Column, data: memoryview) -> Later:
    if kept.counts is None or kept.sizes is None:
        return _Kept(column, kept, data)
    ends = np.cumsum(_array(kept.sizes, data)).tolist()
    values = _bytes(kept.values, data)
    return Packed(
        [values[start:end] for start, end in zip([0, *ends], ends, strict=False)], _array(kept.counts, data).tolist()
    )


@dataclass(frozen=True)
class _Kept:
    """A column in the file: a statistic needs few of them."""

    name: str
    kept: _Column
    data: memoryview

    def array(self) -> Array:
        values = self.kept.values
        if not values.dtype:
            type_ = _OBJECTS.get(self.name, list[Any])
            with without_collector():
                objects = msgspec.msgpack.decode(_bytes(values, self.data), type=type_)
            return np.fromiter(objects, np.object_, len(objects))
        array = _array(values, self.data).astype(self.kept.dtype, copy=False)
        return array if self.kept.counts is None else array.repeat(_array(self.kept.counts, self.data))


_OBJECTS: dict[str, Any] = {"event": list[events.AnyEvent], "processes": list[list[events.GpuProcess]]}
"""Columns of objects that are more than plain JSON values."""


def _bytes(part: _Part, data: memoryview) -> memoryview:
    return data[part.start : part.start + part.size]


def _array(part: _Part, data: memoryview) -> Array:
    return np.frombuffer(_bytes(part, data), part.dtype)


# --- onto the shelf ---------------------------------------------------------------------------------------------------


def _keep(timeline: Timeline, file: Path, streams: list[_Stream]) -> None:
    """Puts a timeline on the shelf. Where that cannot be done nothing is kept: it would only have saved time."""
    parts: list[bytes] = []
    try:
        tables = {name: _packed(table, parts) for name, table in timeline.tables.items()}
    except (ValueError, OverflowError, RecursionError):  # JSON that MessagePack does not take: integers beyond 64 bits
        return
    manifest = msgspec.msgpack.encode(_Manifest(__version__, COLUMNS, streams, timeline.reading, tables))
    size = len(_MAGIC) + _HEAD.size + len(manifest) + sum(map(len, parts))
    if size > MOST:
        return
    checksum = zlib.crc32(manifest)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(file.parent, size)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            out.writelines([_MAGIC, _HEAD.pack(len(manifest), checksum), manifest, *parts])
        temporary.replace(file)  # two that write at once each write all of it: the last one stays
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _packed(table: Table, parts: list[bytes]) -> _Table:
    def add(data: bytes, dtype: str = "") -> _Part:
        start = sum(map(len, parts))
        parts.append(data + bytes(-len(data) % 8))  # aligned: arrays are used where they lie
        return _Part(start, len(data), dtype)

    def add_integers(values: Array) -> _Part:
        narrow = _narrowed(values)
        return add(narrow.tobytes(), narrow.dtype.str)

    def add_column(column: str, kind: str) -> _Column:
        piece = table.compact(column)
        if kind == "p":
            packed = piece if isinstance(piece, Packed) else Packed.of(table[column].tolist())
            sizes = np.array([len(blob) for blob in packed.blobs], np.int64)
            counts = add_integers(np.array(packed.counts, np.int64))
            return _Column("", add(b"".join(packed.blobs)), counts, add_integers(sizes))
        if kind == "o":
            return _Column("", add(msgspec.msgpack.encode(table[column].tolist())))
        values = np.asarray(piece.values if isinstance(piece, Repeated) else piece)
        part = add(values.tobytes(), values.dtype.str) if kind == "f" else add_integers(values)
        return _Column(values.dtype.str, part, add_integers(piece.times) if isinstance(piece, Repeated) else None)

    names = {column: table.vocabulary(column) for column, kind in table.kinds.items() if kind == "c"}
    return _Table(table.n, {column: add_column(column, kind) for column, kind in table.kinds.items()}, names)


def _narrowed(array: Array) -> Array:
    """Integers in as few bytes as hold them all."""
    if array.size:
        low, high = array.min(), array.max()
        for dtype in (np.int8, np.int16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
    return array


def _make_room(shelf: Path, size: int) -> None:
    """Takes what was not opened for longest off the shelf until ``size`` bytes fit, and what a killed writer left."""
    found = [(path, path.stat()) for path in shelf.iterdir()]
    room = MOST - size
    for path, told in sorted(found, key=lambda one: -one[1].st_mtime_ns):
        abandoned = path.name.startswith(".") and time.time() - told.st_mtime > _ABANDONED_S
        room -= told.st_size
        if room < 0 or abandoned:
            path.unlink(missing_ok=True)
