from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui.analysis.statistics import interval_ranks, median_interval, summarize


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


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    """Skewed noise with spikes, as timings have it."""
    generator = np.random.default_rng(1)
    for n in (6, 10, 20):
        samples = generator.lognormal(0, 0.3, (2000, n))
        samples[generator.random((2000, n)) < 0.05] *= 3
        truth = float(np.median(np.where(generator.random(10**6) < 0.05, 3, 1) * generator.lognormal(0, 0.3, 10**6)))
        covered = np.mean([low <= truth <= high for low, high in map(median_interval, samples) if low is not None])
        assert 0.94 <= covered <= 0.99, (n, covered)


def test_what_no_run_could_tell_apart_stays_unknown() -> None:
    summary = summarize(np.array([np.nan, np.nan]))
    assert (summary.n, summary.median, summary.last) == (0, None, None)
    some = summarize(np.array([np.nan, 3.0, 1.0]))
    assert (some.n, some.median, some.last, some.low) == (2, 2.0, 1.0, None)
