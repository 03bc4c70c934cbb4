"""FASTER, SLOWER, SAME, INCONCLUSIVE: what may be claimed of two rows of measurements, and how much more it takes.

Everything is worked out on logarithms of ratios, so that comparing A with B mirrors comparing B with A. Resampling has
fixed seeds: the same measurements give the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llava_tui.analysis.statistics import TOO_FEW, Floats, median_interval

Verdict = Literal["faster", "slower", "same", "inconclusive", "not comparable"]
Method = Literal["paired rounds", "sessions", "single session"]

DELTA = 0.01
"""Relative effect that is worth a claim, unless another is asked for."""
ALPHA = 0.05
LEAST_SINGLE = 0.03
"""One session a side: a smaller effect is never claimed."""
SPREADS = 3.0
"""One session a side: an effect below that many A/A spreads of the machine is never claimed."""
SESSIONS = 3
"""A side, from which on sessions are the unit of a test."""
DRAWS = 4000
MOST = 10_000
"""More rounds or sessions than this are not proposed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect: the logarithm of B's time over A's. Positive: B takes longer."""

    method: Method
    effect: float
    low: float | None
    """95 % interval of the effect; ``None`` where there are too few values."""
    high: float | None
    p: float
    """Chance of as clear a difference where there is none; 1 where it cannot be told."""
    n: int
    """Pairs; sessions, or with one a side runs, of the smaller side."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one estimate."""

    verdict: Verdict
    needed: int | None
    """INCONCLUSIVE: how many rounds (or sessions a side) in all would decide, going by the spread so far."""
    reason: str


# --- estimates -----------------------------------------------------------------------------------------------------


def paired(a: Floats, b: Floats) -> Estimate | None:
    """Rounds of one session, ``a[i]`` and ``b[i]`` from the same round; ``None`` without any pair.

    The median of the log ratios; p is that of the sign test, which is exact. The interval is the wider of two: by the
    bootstrap, which alone covers 88 % of the time where rounds are few and odd in number, and by order statistics.
    """
    both = np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)
    in_order = np.log(b[both]) - np.log(a[both])
    ratios = np.sort(in_order)
    n = int(ratios.size)
    if n == 0:
        return None
    effect = _middle(ratios)
    exact = median_interval(in_order)
    if n < TOO_FEW or exact is None:
        return Estimate("paired rounds", effect, None, None, 1.0, n)
    low, high = _wider(_percentiles(_resampled_medians(ratios, 0)), exact)
    return Estimate("paired rounds", effect, low, high, _sign_test(ratios), n)


