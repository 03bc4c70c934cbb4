"""Arrays into glyphs: bars, sparklines, strips. Pure functions; every result has exactly the cells asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EIGHTHS = " ▏▎▍▌▋▊▉█"

_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)
"""Dots of a braille cell's left and right column, filled from below to 0…4."""


def bar(part: float | None, width: int) -> str:
    """A horizontal bar of ``part`` (0…1) of ``width`` cells, in eighths; empty where not known."""
    if part is None or not math.isfinite(part) or width <= 0:
        return " " * max(width, 0)
    eighths = round(min(max(part, 0.0), 1.0) * width * 8)
    if part > 0 and eighths == 0:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def strip(levels: Sequence[float] | Floats, rows: int = 1) -> list[str]:
    """A filled braille area: two values a cell (0…1, NaN is nothing), ``rows`` cells high, top row first.

    Whatever is above 0 shows at least one dot, so that little is told from nothing.
    """
    values = np.asarray(levels, dtype=np.float64)
    if values.size % 2:
        values = np.append(values, np.nan)
    known = np.isfinite(values)
    height = rows * 4
    dots = np.zeros(values.size, dtype=np.int64)
    np.rint(np.clip(values, 0.0, 1.0) * height, out=dots, where=known, casting="unsafe")
    dots[known & (values > 0) & (dots == 0)] = 1
    lines: list[str] = []
    for row in range(rows - 1, -1, -1):
        here = np.clip(dots - row * 4, 0, 4).tolist()
        cells = [_LEFT[a] | _RIGHT[b] for a, b in zip(here[::2], here[1::2], strict=True)]
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


def fold(at: NDArray[np.int64], values: Floats, start: int, step: int, count: int, how: str, hold: int) -> Floats:
    """Samples onto an even grid: ``count`` slots of ``step`` ns from ``start``; NaN where nothing is known.

    Within a slot the greatest sample is taken (``how="max"``) or the mean (``"mean"``). A slot without one holds the
    newest sample before it, for at most ``hold`` ns. ``at`` is ascending; samples before ``start`` are held from, those
    at or after the end are not looked at.
    """
    grid = np.full(count, np.nan)
    if count <= 0 or at.size == 0:
        return grid
    first = int(np.searchsorted(at, start - hold))
    last = int(np.searchsorted(at, start + step * count))
    times = np.asarray(at[first:last], dtype=np.int64)
    readings = np.asarray(values[first:last], dtype=np.float64)
    finite = np.isfinite(readings)
    times, readings = times[finite], readings[finite]
    if times.size == 0:
        return grid
    slots = (times - start) // step
    inside = slots >= 0
    if how == "max":
        grid[:] = -np.inf
        np.maximum.at(grid, slots[inside], readings[inside])
        grid[np.isneginf(grid)] = np.nan
    else:
        counts = np.bincount(slots[inside], minlength=count)
        sums = np.bincount(slots[inside], weights=readings[inside], minlength=count)
        np.divide(sums, counts, out=grid, where=counts > 0)
    empty = np.flatnonzero(np.isnan(grid))
    before = np.searchsorted(times, start + step * empty, "right") - 1
    age = start + step * empty - times[np.maximum(before, 0)]
    good = (before >= 0) & (age <= hold)
    grid[empty[good]] = readings[before[good]]
    return grid
