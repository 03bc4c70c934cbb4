"""Robust statistics of repeated measurements.

Timings are skewed and have spikes, so the median speaks, with an interval that assumes no distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOO_FEW = 6
"""Below this many values no pair of order statistics covers the median with 95 %."""
TAIL_FROM = 20
"""From this many values on a 95th percentile is told."""
OUTLIER = 10.0
"""Scaled median absolute deviations from the median beyond which a value is flagged. It is never deleted."""
SCALE = 1.4826
"""Makes a median absolute deviation estimate the standard deviation of normal noise."""
RESOLVED = 20.0
"""Ticks of the timer below which a duration's relative spread is the timer's own."""

State = Literal["none", "too few", "below timer resolution", "ok"]


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
    iqr: float | None = None
    """Third quartile less first."""
    p95: float | None = None
    """``None`` below :data:`TAIL_FROM` values."""
    mean: float | None = None
    std: float | None = None
    """With n − 1; ``None`` for a single value."""
    minimum: float | None = None
    maximum: float | None = None
    outliers: int = 0
    """Values beyond :data:`OUTLIER` scaled MADs; they are counted in all the rest."""
    state: State = "none"

    @property
    def stability(self) -> float | None:
        """MAD / median: the smaller, the more stable. Relative, because ranking by absolute spread always crowns the
        shortest step; ``None`` where the timer cannot tell."""
        return self._relative(self.mad)

    @property
    def relative_iqr(self) -> float | None:
        """IQR / median; ``None`` where the timer cannot tell."""
        return self._relative(self.iqr)

    def _relative(self, spread: float | None) -> float | None:
        if spread is None or not self.median or self.median < 0 or self.state == "below timer resolution":
            return None
        return spread / self.median


NOTHING = Summary(0, None, None, None, None, None)


def interval_ranks(n: int, confidence: float = 0.95) -> tuple[int, int] | None:
    """The 1-based ranks (k, n + 1 − k) of the order statistics that cover the median with at least ``confidence``.

    ``None`` where no pair does. Exact for n ≤ 1000 (binomial with p = ½), above it by the normal approximation.
    Source: David & Nagaraja, Order Statistics, 3rd ed., section 7.1.
    """
    if n < 1:
        return None
    if n > 1000:
        # The two-sided normal quantile of 95 %; other levels are not asked of large samples.
        quantile = 1.959963984540054 if confidence == 0.95 else _normal_quantile((1.0 + confidence) / 2.0)
        k = math.floor((n - quantile * math.sqrt(n)) / 2.0)
        return max(k, 1), n + 1 - max(k, 1)
    k = int(np.searchsorted(_outside(n), 1.0 - confidence, "right"))
    return None if k == 0 else (k, n + 1 - k)


@lru_cache(maxsize=4096)
def _lower_rank(n: int, confidence: float) -> float | None:
    """The lower rank, with a fraction: between the pair of order statistics that covers too much and the next that
    covers too little, as Hettmansperger & Sheather (Statistics & Probability Letters 4, 1986) interpolate. Extremes
    stay: there is nothing beyond them to make up for noise that is not independent."""
    ranks = interval_ranks(n, confidence)
    if ranks is None:
        return None
    k = ranks[0]
    if k == 1 or n > 1000:
        return float(k)
    wide, narrow = (1.0 - float(outside) for outside in _outside(n)[k - 1 : k + 1])
    inner = (wide - confidence) / (wide - narrow)
    return k + (n - k) * inner / (k + (n - 2 * k) * inner)


def _outside(n: int) -> Floats:
    """For k = 1, 2 … up to the middle: the chance that the median lies outside the order statistics k and n + 1 − k."""
    i = np.arange((n + 1) // 2)
    # From one binomial coefficient to the next; ½ⁿ is well above the least float up to n = 1000.
    ratios = np.concatenate([[0.5**n], (n - i[:-1]) / (i[:-1] + 1)])
    tails: Floats = 2 * np.cumsum(np.cumprod(ratios))
    return tails


def median_interval(values: Floats, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of the median of ``values`` (one-dimensional, in the order they were measured); ``None`` where too
    few.

    From order statistics, so whatever the distribution. Where neighbours resemble each other there is less in n values
    than in n independent ones: the ranks then move outwards by √((1 + r)/(1 − r)), r the lag-1 autocorrelation.
    Below 9 values they have nowhere to move to, and the interval covers less than it says.
    """
    finite = values[np.isfinite(values)]
    return _interval(finite, np.sort(finite), confidence)


