from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui.analysis.statistics import Floats, interval_ranks, median_interval, outliers, summarize


@pytest.mark.parametrize(
    # Widely tabled ranks of the 95 % interval of a median (David & Nagaraja, table 7.1).
    ("n", "ranks"),
    [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33)), (100, (40, 61))],
)
def test_ranks_are_the_tabled_ones(n: int, ranks: tuple[int, int] | None) -> None:
    assert interval_ranks(n) == ranks


@pytest.mark.parametrize("n", [1001, 10_000, 1_000_000])
def test_ranks_of_large_samples_follow_the_normal_approximation(n: int) -> None:
    ranks = interval_ranks(n)
    assert ranks is not None
    low, high = ranks
    assert low + high == n + 1
    # Ranks are whole, and move outwards by two at once.
    assert (high - low) / np.sqrt(n) == pytest.approx(1.96, abs=0.07)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60))
def test_an_interval_holds_its_median_and_grows_with_confidence(values: list[float]) -> None:
    array = np.array(values)
    interval = median_interval(array)
    assert (interval is None) == (len(values) < 6)
    if interval is not None:
        assert interval[0] <= np.median(array) <= interval[1]
        wider = median_interval(array, 0.99)
        assert wider is None or (wider[0] <= interval[0] and wider[1] >= interval[1])


def test_more_values_never_make_the_interval_wider() -> None:
    """Of evenly spread values in an order without memory. Whole ranks alone would jump up and down."""
    golden = (5**0.5 - 1) / 2
    spread = (np.linspace(0, 1, n)[np.argsort(np.arange(n) * golden % 1)] for n in range(6, 400))
    widths = [high - low for low, high in filter(None, map(median_interval, spread))]
    assert len(widths) == 394
    assert all(after <= before + 1e-3 for before, after in pairwise(widths))
    assert widths[-1] < 0.11


def noisy(chance: np.random.Generator, kind: str, n: int) -> Floats:
    values = chance.normal(0, 1, n)
    if kind == "spikes":
        values += np.where(chance.random(n) < 0.05, 40, 0)
    if kind == "AR":
        for i in range(1, n):
            values[i] = 0.3 * values[i - 1] + np.sqrt(1 - 0.3**2) * values[i]
    return values


@pytest.mark.parametrize("kind", ["iid", "spikes", "AR"])
@pytest.mark.parametrize("n", [6, 10, 20, 50])
def test_the_interval_covers_the_median_as_often_as_it_says(kind: str, n: int) -> None:
    """The benchmark's table (``benchmarks/verdicts.py``) on fewer trials, so with room for chance."""
    chance = np.random.default_rng(n)
    # 5 % far above all others make the median a quantile of the rest.
    truth = NormalDist().inv_cdf(0.5 / 0.95) if kind == "spikes" else 0.0
    intervals = [median_interval(noisy(chance, kind, n)) for _ in range(1000)]
    covered = np.mean([interval is not None and interval[0] <= truth <= interval[1] for interval in intervals])
    # Six values leave nowhere to go beyond their range, and AR noise asks for it: known, and said.
    least = 0.89 if (kind, n) == ("AR", 6) else 0.92
    assert least <= covered <= 0.985


def test_what_no_run_could_tell_apart_stays_unknown() -> None:
    summary = summarize(np.array([np.nan, np.nan]))
    assert (summary.n, summary.median, summary.last) == (0, None, None)
    some = summarize(np.array([np.nan, 3.0, 1.0]))
    assert (some.n, some.median, some.last, some.low) == (2, 2.0, 1.0, None)


def test_a_summary_is_what_numpy_says() -> None:
    values = np.random.default_rng(5).lognormal(0, 0.2, 41)
    summary = summarize(values)
    assert summary.median == pytest.approx(np.median(values))
    assert summary.mad == pytest.approx(np.median(np.abs(values - np.median(values))))
    assert summary.iqr == pytest.approx(np.subtract(*np.percentile(values, [75, 25])))
    assert summary.p95 == pytest.approx(np.percentile(values, 95))
    assert (summary.mean, summary.std) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert (summary.minimum, summary.maximum, summary.last) == (values.min(), values.max(), values[-1])
    assert summarize(values[:19]).p95 is None
    assert summarize(values[:1]).std is None


def test_outliers_are_flagged_and_stay_in() -> None:
    values = np.array([10.0, 10.1, 9.9, 10.05, 9.95, 10.0, 30.0])
    summary = summarize(values)
    assert (summary.outliers, summary.maximum, summary.n) == (1, 30.0, 7)
    assert outliers(np.append(values, np.nan)).tolist() == [False] * 6 + [True, False]
    assert summarize(np.full(8, 5.0)).outliers == 0


def test_stability_is_relative_and_no_figure_below_what_the_timer_tells() -> None:
    long, short = np.array([100.0, 101, 99, 102, 98, 100]) * 1e6, np.array([100.0, 400, 200, 300, 500, 100])
    steady = summarize(long, resolution=100)
    assert (steady.state, steady.stability) == ("ok", pytest.approx(0.01))
    # Its absolute spread is the smaller one by far.
    blurred = summarize(short, resolution=100)
    assert (blurred.state, blurred.stability, blurred.relative_iqr) == ("below timer resolution", None, None)
    assert summarize(short).stability == pytest.approx(0.6)
    assert summarize(long[:5], resolution=100).state == "too few"
