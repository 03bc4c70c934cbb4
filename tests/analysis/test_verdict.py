"""What may be claimed: mirrored, scale-free, and as rarely wrong as it says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui.analysis.statistics import Floats, median_interval
from llava_tui.analysis.verdict import ALPHA, Estimate, decide, holm, paired, sessions, single

times = st.floats(1e3, 1e12)
columns = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*(st.lists(times, min_size=n, max_size=n).map(np.array) for _ in "ab"))
)
Method = Callable[[Floats, Floats], Estimate | None]
MIRRORED = {"faster": "slower", "slower": "faster"}


def mirrored(estimate: Estimate) -> Estimate:
    low, high = (None if bound is None else -bound for bound in (estimate.high, estimate.low))
    return Estimate(estimate.method, -estimate.effect, low, high, estimate.p, estimate.n)


@settings(deadline=None)
@given(columns, st.floats(0, 0.2))
def test_exchanging_the_sides_mirrors_everything(pair: tuple[Floats, Floats], spread: float) -> None:
    a, b = pair
    for method in (paired, single):
        forth, back = method(a, b), method(b, a)
        assert forth is not None
        assert back == mirrored(forth)
        there, again = (decide(one, one.p, 1, spread=spread) for one in (forth, back))
        assert again.verdict == MIRRORED.get(there.verdict, there.verdict)
        assert (again.needed, again.reason) == (there.needed, there.reason)


@pytest.mark.parametrize("n", [7, 9, 11])
@pytest.mark.parametrize("method", [paired, single])
def test_the_interval_covers_as_often_as_it_says_for_few_and_odd_numbers(method: Method, n: int) -> None:
    chance = np.random.default_rng(n)
    trials, covered = 600, 0
    for _ in range(trials):
        one = method(*np.exp(chance.normal(0, 0.01, (2, n))))
        assert one is not None
        assert one.low is not None
        assert one.high is not None
        covered += one.low <= 0 <= one.high
    assert covered / trials > 0.92  # 95 %, less three standard errors of so many trials


@settings(deadline=None)
@given(columns, st.integers(-20, 20))
def test_the_unit_of_time_is_of_no_account(pair: tuple[Floats, Floats], power: int) -> None:
    a, b = pair
    before, after = paired(a, b), paired(a * 2.0**power, b * 2.0**power)
    assert before is not None
    assert after is not None
    assert (after.effect, after.p) == (pytest.approx(before.effect, abs=1e-9), before.p)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8), st.lists(st.floats(-1, 1), min_size=3, max_size=8))
def test_welchs_test_is_scipys(a: list[float], b: list[float]) -> None:
    if np.std(a) < 1e-6 or np.std(b) < 1e-6:
        return
    from scipy.stats import ttest_ind

    ours, theirs = sessions(a, b), ttest_ind(b, a, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6)
    interval = theirs.confidence_interval()
    assert (ours.low, ours.high) == (pytest.approx(interval.low, abs=1e-9), pytest.approx(interval.high, abs=1e-9))
    assert sessions(b, a) == mirrored(ours)


@pytest.mark.parametrize("n", [7, 12, 21])
def test_the_interval_is_that_of_resampling_or_the_wider_one_of_order_statistics(n: int) -> None:
    chance = np.random.default_rng(n)
    values = chance.normal(0.02, 0.03, n)
    estimate = paired(np.ones(n), np.exp(values))
    resampled = np.median(chance.choice(values, (20_000, n)), axis=1)
    exact = median_interval(values)
    assert estimate is not None
    assert exact is not None
    # A resampled median takes few values: beyond a bound lies less than 2.5 %, from it on more.
    sides = ((resampled, estimate.low, exact[0]), (-resampled, -(estimate.high or 0.0), -exact[1]))
    for outside, value, by_order in sides:
        assert value is not None
        assert (outside < value - 1e-9).mean() <= 0.03
        assert (outside < value + 1e-9).mean() >= 0.02 or value == pytest.approx(by_order)


def test_holms_adjustment_is_the_textbooks() -> None:
    # p-values in ascending order times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_signs_are_counted_exactly() -> None:
    a = np.ones(10)
    b = np.array([1.1] * 9 + [0.9])
    estimate = paired(a, b)
    assert estimate is not None
    assert estimate.p == pytest.approx(22 / 1024)  # binomial: (1 + 10) · 2 / 2¹⁰


@pytest.mark.parametrize(
    ("effect", "half", "verdict"),
    [
        (0.18, 0.02, "slower"),
        (-0.18, 0.02, "faster"),
        (0.003, 0.004, "same"),
        (0.0, 0.02, "inconclusive"),  # reaches beyond the threshold
        (0.03, 0.04, "inconclusive"),  # holds 0
        (0.008, 0.002, "inconclusive"),  # clear, but not worth a claim, and not within it either
    ],
)
def test_verdicts_by_interval_and_threshold(effect: float, half: float, verdict: str) -> None:
    estimate = Estimate("paired rounds", effect, effect - half, effect + half, 0.001, 20)
    decision = decide(estimate, 0.001, 1)
    assert decision.verdict == verdict
    assert (decision.needed is None) == (verdict != "inconclusive")
    if decision.needed is not None:
        assert decision.needed > 20


def test_what_is_clear_alone_is_not_claimed_among_many() -> None:
    estimate = Estimate("paired rounds", 0.1, 0.02, 0.2, 0.03, 6)
    assert decide(estimate, 0.03, 1).verdict == "slower"
    decision = decide(estimate, 0.24, 8)
    assert decision.verdict == "inconclusive"
    assert decision.needed is not None
    assert decision.needed >= 9  # fewer signs cannot tell, however equal: 8 · 2⁻⁷ > 5 %


def test_more_rounds_are_asked_for_where_the_noise_is_larger() -> None:
    asked = [
        decide(Estimate("paired rounds", 0.02, 0.02 - half, 0.02 + half, 0.2, 20), 0.2, 3).needed
        for half in (0.03, 0.06, 0.12)
    ]
    assert None not in asked
    assert asked == sorted(asked)
    assert decide(Estimate("paired rounds", 0.0, -0.9, 0.9, 0.9, 6), 0.9, 1).needed is None  # beyond what is sensible


@pytest.mark.parametrize(
    ("effect", "spread", "verdict"),
    [(0.02, None, "inconclusive"), (0.05, None, "slower"), (0.05, 0.02, "inconclusive"), (0.10, 0.02, "slower")],
)
def test_one_session_a_side_claims_only_what_is_beyond_the_machines_spread(
    effect: float, spread: float | None, verdict: str
) -> None:
    a = np.random.default_rng(3).lognormal(0, 0.002, 30)
    estimate = single(a, np.random.default_rng(4).lognormal(math.log1p(effect), 0.002, 30))
    assert estimate is not None
    decision = decide(estimate, estimate.p, 1, spread=spread)
    assert decision.verdict == verdict
    if verdict == "inconclusive":
        assert decision.needed == 3


def test_a_handful_of_runs_is_too_few() -> None:
    estimate = paired(np.full(5, 1.0), np.full(5, 2.0))
    assert estimate is not None
    decision = decide(estimate, estimate.p, 1)
    assert (decision.verdict, decision.needed) == ("inconclusive", 10)
    assert paired(np.array([np.nan]), np.array([1.0])) is None


def session(chance: np.random.Generator, effect: float, n: int = 20) -> tuple[Floats, Floats]:
    """Two cases interleaved by round: 2 % drift in all, 0.5 % noise, 5 % spikes of 20 to 100 %."""
    drift = np.linspace(0, 0.02, 2 * n).reshape(n, 2)
    drift = np.take_along_axis(drift, np.argsort(chance.random((n, 2)), axis=1), axis=1)
    took = (1 + drift) * np.exp(chance.normal(0, 0.005, (n, 2)))
    took *= np.where(chance.random((n, 2)) < 0.05, 1 + chance.uniform(0.2, 1, (n, 2)), 1)
    return took[:, 0] * 1e8, took[:, 1] * (1 + effect) * 1e8


@pytest.mark.parametrize(
    ("effect", "least", "claims"), [(0.0, 0.98, {"same", "inconclusive"}), (0.02, 0.95, {"slower"}),
                                    (-0.02, 0.95, {"faster"}), (0.003, 0.98, {"same", "inconclusive"})]
)  # fmt: skip
def test_false_alarms_are_rare_and_real_effects_are_found(effect: float, least: float, claims: set[str]) -> None:
    """The benchmark's figures (``benchmarks/verdicts.py``), on fewer trials."""
    chance = np.random.default_rng(7)
    found = []
    for _ in range(150):
        estimates = [paired(*session(chance, effect)) for _ in range(3)]
        adjusted = holm([one.p for one in estimates if one is not None])
        found += [decide(one, p, 3).verdict for one, p in zip(estimates, adjusted, strict=True) if one is not None]
    assert np.mean([verdict in claims for verdict in found]) >= least
    assert ALPHA == 0.05
