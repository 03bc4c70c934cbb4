"""Tables of columns ordered by time, which grow at their end and are looked at through prefixes.

The kinds of columns are told in ``pieces.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_tui.session.pieces import DTYPES, Array, Columns, Later, Packed, Piece, Repeated, Values, Vocabulary, joined
from llava_tui.session.pieces import converted as converted_column

Mask = npt.NDArray[np.bool_]

_SOURCE = "\0source"  # which stream a row came from: settles the order of equal times
_FIRST_CAPACITY = 64
_NONE = Vocabulary()
"""Of columns that are no categories."""


class TableView:
    """The first ``n`` rows of a table. ``view["col"]`` is a column: an array of length ``n`` that is not to be written
    to. A view never changes, whatever the table does."""

    def __init__(
        self,
        kinds: Mapping[str, str],
        columns: Columns,
        vocabularies: Mapping[str, Vocabulary],
        n: int,
    ) -> None:
        self.kinds = kinds
        """Each column's kind: ``i``, ``f``, ``c``, ``o`` or ``p``."""
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
        return self._vocabularies[column].safe.get(name, -1)

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

    def value(self, column: str, index: int) -> Any:
        """One value as :meth:`row` gives it; of packed objects (``text``, ``token_ids``, ``facts`` of runs) for a
        fraction of what the whole column takes."""
        if not -self.n <= index < self.n:
            raise IndexError(f"row {index} of {self.n}")
        return self._value(column, self.kinds[column], index % self.n)

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
        value = self._columns.value(column, index)
        if kind in "op":
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
        super().__init__(dict(column.split(":") for column in columns.split()), Columns({}), {}, 0)
        self._waiting: list[dict[str, Piece]] = []
        self._waiting_rows = 0
        self.clear()

    def clear(self) -> None:
        """Forgets all rows and all texts. Views that were given out keep theirs."""
        self._columns = Columns({column: np.empty(0, DTYPES[kind]) for column, kind in self.kinds.items()})
        self._columns[_SOURCE] = np.empty(0, np.int16)
        self._newest: int | None = None
        self._vocabularies = {column: Vocabulary() for column, kind in self.kinds.items() if kind == "c"}
        self.n = 0

    def only(self, **values: Any) -> Table:
        """A table of the rows with these values, as :meth:`where` finds them, which grows by itself: it takes rows that
        this one has converted."""
        part = Table(" ".join(f"{column}:{kind}" for column, kind in self.kinds.items()))
        part._vocabularies = self._vocabularies
        if self.n:
            mask = self.where(**values)
            columns = self._columns
            names = [*self.kinds, *([_SOURCE] if _SOURCE in columns or _SOURCE in columns.later else [])]
            part._columns = Columns({column: columns[column][: self.n][mask] for column in names})
            part.n = int(np.count_nonzero(mask))
            part._newest = int(part._columns["t"][-1]) if part.n else None
        return part

    def vocabulary(self, column: str) -> list[str]:
        """Every text of a category column by its code, those of no row included."""
        return self._vocabularies[column].names

    def compact(self, column: str) -> Piece:
        """A column in the form that takes least room as far as it is at hand: repeated, packed, or as it is."""
        later = self._columns.later.get(column)
        return later if isinstance(later, (Repeated, Packed)) else self[column]

    def restore(
        self, columns: Mapping[str, Later], names: Mapping[str, Iterable[str]], n: int, newest: int | None
    ) -> None:
        """Holds what another table held: its columns, :meth:`vocabulary` by column, rows, and none later than
        ``newest``. Such a table takes no more rows before it is cleared."""
        self._columns, self.n, self._newest = Columns({}, columns), n, newest
        self._vocabularies = {column: Vocabulary(texts) for column, texts in names.items()}

    def prefix(self, t: int) -> TableView:
        """The rows with ``row["t"] <= t``."""
        whole = self._newest is not None and t >= self._newest
        n = self.n if whole else int(np.searchsorted(self._columns["t"][: self.n], t, "right"))
        return TableView(self.kinds, self._columns, self._vocabularies, n)

    def converted(self, values: Mapping[str, Values], count: int) -> dict[str, Piece]:
        """``count`` rows, given by column, as :meth:`append` takes them. Raises :class:`OverflowError` if a number does
        not fit."""
        return {
            column: converted_column(kind, values[column], count, self._vocabularies.get(column, _NONE))
            for column, kind in self.kinds.items()
        }

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
        names = [*self.kinds, _SOURCE]
        added = {column: joined([one.pop(column) for one in self._waiting]) for column in names}
        self._waiting.clear()
        self._waiting_rows = 0
        if first:
            if n > len(self._columns["t"]):
                self._grow(max(n, 2 * first, _FIRST_CAPACITY))
            for column, new in added.items():
                self._columns[column][first:n] = new if isinstance(new, np.ndarray) else new.array()
        else:
            arrays = {column: new for column, new in added.items() if isinstance(new, np.ndarray)}
            later = {column: new for column, new in added.items() if not isinstance(new, np.ndarray)}
            self._columns = Columns(arrays, later)
        self.n = n
        t = _told(added["t"])
        self._newest = int(t.max()) if self._newest is None else max(self._newest, int(t.max()))
        sources = _told(added[_SOURCE])
        if not first and (t[:-1] <= t[1:]).all() and (sources == sources[0]).all():
            return
        since = max(first - 1, 0)
        t, streams = self._columns["t"][since:n], order[self._columns[_SOURCE][since:n]]
        if ((t[:-1] < t[1:]) | ((t[:-1] == t[1:]) & (streams[:-1] <= streams[1:]))).all():
            return
        place = np.lexsort((order[self._columns[_SOURCE][:n]], self._columns["t"][:n]))
        # New arrays: views that were given out keep the old ones.
        self._columns = Columns({column: self._columns[column][:n][place] for column in names})

    def _grow(self, capacity: int) -> None:
        grown = Columns({})
        for column in (*self.kinds, _SOURCE):
            array = self._columns[column]
            grown[column] = np.empty(capacity, array.dtype)
            grown[column][: self.n] = array[: self.n]
        self._columns = grown


def _told(piece: Piece) -> Array:
    """Its numbers, each as often as it is told."""
    return np.asarray(piece.values if isinstance(piece, Repeated) else piece)
