"""What tables are made of: values on their way into columns, and columns that are made when they are asked for.

Column kinds: ``i`` int64; ``f`` float64 with NaN for "not known"; ``c`` a category, as int32 codes into the column's
own vocabulary of safe texts; ``o`` Python objects; ``p`` Python objects as JSON has them, packed until one is wanted.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from llava_tui.session.reader import safe_text

Array = npt.NDArray[Any]
DTYPES: dict[str, Any] = {"i": np.int64, "f": np.float64, "c": np.int32, "o": np.object_, "p": np.object_}


@contextmanager
def without_collector() -> Iterator[None]:
    """Decoding makes many objects and no cycles: collecting garbage meanwhile only costs time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                # Among the oldest at once, where they belong; else each generation would be gone through first.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


# --- pieces -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repeated:
    """A column's values, the first of ``values`` ``times[0]`` times, and so on: what all stages of a run share takes
    little room until it is asked for."""

    values: Sequence[Any] | Array
    times: Array

    def array(self) -> Array:
        return np.asarray(self.values).repeat(self.times)


@dataclass(frozen=True)
class Joined:
    """A category column's values: the texts of each list, one list after the other. Neighbours are mostly alike."""

    lists: Sequence[Sequence[str]]


FEW = 1_000
"""Packed objects for which keeping the garbage collector away costs more than it."""


class Packed:
    """Objects of a ``p`` column, some of them to a blob of MessagePack. Most are never asked for; as lists and
    dictionaries they take several times the room, and the garbage collector goes through them all."""

    def __init__(self, blobs: Sequence[bytes | memoryview], counts: Sequence[int]) -> None:
        """``counts``: how many objects each blob has."""
        self.blobs = blobs
        self.counts = counts
        self._ends = np.cumsum(counts)
        self._last: tuple[int, list[Any]] = (-1, [])

    @classmethod
    def of(cls, values: Sequence[Any] | Array) -> Packed:
        """Raises :class:`OverflowError` for integers beyond 64 bits, :class:`ValueError` for text that is none."""
        return cls([msgspec.msgpack.encode(values)], [len(values)])

    def array(self) -> Array:
        if sum(self.counts) < FEW:
            return self._unpacked()
        with without_collector():
            return self._unpacked()

    def _unpacked(self) -> Array:
        values = [value for blob in self.blobs for value in msgspec.msgpack.decode(blob)]
        return np.fromiter(values, np.object_, len(values))

    def value(self, index: int) -> Any:
        """One of them: only its blob is unpacked."""
        place = int(np.searchsorted(self._ends, index, "right"))
        last = self._last
        if last[0] != place:
            last = self._last = place, msgspec.msgpack.decode(self.blobs[place])
        return last[1][index - int(self._ends[place])]


Values = Sequence[Any] | Array | Repeated | Joined
Piece = Array | Repeated | Packed
"""A column's next rows, converted."""


def joined(pieces: Sequence[Piece]) -> Piece:
    """One after the other."""
    repeated = [piece for piece in pieces if isinstance(piece, Repeated)]
    if len(repeated) == len(pieces):
        values = np.concatenate([piece.values for piece in repeated])
        return Repeated(values, np.concatenate([piece.times for piece in repeated]))
    packed = [piece for piece in pieces if isinstance(piece, Packed)]
    if len(packed) == len(pieces):
        blobs = [blob for piece in packed for blob in piece.blobs]
        return Packed(blobs, [count for piece in packed for count in piece.counts])
    return np.concatenate([piece if isinstance(piece, np.ndarray) else piece.array() for piece in pieces])


# --- columns ----------------------------------------------------------------------------------------------------------


class Later(Protocol):
    """A column that is not there yet."""

    def array(self) -> Array:
        """All of it."""


class Columns(dict[str, Array]):
    """Columns by name. Some are made when they are first asked for, if they are: ``later``."""

    def __init__(self, arrays: Mapping[str, Array], later: Mapping[str, Later] | None = None) -> None:
        super().__init__(arrays)
        self.later = dict(later or {})

    def __missing__(self, column: str) -> Array:
        array = self[column] = self.later[column].array()
        return array

    def value(self, column: str, index: int) -> Any:
        """``self[column][index]``; of packed objects no more are unpacked than need be."""
        later = self.later.get(column)
        return later.value(index) if isinstance(later, Packed) and column not in self else self[column][index]


class Vocabulary(dict[str, int]):
    """Codes of texts, given out in the order the texts come. Texts that are alike once they are safe share one."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """``names`` are the first, safe already."""
        self.names = list(names)
        self.safe = {name: code for code, name in enumerate(self.names)}

    def __missing__(self, text: str) -> int:
        name = safe_text(text)
        code = self.safe.get(name)
        if code is None:
            code = self.safe[name] = len(self.names)
            self.names.append(name)
        self[text] = code
        return code


# --- conversions ------------------------------------------------------------------------------------------------------


def converted(kind: str, values: Values, count: int, vocabulary: Vocabulary) -> Piece:
    """``count`` values of a column of that kind; ``vocabulary`` is a category column's. Raises :class:`OverflowError`
    if a number does not fit."""
    if isinstance(values, Joined):
        return _codes(values.lists, vocabulary)
    if isinstance(values, Repeated):
        return Repeated(_array(kind, values.values, len(values.times), vocabulary), values.times)
    if kind == "p":
        try:
            return Packed.of(values)
        except (OverflowError, ValueError):
            return np.fromiter(values, np.object_, count)
    return _array(kind, values, count, vocabulary)


def _array(kind: str, values: Sequence[Any] | Array, count: int, vocabulary: Vocabulary) -> Array:
    if isinstance(values, np.ndarray):
        return values
    if kind == "i":
        return integers(values)
    if kind == "f":
        return _floats(values)
    if kind == "c":
        if values and values.count(values[0]) == count:  # as mostly, and several times faster
            return np.full(count, vocabulary[values[0]], np.int32)
        values = [*map(vocabulary.__getitem__, values)]
    return np.fromiter(values, DTYPES[kind], count)


def _codes(lists: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Array:
    found: list[Array] = []
    last: Sequence[str] | None = None
    for texts in lists:
        if texts != last:
            last, codes = texts, _array("c", texts, len(texts), vocabulary)
        found.append(codes)
    return np.concatenate(found)


def integers(values: Sequence[int]) -> Array:
    """``values`` as int64. Raises :class:`OverflowError` if one does not fit, :class:`TypeError` if one is ``None``."""
    try:
        return np.frombuffer(struct.pack(f"{len(values)}q", *values), np.int64)  # a third of what fromiter takes
    except struct.error:
        return np.fromiter(values, np.int64, len(values))


def _floats(values: Sequence[Any]) -> Array:
    """``values`` (all int or all float, as a struct's field is, or ``None``) as float64, ``None`` as NaN."""
    first = next((value for value in values if value is not None), None)
    if first is None:
        return np.full(len(values), np.nan)
    try:
        # Much faster than from ints to float64 at once.
        if type(first) is int:
            return integers(values).astype(np.float64)
        return np.fromiter(values, np.float64, len(values))
    except TypeError:
        return np.fromiter([np.nan if value is None else value for value in values], np.float64, len(values))
