"""When enough has been measured: pure functions of what was measured so far."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

WARM_UP_LEAST = 3
WARM_UP_MOST = 20
WARM_UP_SPREAD = 0.02
"""The last three warm-up runs agree within this much of their median."""
ROUNDS_LEAST = 10
SHORT_NS = 10_000_000
"""Steps shorter than this may be known half as well: timers and schedulers weigh more in them."""

HEAT_BITS = 0x8 | 0x20 | 0x40 | 0x80
"""NVML clocks-event reasons that slow a GPU down for its own protection: hardware slowdown, software thermal, hardware
thermal, power brake."""
THROTTLE_WORDS = {0x8: "hardware slowdown", 0x20: "thermal (software)", 0x40: "thermal (hardware)", 0x80: "power brake"}
HOTTER_C = 5.0
"""A run in which the GPU is this much warmer than in round 1 is not comparable with it."""


def spread(walls: Sequence[int]) -> float:
    """(longest − shortest) / median of the last three; infinite where there are fewer."""
    last = walls[-WARM_UP_LEAST:]
    middle = statistics.median(last) if len(last) == WARM_UP_LEAST else 0
    return (max(last) - min(last)) / middle if middle > 0 else float("inf")


def warmed_up(walls: Sequence[int]) -> Literal["", "steady", "cap"]:
    """Which rule ends a warm-up after runs of these wall times; "" while it goes on."""
    if spread(walls) <= WARM_UP_SPREAD:
        return "steady"
    return "cap" if len(walls) >= WARM_UP_MOST else ""


@dataclass(frozen=True, slots=True)
class Width:
    """How well a step of a case is known."""

    case: str
    step: str
    width: float
    """How far the median's 95 % interval reaches from it, at the longer side, as a part of it; infinite below six
    values."""
    allowed: float

    @property
    def settled(self) -> bool:
        return self.width <= self.allowed


def width(values: Sequence[float]) -> float:
    """:attr:`Width.width` of these values."""
    import numpy as np  # here: the worker is to say that it is ready before it loads anything heavy

    from llava_tui.analysis.statistics import median_interval

    array = np.asarray(values, dtype=np.float64)
    interval = median_interval(array)
    if interval is None:
        return float("inf")
    median = float(np.median(array))
    reach = max(interval[1] - median, median - interval[0])
    return reach / median if median > 0 else 0.0 if reach == 0 else float("inf")


Steps = Mapping[tuple[str, str], Mapping[int, int]]
"""Durations (ns) of steps, by case and step, of each round."""


def widest(steps: Steps, delta: float) -> Width | None:
    """The step that is furthest from being known within ``delta``; ``None`` where there is none. A step whose median is
    0 is below the clock's resolution and says nothing."""
    found: Width | None = None
    for (case, step), rounds in steps.items():
        values = list(rounds.values())
        middle = statistics.median(values) if values else 0
        if middle <= 0:
            continue
        one = Width(case, step, width(values), 2 * delta if middle < SHORT_NS else delta)
        if found is None or one.width / one.allowed > found.width / found.allowed:
            found = one
    return found


def undecided(walls: Mapping[str, Mapping[int, int]], steps: Steps, delta: float) -> tuple[str, str] | None:
    """The first case whose comparison with the first case of all is still INCONCLUSIVE, and the step that it is in ("":
    the whole run); ``None`` where every verdict is there.

    ``walls`` are wall times (ns) by case and round, the first case first; ``steps`` those of its steps. The verdicts
    are those of ``compare`` on one session, and more rounds are what decides them.
    """
    first, *others = walls or [""]
    for case in others:
        rows = {"": (walls[first], walls[case])}
        if _inconclusive(rows, delta):
            return case, ""
        # A case on text alone has no stages of seeing.
        rows = {step: (steps.get((first, step), {}), mine) for (one, step), mine in steps.items() if one == case}
        if open_ := _inconclusive({step: sides for step, sides in rows.items() if sides[0]}, delta):
            return case, open_[0]
    return None


def _inconclusive(rows: Mapping[str, tuple[Mapping[int, int], Mapping[int, int]]], delta: float) -> list[str]:
    """Of rows that are asked together, those without a verdict."""
    import numpy as np

    from llava_tui.analysis.verdict import decide, holm, paired

    estimates = {}
    for row, (a, b) in rows.items():
        shared = [round_ for round_ in a if round_ in b]
        sides = [np.array([side[round_] for round_ in shared], dtype=np.float64) for side in (a, b)]
        if (estimate := paired(sides[0], sides[1])) is not None:
            estimates[row] = estimate
    adjusted = holm([estimate.p for estimate in estimates.values()])
    return [
        row
        for (row, estimate), p in zip(estimates.items(), adjusted, strict=True)
        if decide(estimate, p, len(estimates), delta).verdict == "inconclusive"
    ]


def throttling(bits: int) -> str:
    """Why a GPU protects itself, in words; "" where it does not."""
    return ", ".join(word for bit, word in THROTTLE_WORDS.items() if bits & bit)
