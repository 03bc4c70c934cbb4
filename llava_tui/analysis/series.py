"""What the order of measurements tells: whether they drift, and whether each resembles the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llava_tui.analysis.statistics import SCALE, Floats


@dataclass(frozen=True, slots=True)
class Trend:
    """A monotonic trend over measurements in the order they were taken."""

    rho: float
    """Spearman's rank correlation with the order."""
    p: float
    """Two-sided, of rho if there were no trend."""
    change: float
    """From the first to the last, as a part of the median: by the medians of the first and the last third."""


def trend(values: Floats, places: NDArray[np.integer] | None = None) -> Trend | None:
    """Of at least 6 values; ``None`` below that and where nothing varies. Runs without a value are left out.
    ``places``: those of the others by size, where they are known already."""
    known = np.isfinite(values)
    values, whole = values[known], bool(known.all())
    n = values.size
    if n < 6:
        return None
    rho = _correlation(ranks(values, places if whole else None), np.arange(n, dtype=np.float64))
    middle = float(np.median(values))
    if rho is None or middle == 0:
        return None
    third = n // 3
    # The middles of the outer thirds lie this part of the way apart.
    apart = (n - third) / (n - 1)
    change = float(np.median(values[-third:]) - np.median(values[:third])) / abs(middle) / apart
    return Trend(rho, correlation_p(rho, n), change)


def autocorrelation(values: Floats) -> float | None:
    """Lag-1 autocorrelation. What lies further out than three scaled MADs counts as if it lay there, so that a spike
    cannot hide it. ``None`` below 6 values and where nothing varies."""
    values = values[np.isfinite(values)]
    if values.size < 6:
        return None
    middle = np.median(values)
    reach = 3 * SCALE * float(np.median(np.abs(values - middle)))
    clipped: Floats = np.clip(values, middle - reach, middle + reach)
    centred: Floats = clipped - clipped.mean()
    total = _product(centred, centred)
    return _product(centred[1:], centred[:-1]) / total if total else None


def detrended(values: Floats) -> Floats:
    """The values less their straight line (least squares over the order), NaN left out."""
    values = values[np.isfinite(values)]
    if values.size < 3:
        return values
    place = np.arange(values.size, dtype=np.float64) - (values.size - 1) / 2
    rest: Floats = values - _product(place, values) / _product(place, place) * place
    return rest


def ranks(values: Floats, places: NDArray[np.integer] | None = None) -> Floats:
    """From 0; equal values share the mean of theirs. ``places``: those of the values by size, if they are known."""
    if places is None:
        places = np.argsort(values)
    ordered = values[places]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    count = np.diff(first, append=values.size)
    shared = np.empty(values.size)
    shared[places] = (first + (count - 1) / 2).repeat(count)
    return shared


def correlation_p(r: float, n: int) -> float:
    """Two-sided p of a correlation of ``n`` pairs: Student's t with n − 2 degrees, by the approximation of Wallace
    (Annals of Mathematical Statistics 30, 1959), which is good to a few percent of p from 3 degrees on."""
    degrees = n - 2
    if abs(r) >= 1:
        return 0.0
    t2 = r * r * degrees / (1 - r * r)
    z = (8 * degrees + 1) / (8 * degrees + 3) * math.sqrt(degrees * math.log1p(t2 / degrees))
    return math.erfc(z / math.sqrt(2))


def _correlation(a: Floats, b: Floats) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(_product(a, a) * _product(b, b))
    return _product(a, b) / size if size else None


def _product(a: Floats, b: Floats) -> float:
    # Not by BLAS: its threads cost a hundred times what so small a product does.
    return float(np.einsum("i,i->", a, b))