def _interval(finite: Floats, ordered: Floats, confidence: float) -> tuple[float, float] | None:
    n = ordered.size
    rank = _lower_rank(n, confidence)
    if rank is None:
        return None
    middle = (n + 1) / 2
    r = _dependence(finite, ordered) if rank > 1 else 0.0
    rank = max(middle - (middle - rank) * math.sqrt((1 + r) / (1 - r)), 1.0)
    k = int(rank)
    part = rank - k
    low, high = float(ordered[k - 1]), float(ordered[n - k])
    if part:
        low += part * (float(ordered[k]) - low)
        high -= part * (high - float(ordered[n - k - 1]))
    return low, high


def _dependence(values: Floats, ordered: Floats) -> float:
    """Lag-1 autocorrelation of the values' ranks, 0 where it is negative, its bias in small samples made good: what is
    found is on average r − (1 + 4 r)/n (Marriott & Pope, Biometrika 41, 1954)."""
    n = values.size
    if n <= 1000:
        # Those that are equal share the middle of their places, so that all signs exchanged makes no difference.
        position = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") - n) / 2
    else:  # Signs are cheaper, and many of them tell as much.
        position = np.sign(values - (ordered[(n - 1) // 2] + ordered[n // 2]) / 2)
    position = position - position.mean()
    # Not by BLAS: its threads cost a hundred times what so small a product does.
    total = float(np.einsum("i,i->", position, position))
    if total == 0:
        return 0.0
    r = float(np.einsum("i,i->", position[1:], position[:-1])) / total
    if n > 1000:
        r = math.sin(math.pi / 2 * r)
    return min(max((r + 1 / n) / (1 - 4 / n), 0.0), 0.6)


def outliers(values: Floats) -> NDArray[np.bool_]:
    """Which of ``values`` lie more than :data:`OUTLIER` scaled MADs from their median. NaN never does."""
    finite = values[np.isfinite(values)]
    if finite.size < TOO_FEW:
        return np.zeros(values.shape, np.bool_)
    median = float(np.median(finite))
    return _far(values, median, float(np.median(np.abs(finite - median))))


def _far(values: Floats, median: float, mad: float) -> NDArray[np.bool_]:
    # Without any spread a rounding error is no outlier.
    flagged: NDArray[np.bool_] = np.abs(values - median) > max(OUTLIER * SCALE * mad, 1e-6 * abs(median))
    return flagged


def summarize(values: Floats, resolution: float = 0.0, ordered: Floats | None = None) -> Summary:
    """Values in the order they were measured, NaN where a run has none. ``resolution`` is the timer's tick, 0 where
    the values are no times. ``ordered``: those that are finite by size, where that is known already."""
    finite = values[np.isfinite(values)]
    n = int(finite.size)
    if n == 0:
        return NOTHING
    if ordered is None:
        ordered = np.sort(finite)
    median = quantile(ordered, 0.5)
    mad = _middle_distance(ordered, median)
    interval = _interval(finite, ordered, 0.95)
    low, high = interval if interval is not None else (None, None)
    state: State = "ok" if n >= TOO_FEW else "too few"
    if resolution and abs(median) < RESOLVED * resolution:
        state = "below timer resolution"
    mean = float(finite.mean())
    return Summary(
        n=n,
        last=float(finite[-1]),
        median=median,
        low=low,
        high=high,
        mad=mad,
        iqr=quantile(ordered, 0.75) - quantile(ordered, 0.25),
        p95=quantile(ordered, 0.95) if n >= TAIL_FROM else None,
        mean=mean,
        std=math.sqrt(float(((finite - mean) ** 2).sum()) / (n - 1)) if n > 1 else None,
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        outliers=int(_far(finite, median, mad).sum()) if n >= TOO_FEW else 0,
        state=state,
    )


def _middle_distance(ordered: Floats, middle: float) -> float:
    """The median of the distances from ``middle``: they rise to both sides of it, so nothing needs to be sorted."""
    n, above = ordered.size, int(np.searchsorted(ordered, middle))

    def nearest(k: int) -> float:
        """The distance of rank ``k``, from 0."""
        # How many of the k nearest lie below: the least number with which the next one below is as far as those above.
        low, high = max(k - (n - above), 0), min(k, above)
        while low < high:
            below = (low + high) // 2
            if middle - ordered[above - 1 - below] < ordered[above + k - below - 1] - middle:
                low = below + 1
            else:
                high = below
        left = middle - ordered[above - 1 - low] if low < above else math.inf
        right = ordered[above + k - low] - middle if above + k - low < n else math.inf
        return float(min(left, right))

    first = nearest((n - 1) // 2)
    return first if n % 2 else first + 0.5 * (nearest(n // 2) - first)


def quantile(ordered: Floats, p: float) -> float:
    """As ``np.quantile`` has it, of values in order."""
    place = p * (ordered.size - 1)
    below = int(place)
    value = float(ordered[below])
    if place > below:
        value += (place - below) * (float(ordered[below + 1]) - value)
    return value


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
