"""Which columns of a table a screen has room for."""

from __future__ import annotations

from collections.abc import Sequence

Column = tuple[str, str, int, int]
"""Name, heading, cells with the gap before, rank: the lower, the longer it stays."""


def fitting(columns: Sequence[Column], room: int) -> dict[str, int]:
    """Cells of the columns that fit ``room``, by name, kept by rank."""
    kept: dict[str, int] = {}
    for name, _, size, _ in sorted(columns, key=lambda column: column[3]):
        if size > room:
            break
        kept[name] = size
        room -= size
    return kept
