"""Arrays into glyphs: bars, sparklines, strips. Pure functions; every result has exactly the cells asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

EIGHTHS = " ▏▎▍▌▋▊▉█"

_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47, 0x40, 0x04, 0x02, 0x01)
_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8, 0x80, 0x20, 0x10, 0x08)
"""Dots of a braille cell's left and right column: filled from below to 0…4, then the topmost of 1…4 alone."""


def bar(part: float | None, width: int) -> str:
    """A horizontal bar of ``part`` (0…1) of ``width`` cells, in eighths; empty where not known."""
    if part is None or not math.isfinite(part) or width <= 0:
        return " " * max(width, 0)
    eighths = round(min(max(part, 0.0), 1.0) * width * 8)
    if part > 0 and eighths == 0:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def strip(levels: Sequence[float] | Floats, rows: int = 1, own: Mask | None = None) -> list[str]:
    """A filled braille area: two values a cell (0…1, NaN is nothing), ``rows`` cells high, top row first.

    Whatever is above 0 shows at least one dot, so that little is told from nothing. With ``own``, only values that it
    says True of are filled down to the bottom: of the others, which are held from one before, the edge alone is drawn.
    """
    values = np.asarray(levels, dtype=np.float64)
    filled = np.ones(values.size, np.bool_) if own is None else own
    if values.size % 2:
        values = np.append(values, np.nan)
        filled = np.append(filled, True)
    known = np.isfinite(values)
    height = rows * 4
    dots = np.zeros(values.size, dtype=np.int64)
    np.rint(np.clip(values, 0.0, 1.0) * height, out=dots, where=known, casting="unsafe")
    dots[known & (values > 0) & (dots == 0)] = 1
    lines: list[str] = []
    for row in range(rows - 1, -1, -1):
        here = np.clip(dots - row * 4, 0, 4)
        # Columns of 1 to 4 dots, then those of one dot at that height.
        edge = (dots > row * 4) & (dots <= row * 4 + 4)
        columns = np.where(filled, here, np.where(edge, here + 4, 0)).tolist()
        cells = [_LEFT[a] | _RIGHT[b] for a, b in zip(columns[::2], columns[1::2], strict=True)]
        lines.append("".join(chr(0x2800 + cell) if cell else " " for cell in cells))
    return lines


def trend(values: Sequence[float] | Floats, width: int) -> str:
    """The newest values, two a cell, oldest left, between their own least and greatest. When the row is full it goes on
    from its middle, so that a new value does not move all others.

    A spread below 5 % of the median is drawn as if it were 5 %, so that noise does not look like a trend.
    """
    if width <= 0:
        return ""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if array.size > 2 * width:
        array = array[-(-(array.size - 2 * width) // width) * width :]
    if array.size == 0:
        return " " * width
    low, high = float(array.min()), float(array.max())
    least = abs(float(np.median(array))) * 0.05
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    # From a quarter up: the lowest value still has its one dot.
    levels = 0.25 + 0.75 * (array - low) / (high - low) if high > low else np.full(array.size, 0.5)
    return strip(levels)[0].ljust(width)


def nice(value: float) -> float:
    """The least of 1, 2, 5 × 10ⁿ that is at least ``value``."""
    if not (math.isfinite(value) and value > 0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1.0, 2.0, 5.0, 10.0):
        if factor * power >= value * (1 - 1e-9):
            return factor * power
    return 10.0 * power


def fold(at: Ints, values: Floats, start: int, step: int, count: int, how: str, hold: int) -> tuple[Floats, Mask]:
    """Samples onto an even grid: ``count`` slots of ``step`` ns from ``start``, NaN where nothing is known; and which
    of the slots have a sample of their own.

    Within a slot the greatest sample is taken (``how="max"``) or the mean (``"mean"``). A slot without one holds the
    newest sample before it, for at most ``hold`` ns. ``at`` is ascending; samples before ``start`` are held from, those
    at or after the end are not looked at.
    """
    grid, own = np.full(max(count, 0), np.nan), np.zeros(max(count, 0), np.bool_)
    if count <= 0 or at.size == 0:
        return grid, own
    first = int(np.searchsorted(at, start - hold))
    last = int(np.searchsorted(at, start + step * count))
    times, readings = at[first:last], values[first:last]
    finite = np.isfinite(readings)
    if not finite.all():
        times, readings = times[finite], readings[finite]
    if times.size == 0:
        return grid, own
    edges = start + step * np.arange(count + 1)
    bounds = np.searchsorted(times, edges)
    counts = np.diff(bounds)
    own = counts > 0
    if own.any():
        # Slots without a sample take no room between those that have some.
        firsts = bounds[:-1][own]
        if how == "max":
            grid[own] = np.maximum.reduceat(readings, firsts)
        else:
            grid[own] = np.add.reduceat(readings, firsts) / counts[own]
    empty = np.flatnonzero(~own)
    before = bounds[empty] - 1
    age = edges[empty] - times[np.maximum(before, 0)]
    good = (before >= 0) & (age <= hold)
    grid[empty[good]] = readings[before[good]]
    return grid, own


def greatest(values: Floats) -> float | None:
    """The greatest that is known; ``None`` where none is."""
    most = float(np.fmax.reduce(values)) if values.size else math.nan
    return most if math.isfinite(most) else None
