"""Advice put to the test: the plan that runs it beside its baseline, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llava_tui.analysis.advice import Advice
from llava_tui.analysis.loads import apart
from llava_tui.analysis.measures import measures
from llava_tui.analysis.roofline import case_value
from llava_tui.analysis.steps import case_ids
from llava_tui.analysis.trust import Trust, badge
from llava_tui.analysis.verdict import DELTA, Decision, Estimate, decide, paired, single
from llava_tui.session.timeline import View


@dataclass(frozen=True, slots=True)
class Proof:
    """What a piece of advice promised and what a session of its own measured: shares of the time saved, of the
    advice's metric. Negative: it got slower."""

    advice: str
    axis: str
    before: int | str
    after: int | str
    metric: str
    predicted: float | None
    bound: float | None
    measured: float | None
    low: float | None
    """95 % interval of ``measured``; ``None`` where there are too few rounds."""
    high: float | None
    rounds: int
    """Pairs that were compared."""
    verdict: str
    """Of the paired rule: faster, slower, same, inconclusive."""
    trust: str
    """The worse grade of the two cases; "" where nothing was measured."""
    sentence: str
    doubt: str = ""
    """What is against the session that was advised on; the prediction is from there, the measurement is not."""


def trial_plan(plan: Mapping[str, Any], advice: Advice, values: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """The plan of a session that runs ``advice``'s change beside its baseline, interleaved: ``plan`` (that of the
    session advised on) with every sweep axis pinned to the case's ``values`` but the one that changes.

    Raises :class:`ValueError` for advice without a change.
    """
    change = advice.change
    if change is None:
        raise ValueError(f"{advice.id}: there is no sweep axis for it")
    axes = {name: [value] for name, value in values.items()}
    axes[change.axis] = [change.before, change.after]
    if change.axis == "compile" and values.get("cache", plan.get("cache")) != "static":
        axes["cache"] = ["auto"]  # each case gets what it needs
    course = {"rounds": rounds, "time_limit_s": None, "profile": False}
    return dict(plan) | axes | course | {"name": f"advice {advice.id}", "tags": ["advice"]}


def prove(view: View, advice: Advice, doubt: str = "") -> Proof:
    """What the trial's session ``view`` says of ``advice``, by paired rounds; ``doubt`` as in :class:`Proof`."""
    change = advice.change
    if change is None:
        raise ValueError(f"{advice.id}: there is no sweep axis for it")
    by_value = {case_value(view, case, change.axis): case for case in case_ids(view)}
    estimate: Estimate | None = None
    if change.before in by_value and change.after in by_value:
        both = by_value[change.before], by_value[change.after]
        is_apart = apart(view, *both)
        before, after = (measures(view, case).wall for case in both) if is_apart else _paired_times(view, *both)
        if advice.metric == "wall per sequence":
            after = after * _batch(view, by_value[change.before]) / _batch(view, by_value[change.after])
        estimate = single(before, after) if is_apart else paired(before, after)
    badges = [badge(view, by_value[value]) for value in (change.before, change.after) if value in by_value]
    worst = max(badges, key=lambda each: each.grade or "", default=None)
    decision = decide(estimate, estimate.p, 1, DELTA) if estimate is not None else None
    saved = None if estimate is None else -math.expm1(estimate.effect)
    low = None if estimate is None or estimate.high is None else -math.expm1(estimate.high)
    high = None if estimate is None or estimate.low is None else -math.expm1(estimate.low)
    return Proof(
        advice=advice.id,
        axis=change.axis,
        before=change.before,
        after=change.after,
        metric=advice.metric,
        predicted=advice.gain,
        bound=advice.bound,
        measured=saved,
        low=low,
        high=high,
        rounds=estimate.n if estimate is not None else 0,
        verdict=decision.verdict if decision is not None else "inconclusive",
        trust=worst.grade or "" if worst is not None else "",
        sentence=_sentence(view, advice, saved, low, high, decision, worst),
        doubt=doubt,
    )


def _paired_times(view: View, before: str, after: str) -> tuple[Any, Any]:
    """Wall times of the two cases in the rounds that have both, round by round."""
    a, b = measures(view, before), measures(view, after)
    _, first, second = np.intersect1d(a.rounds, b.rounds, return_indices=True)
    return a.wall[first], b.wall[second]


def _batch(view: View, case: str) -> int:
    value = case_value(view, case, "batch")
    return value if isinstance(value, int) else 1


def _sentence(
    view: View,
    advice: Advice,
    saved: float | None,
    low: float | None,
    high: float | None,
    decision: Decision | None,
    worst: Trust | None,
) -> str:
    if saved is None or decision is None:
        why = view.states.row(-1)["reason"] if view.states.n else ""
        return "no round ran both cases: nothing can be said" + (f" ({why})" if why else "")
    said = decision.verdict.upper() + (f": {decision.reason}" if decision.reason else "")
    if worst is not None and not worst.sound:
        named = worst.reasons[0].text if worst.reasons else ""
        return f"{said}; but trust is {worst.grade}, put it to the test again ({named})"
    if low is None or high is None:
        return said
    if advice.gain is None:
        above = advice.bound is not None and low > advice.bound
        return f"{said}; {'more than the bound' if above else 'within the bound'}, nothing more was predicted"
    if low <= advice.gain <= high:
        return f"{said}; the prediction lies within the interval"
    return f"{said}; the prediction is {abs(advice.gain - saved) * 100:.1f} points off"
