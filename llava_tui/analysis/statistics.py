"""Robust statistics of repeated measurements.

Timings are skewed and have spikes, so the median speaks, with an interval that assumes no distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOO_FEW = 6
"""Below this many values no pair of order statistics covers the median with 95 %."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said of one row of measurements. All in the unit of the values; ``None`` says "not known"."""

    n: int
    last: float | None
    """The newest value."""
    median: float | None
    low: float | None
    """95 % interval of the median; ``None`` below :data:`TOO_FEW` values."""
    high: float | None
    mad: float | None
    """Median absolute deviation, unscaled."""


def interval_ranks(n: int, confidence: float = 0.95) -> tuple[int, int] | None:
    """The 1-based ranks (k, n + 1 − k) of the order statistics that cover the median with at least ``confidence``.

    ``None`` where no pair does. Exact for n ≤ 1000 (binomial with p = ½), above it by the normal approximation.
    Source: David & Nagaraja, Order Statistics, 3rd ed., section 7.1.
    """
    if n < 1:
        return None
    tail = (1.0 - confidence) / 2.0
    if n > 1000:
        # The two-sided normal quantile of 95 %; other levels are not asked of large samples.
        quantile = 1.959963984540054 if confidence == 0.95 else _normal_quantile(1.0 - tail)
        k = math.floor((n - quantile * math.sqrt(n)) / 2.0)
        return max(k, 1), n + 1 - max(k, 1)
    below = 0.0
    k = 0
    log_half = n * math.log(0.5)
    while k <= n // 2:
        below += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)
        if below > tail:
            break
        k += 1
    return None if k == 0 else (k, n + 1 - k)


def median_interval(values: Floats, confidence: float = 0.95) -> tuple[float, float] | None:
    """The order-statistic interval of the median of ``values`` (any shape, unit kept); ``None`` where too few."""
    flat = np.sort(values[np.isfinite(values)], axis=None)
    ranks = interval_ranks(flat.size, confidence)
    if ranks is None:
        return None
    return float(flat[ranks[0] - 1]), float(flat[ranks[1] - 1])


def summarize(values: Floats) -> Summary:
    """Values in the order they were measured, NaN where a run has none."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Summary(0, None, None, None, None, None)
    median = float(np.median(finite))
    interval = median_interval(finite)
    low, high = interval if interval is not None else (None, None)
    return Summary(
        n=int(finite.size),
        last=float(finite[-1]),
        median=median,
        low=low,
        high=high,
        mad=float(np.median(np.abs(finite - median))),
    )


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
