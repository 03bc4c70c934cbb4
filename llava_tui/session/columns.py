"""Tables of columns ordered by time, which grow at their end and are looked at through prefixes.

Column kinds: ``i`` int64; ``f`` float64 with NaN for "not known"; ``c`` a category, as int32 codes into the column's
own vocabulary of safe texts; ``o`` Python objects.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_tui.session.reader import safe_text

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_DTYPES: dict[str, Any] = {"i": np.int64, "f": np.float64, "c": np.int32, "o": np.object_}
_SOURCE = "\0source"  # which stream a row came from: settles the order of equal times
_FIRST_CAPACITY = 64


@dataclass(frozen=True)
class Repeated:
    """A column's values, the first of ``values`` ``times[0]`` times, and so on."""

    values: Sequence[Any] | Array
    times: Array

    def expanded(self) -> Array:
        return np.asarray(self.values).repeat(self.times)


@dataclass(frozen=True)
class Joined:
    """A category column's values: the texts of each list, one list after the other. Neighbours are mostly alike."""

    lists: Sequence[Sequence[str]]


Values = Sequence[Any] | Array | Repeated | Joined
Piece = Array | Repeated
"""A column's next rows, converted."""


class _Vocabulary(dict[str, int]):
    """Codes of texts, given out in the order the texts come. Texts that are alike once they are
    safe share one."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """``names`` are the first, safe already."""
        self.names = list(names)
        self._safe = {name: code for code, name in enumerate(self.names)}

    def __missing__(self, text: str) -> int:
        name = safe_text(text)
        code = self._safe.get(name)
        if code is None:
            code = self._safe[name] = len(self.names)
            self.names.append(name)
        self[text] = code
        return code


class TableView:
    """The first ``n`` rows of a table. ``view["col"]`` is a column: an array of length ``n`` that is not to be written
    to. A view never changes, whatever the table does."""

    def __init__(
        self,
        kinds: Mapping[str, str],
        columns: Mapping[str, Array],
        vocabularies: Mapping[str, _Vocabulary],
        n: int,
    ) -> None:
        self.kinds = kinds
        """Each column's kind: ``i``, ``f``, ``c`` or ``o``."""
        self.n = n
        self._columns = columns
        self._vocabularies = vocabularies

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, column: str) -> Array:
        column_ = self._columns[column][: self.n]
        column_.flags.writeable = False
        return column_

    def names(self, column: str) -> list[str]:
        """The texts that a category column's codes stand for, in the order they came up in the stream, as far as these
        rows go: ``names("case")[code]``."""
        codes = self[column]
        return self._vocabularies[column].names[: int(codes.max()) + 1 if self.n else 0]

    def code(self, column: str, name: str) -> int:
        """The code of ``name`` in a category column; −1 if it never came up."""
        return self._vocabularies[column]._safe.get(name, -1)

    def where(self, **values: Any) -> Mask:
        """Which rows have these values, as a boolean array of length ``n``: ``where(case="f4-b1-n64", kind=("cold",
        "warm-up"))``. Categories are given by their text; a tuple, list or set means any of them."""
        mask: Mask = np.ones(self.n, np.bool_)
        for column, value in values.items():
            wanted = list(value) if isinstance(value, (tuple, list, set, frozenset)) else [value]
            if self.kinds[column] == "c":
                wanted = [self.code(column, text) for text in wanted]
            mask &= self[column] == wanted[0] if len(wanted) == 1 else np.isin(self[column], wanted)
        return mask

    def row(self, index: int) -> dict[str, Any]:
        """One row as Python values: categories by their text, "not known" as ``None``. Negative counts from the end."""
        if not -self.n <= index < self.n:
            raise IndexError(f"row {index} of {self.n}")
        index %= self.n
        return {column: self._value(column, kind, index) for column, kind in self.kinds.items()}

    def rows(self, mask: Mask | None = None) -> list[dict[str, Any]]:
        """All rows, or those of ``mask``, as :meth:`row` gives them."""
        chosen = range(self.n) if mask is None else np.flatnonzero(mask).tolist()
        return [{column: self._value(column, kind, i) for column, kind in self.kinds.items()} for i in chosen]

    def _value(self, column: str, kind: str, index: int) -> Any:
        value = self._columns[column][index]
        if kind == "o":
            return value
        if kind == "c":
            return self._vocabularies[column].names[value]
        value = value.item()
        return None if isinstance(value, float) and math.isnan(value) else value

    def to_pandas(self) -> Any:
        """A copy as a pandas data frame, categories as pandas categories. Raises :class:`ImportError` without
        pandas."""
        import pandas  # type: ignore[import-untyped,unused-ignore]

        def series(column: str, kind: str) -> Any:
            if kind == "c":
                return pandas.Categorical.from_codes(self[column].copy(), self._vocabularies[column].names)
            return self[column].copy()

        return pandas.DataFrame({column: series(column, kind) for column, kind in self.kinds.items()})