def sessions(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Several sessions a side, each by the logarithm of its median: Welch's test, three or more a side."""
    from scipy.special import stdtr, stdtrit  # not before it is needed

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    effect = float(y.mean() - x.mean())
    parts = [float(side.var(ddof=1)) / side.size for side in (x, y)]
    n = min(x.size, y.size)
    if sum(parts) == 0:
        return Estimate("sessions", effect, effect, effect, 0.0 if effect else 1.0, n)
    freedom = sum(parts) ** 2 / sum(part**2 / (side.size - 1) for part, side in zip(parts, (x, y), strict=True))
    error = math.sqrt(sum(parts))
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    return Estimate(
        "sessions", effect, effect - half, effect + half, 2 * float(stdtr(freedom, -abs(effect) / error)), n
    )


def single(a: Floats, b: Floats) -> Estimate | None:
    """One session a side (or too few): the runs of each. The interval and p are those of what varies within a session;
    what varies between sessions is unknown, which is why :func:`decide` asks for more; ``None`` without any run."""
    in_order = [np.log(side[np.isfinite(side) & (side > 0)]) for side in (a, b)]
    x, y = (np.sort(side) for side in in_order)
    if not x.size or not y.size:
        return None
    effect = _middle(y) - _middle(x)
    n = int(min(x.size, y.size))
    exact_x, exact_y = (median_interval(side) for side in in_order)
    if n < TOO_FEW or exact_x is None or exact_y is None:
        return Estimate("single session", effect, None, None, 1.0, n)
    # Both ways round, so that exchanging the sides only changes the sign.
    differences = np.concatenate(
        [
            _resampled_medians(y, 1) - _resampled_medians(x, 0),
            _resampled_medians(y, 0) - _resampled_medians(x, 1),
        ]
    )
    # The interval of a difference from those of its parts (Zou & Donner, Statistics in Medicine 27, 2008).
    down = _root(_middle(y) - exact_y[0], exact_x[1] - _middle(x))
    up = _root(exact_y[1] - _middle(y), _middle(x) - exact_x[0])
    low, high = _wider(_percentiles(differences), (effect - down, effect + up))
    total = differences.size
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Estimate("single session", effect, low, high, min(2 * (tail + 1) / (total + 1), 1.0), n)


@lru_cache(maxsize=64)
def _median_ranks(n: int, stream: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bootstrap without resampling: which order statistics (two, for even n) the medians of :data:`DRAWS` resamples of
    n values are.

    A resample's order statistic is the data's at the place where the same order statistic of n uniform numbers falls,
    and that one is Beta distributed: the very distribution that drawing n values again and again gives, for a cost that
    does not grow with n. Every draw comes with its mirror image.
    """
    generator = np.random.default_rng([20251122, n, stream])
    half = DRAWS // 2
    if n % 2:
        lower = upper = generator.beta((n + 1) / 2, (n + 1) / 2, half)
    else:
        lower = generator.beta(n / 2, n / 2 + 1, half)
        upper = lower + (1 - lower) * generator.beta(1, n / 2, half)
    i = np.minimum((lower * n).astype(np.int64), n - 1)
    j = np.minimum((upper * n).astype(np.int64), n - 1)
    return np.concatenate([i, n - 1 - j]), np.concatenate([j, n - 1 - i])


def _resampled_medians(ordered: Floats, stream: int) -> Floats:
    i, j = _median_ranks(ordered.size, stream)
    medians: Floats = (ordered[i] + ordered[j]) / 2
    return medians


def _middle(ordered: Floats) -> float:
    n = ordered.size
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def _percentiles(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of them, at whole ranks, so that they mirror."""
    outside = int(draws.size * ALPHA / 2)
    ordered = np.partition(draws, (outside, draws.size - 1 - outside))
    return float(ordered[outside]), float(ordered[draws.size - 1 - outside])


def _wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _root(one: float, other: float) -> float:
    return math.sqrt(one * one + other * other)


def _sign_test(differences: Floats) -> float:
    """Two-sided p of as unequal a number of signs; zeros tell nothing and are left out."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    n, few = up + down, min(up, down)
    if n == 0:
        return 1.0
    if n > 1000:
        return float(min(2 * NormalDist().cdf((2 * few + 1 - n) / math.sqrt(n)), 1.0))
    below: int = sum(math.comb(n, k) for k in range(few + 1))
    return min(below / (1 << (n - 1)), 1.0)


# --- decisions -----------------------------------------------------------------------------------------------------


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for having been asked together (Holm, 1979): in the same order, each at most 1."""
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted = [1.0] * len(p)
    so_far = 0.0
    for place, index in enumerate(order):
        so_far = max(so_far, min(p[index] * (len(p) - place), 1.0))
        adjusted[index] = so_far
    return adjusted


def decide(
    estimate: Estimate, adjusted_p: float, family: int, delta: float = DELTA, spread: float | None = None
) -> Decision:
    """What may be claimed.

    ``adjusted_p`` is the estimate's p after :func:`holm` over a family of that many rows; ``delta`` the relative effect
    that is worth a claim; ``spread`` the machine's stored A/A spread (relative), for a single session a side.
    """
    if estimate.method == "single session":
        return _decide_single(estimate, adjusted_p, delta, spread)
    effect, low, high = estimate.effect, estimate.low, estimate.high
    unit = "rounds" if estimate.method == "paired rounds" else "sessions a side"
    if low is None or high is None:
        return Decision("inconclusive", max(10, _least(family)), f"too few: {estimate.n} of {TOO_FEW} {unit}")
    worth = math.log1p(delta)
    if abs(effect) >= worth and (low > 0 or high < 0):
        if adjusted_p < ALPHA:
            return Decision("slower" if effect > 0 else "faster", None, "")
        why = f"clear alone, not among {family} rows asked together"
        return Decision("inconclusive", _needed(estimate, worth, family), why)
    if -worth < low and high < worth:
        return Decision("same", None, "")
    why = (
        "the interval holds no effect too"
        if abs(effect) >= worth
        else f"the interval reaches beyond ±{100 * delta:g} %"
    )
    return Decision("inconclusive", _needed(estimate, worth, family), why)


def least_single(delta: float, spread: float | None) -> float:
    """The relative effect that a single session a side has to exceed before anything is claimed."""
    return max(LEAST_SINGLE, delta, SPREADS * (spread or 0.0))


def _decide_single(estimate: Estimate, adjusted_p: float, delta: float, spread: float | None) -> Decision:
    least = least_single(delta, spread)
    of_spread = f"{SPREADS:g} × the A/A spread" if spread and SPREADS * spread >= least else f"{100 * least:.3g} %"
    effect, low, high = estimate.effect, estimate.low, estimate.high
    if low is None or high is None:
        return Decision("inconclusive", SESSIONS, f"too few: {estimate.n} of {TOO_FEW} runs")
    if abs(effect) <= math.log1p(least):
        return Decision("inconclusive", SESSIONS, f"one session a side: nothing below {of_spread} is claimed")
    if adjusted_p >= ALPHA or low <= 0 <= high:
        return Decision("inconclusive", SESSIONS, "within what runs of one session vary")
    return Decision("slower" if effect > 0 else "faster", None, "")


def _needed(estimate: Estimate, worth: float, family: int) -> int | None:
    """Intervals shrink with the root of n. ``None`` where the effect lies so near the threshold that no sensible number
    decides."""
    assert estimate.low is not None
    assert estimate.high is not None
    half = (estimate.high - estimate.low) / 2
    distance = abs(estimate.effect) if abs(estimate.effect) >= worth else worth - abs(estimate.effect)
    if abs(estimate.effect) >= worth:  # Holm asks for more than 95 % of the clearest row.
        quantile = NormalDist().inv_cdf
        half *= quantile(1 - ALPHA / 2 / family) / quantile(1 - ALPHA / 2)
    if distance <= 0:
        return None
    needed = math.ceil(estimate.n * (half / distance) ** 2)
    needed = max(needed, estimate.n + 1, _least(family) if estimate.method == "paired rounds" else SESSIONS)
    return needed if needed <= MOST else None


def _least(family: int) -> int:
    """Rounds below which even equal signs throughout are not enough among that many rows."""
    return max(TOO_FEW, math.ceil(1 + math.log2(family / ALPHA)))
