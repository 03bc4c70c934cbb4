"""A timeline's tables as bytes, and back: arrays as they are, repeated values once, objects as MessagePack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from llava_tui import events
from llava_tui.session.columns import Table
from llava_tui.session.pieces import Array, Later, Packed, Repeated, without_collector


class Part(msgspec.Struct, frozen=True, gc=False):
    """Some of the bytes: an array of that type, or without one objects as MessagePack."""

    start: int
    size: int
    dtype: str


class Column(msgspec.Struct, frozen=True, gc=False):
    """An array of ``dtype`` out of ``values``, each of them ``counts`` times in a row. Of objects: ``values`` is a list
    of them, or as many blobs as ``counts`` has numbers, of ``sizes`` bytes each."""

    dtype: str
    values: Part
    counts: Part | None = None
    sizes: Part | None = None


class Contents(msgspec.Struct, frozen=True, gc=False):
    """What a table holds, but for the bytes."""

    n: int
    columns: dict[str, Column]
    names: dict[str, list[str]]
    """The texts of each category column by their codes."""


# --- to bytes ---------------------------------------------------------------------------------------------------------


def pack(table: Table, parts: list[bytes]) -> Contents:
    """Adds the table's bytes to ``parts``, which together are what :func:`unpack` takes. Raises :class:`ValueError` or
    :class:`OverflowError` for JSON that MessagePack does not hold: integers beyond 64 bits."""
    start = sum(map(len, parts))

    def add(data: bytes, dtype: str = "") -> Part:
        nonlocal start
        part = Part(start, len(data), dtype)
        parts.append(data + bytes(-len(data) % 8))  # aligned: arrays are used where they lie
        start += len(parts[-1])
        return part

    def add_integers(values: Array) -> Part:
        narrow = _narrowed(values)
        return add(narrow.tobytes(), narrow.dtype.str)

    def add_column(column: str, kind: str) -> Column:
        piece = table.compact(column)
        if kind == "p":
            packed = piece if isinstance(piece, Packed) else Packed.of(table[column].tolist())
            sizes = np.array([len(blob) for blob in packed.blobs], np.int64)
            counts = add_integers(np.array(packed.counts, np.int64))
            return Column("", add(b"".join(packed.blobs)), counts, add_integers(sizes))
        if kind == "o":
            return Column("", add(msgspec.msgpack.encode(table[column].tolist())))
        values = np.asarray(piece.values if isinstance(piece, Repeated) else piece)
        part = add(values.tobytes(), values.dtype.str) if kind == "f" else add_integers(values)
        return Column(values.dtype.str, part, add_integers(piece.times) if isinstance(piece, Repeated) else None)

    names = {column: table.vocabulary(column) for column, kind in table.kinds.items() if kind == "c"}
    return Contents(table.n, {column: add_column(column, kind) for column, kind in table.kinds.items()}, names)


def _narrowed(array: Array) -> Array:
    """Integers in as few bytes as hold them all."""
    if array.size:
        low, high = array.min(), array.max()
        for dtype in (np.int8, np.int16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
    return array


# --- from bytes -------------------------------------------------------------------------------------------------------


def unpack(table: Table, contents: Contents, data: memoryview, newest: int | None) -> None:
    """The other way round; ``newest`` as for :meth:`~llava_tui.session.columns.Table.restore`. Columns are made of
    ``data``, which is not to change, when they are asked for."""
    columns: Mapping[str, Later] = {name: _later(name, column, data) for name, column in contents.columns.items()}
    table.restore(columns, contents.names, contents.n, newest)


def _later(column: str, kept: Column, data: memoryview) -> Later:
    if kept.counts is None or kept.sizes is None:
        return _Kept(column, kept, data)
    ends = np.cumsum(_array(kept.sizes, data)).tolist()
    values = _bytes(kept.values, data)
    return Packed(
        [values[start:end] for start, end in zip([0, *ends], ends, strict=False)], _array(kept.counts, data).tolist()
    )


@dataclass(frozen=True)
class _Kept:
    """A column that is still bytes: a statistic needs few of them."""

    name: str
    kept: Column
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


def _bytes(part: Part, data: memoryview) -> memoryview:
    return data[part.start : part.start + part.size]


def _array(part: Part, data: memoryview) -> Array:
    return np.frombuffer(_bytes(part, data), part.dtype)