class Table(TableView):
    """A table that grows. ``t``, its first column, orders it."""

    def __init__(self, columns: str) -> None:
        """``columns`` is written as "t:i run:i kind:c"."""
        super().__init__(dict(column.split(":") for column in columns.split()), {}, {}, 0)
        self._waiting: list[dict[str, Piece]] = []
        self._waiting_rows = 0
        self.clear()

    def clear(self) -> None:
        """Forgets all rows and all texts. Views that were given out keep theirs."""
        self._columns = {column: np.empty(_FIRST_CAPACITY, _DTYPES[kind]) for column, kind in self.kinds.items()}
        self._columns[_SOURCE] = np.empty(_FIRST_CAPACITY, np.int16)
        self._vocabularies = {column: _Vocabulary() for column, kind in self.kinds.items() if kind == "c"}
        self.n = 0

    def vocabulary(self, column: str) -> list[str]:
        """Every text of a category column by its code, those of no row included."""
        return self._vocabularies[column].names

    def restore(self, columns: dict[str, Array], names: Mapping[str, Iterable[str]], n: int) -> None:
        """Holds what another table held: its columns, :meth:`vocabulary` by column, and rows. Such a table takes no
        more rows before it is cleared."""
        self._columns, self.n = columns, n
        self._vocabularies = {column: _Vocabulary(texts) for column, texts in names.items()}

    def prefix(self, t: int) -> TableView:
        """The rows with ``row["t"] <= t``."""
        n = int(np.searchsorted(self._columns["t"][: self.n], t, "right"))
        return TableView(self.kinds, self._columns, self._vocabularies, n)

    def converted(self, values: Mapping[str, Values], count: int) -> dict[str, Piece]:
        """``count`` rows, given by column, as :meth:`append` takes them. Raises :class:`OverflowError` if a number does
        not fit."""
        return {column: self._convert(column, kind, values[column], count) for column, kind in self.kinds.items()}

    def append(self, added: dict[str, Piece], count: int, source: int = 0) -> None:
        """Hands in ``count`` rows of stream ``source``; they are seen after the next :meth:`settle`."""
        added[_SOURCE] = Repeated(np.array([source], np.int16), np.array([count]))
        self._waiting.append(added)
        self._waiting_rows += count

    def settle(self, order: Array) -> None:
        """Takes in the rows that wait, at their place in time. Equal times keep their stream's order; between streams
        ``order[source]`` decides."""
        if not self._waiting:
            return
        first, n = self.n, self.n + self._waiting_rows
        if first and n > len(self._columns["t"]):
            self._grow(max(n, 2 * first))
        columns: dict[str, Array] = {}
        for column, array in self._columns.items():
            columns[column] = _joined([added.pop(column) for added in self._waiting])
            if first:
                array[first:n] = columns[column]
        if not first:
            self._columns = columns
        self._waiting.clear()
        self._waiting_rows = 0
        self.n = n
        since = max(first - 1, 0)
        t, streams = self._columns["t"][since:n], order[self._columns[_SOURCE][since:n]]
        if ((t[:-1] < t[1:]) | ((t[:-1] == t[1:]) & (streams[:-1] <= streams[1:]))).all():
            return
        place = np.lexsort((order[self._columns[_SOURCE][:n]], self._columns["t"][:n]))
        # New arrays: views that were given out keep the old ones.
        self._columns = {column: array[:n][place] for column, array in self._columns.items()}

    def _grow(self, capacity: int) -> None:
        grown = {}
        for column, array in self._columns.items():
            grown[column] = np.empty(capacity, array.dtype)
            grown[column][: self.n] = array[: self.n]
        self._columns = grown

    def _convert(self, column: str, kind: str, values: Values, count: int) -> Piece:
        if isinstance(values, Repeated):
            return Repeated(self._array(column, kind, values.values, len(values.times)), values.times)
        return self._array(column, kind, values, count)

    def _array(self, column: str, kind: str, values: Sequence[Any] | Array | Joined, count: int) -> Array:
        if isinstance(values, Joined):
            return self._codes(column, values.lists)
        if isinstance(values, np.ndarray):
            return values
        if kind == "i":
            return integers(values)
        if kind == "f":
            return _floats(values)
        if kind == "c":
            if values and values.count(values[0]) == count:  # as mostly, and several times faster
                return np.full(count, self._vocabularies[column][values[0]], _DTYPES[kind])
            values = [*map(self._vocabularies[column].__getitem__, values)]
        return np.fromiter(values, _DTYPES[kind], count)

    def _codes(self, column: str, lists: Sequence[Sequence[str]]) -> Array:
        found: list[Array] = []
        last: Sequence[str] | None = None
        for texts in lists:
            if texts != last:
                last, codes = texts, self._array(column, "c", texts, len(texts))
            found.append(codes)
        return np.concatenate(found)


def _joined(pieces: list[Piece]) -> Array:
    """One after the other. What repeats is spread out here, at once: until then it takes little room."""
    repeated = [piece for piece in pieces if isinstance(piece, Repeated)]
    if len(repeated) == len(pieces):
        values = np.concatenate([piece.values for piece in repeated])
        return values.repeat(np.concatenate([piece.times for piece in repeated]))
    return np.concatenate([piece.expanded() if isinstance(piece, Repeated) else piece for piece in pieces])


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
