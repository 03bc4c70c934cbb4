"""Rules that end a warm-up or the rounds: they hold whatever was measured, in whatever unit and order."""

import math
import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui.analysis.statistics import median_interval
from llava_tui.worker import selftest
from llava_tui.worker.rules import spread, throttling, undecided, warmed_up, widest, width

WALLS = st.lists(st.integers(1_000, 10**10), max_size=30)


@given(WALLS)
def test_a_warm_up_takes_three_runs_at_least_and_twenty_at_most(walls):
    rule = warmed_up(walls)
    if len(walls) < 3:
        assert rule == ""
    elif max(walls[-3:]) - min(walls[-3:]) <= 0.02 * sorted(walls[-3:])[1]:
        assert rule == "steady"
    else:
        assert rule == ("cap" if len(walls) >= 20 else "")


@given(st.integers(10**6, 10**9), st.integers(0, 10**9))
def test_only_the_last_three_runs_count(steady, before):
    assert warmed_up([before, steady, steady, steady]) == "steady"
    assert spread([before, steady]) == math.inf


@given(st.lists(st.integers(10**5, 10**6), min_size=6, max_size=60), st.integers(2, 1000))
def test_a_width_has_no_unit(values, unit):
    assert width([value * unit for value in values]) == pytest.approx(width(values))


@given(st.lists(st.integers(0, 10**6), max_size=5))
def test_too_few_values_are_never_known(values):
    assert width(values) == math.inf


def test_a_width_is_the_longer_side_of_the_interval():
    import numpy as np

    numbers = random.Random(1)
    values = [numbers.lognormvariate(18, 0.05) for _ in range(20)]
    low, high = median_interval(np.array(values))
    median = float(np.median(values))
    assert width(values) == pytest.approx(max(high / median - 1, 1 - low / median))
    assert width([5] * 10) == 0


def test_short_steps_may_be_known_half_as_well_and_the_worst_step_is_named():
    numbers = random.Random(2)
    long = {n: round(1e9 * (1 + numbers.gauss(0, 0.02))) for n in range(12)}
    short = {n: value // 1000 for n, value in long.items()}
    still = dict.fromkeys(range(12), 10**9)
    assert not widest({("a", "long"): long}, 0.01).settled
    alone = widest({("a", "short"): short}, 0.01)
    assert (alone.allowed, alone.width) == (0.02, pytest.approx(width(list(long.values())), rel=1e-3))
    found = widest({("a", "short"): short, ("b", "long"): long, ("b", "still"): still}, 0.01)
    assert (found.case, found.step) == ("b", "long")
    assert (
        widest({("a", "below the clock's resolution"): dict.fromkeys(range(12), 0), ("a", "never"): {}}, 0.01) is None
    )


def test_what_compare_would_not_decide_is_undecided():
    """The same work in each case but for a step of the last one; rounds that only one side has are left out."""
    numbers = random.Random(5)

    def rounds(factor, n=12):
        return {round_: round(1e8 * factor * (1 + numbers.gauss(0, 0.002))) for round_ in range(n)}

    walls = {case: rounds(1.0) for case in "abc"}
    steps = {(case, step): rounds(1.0) for case in "abc" for step in ("encode", "generate")}
    assert undecided(walls, steps, 0.01) is None
    assert undecided({"a": walls["a"]}, steps, 0.01) is None
    assert undecided({}, steps, 0.01) is None
    assert undecided(walls, steps | {("c", "generate"): rounds(1.2)}, 0.01) is None, "slower is a verdict"
    assert undecided(walls, steps | {("c", "generate"): rounds(1.009)}, 0.01) == ("c", "generate")
    assert undecided(walls | {"b": rounds(0.991)}, steps, 0.01) == ("b", "")
    assert undecided(walls | {"b": rounds(1.2, n=5)}, steps, 0.01) == ("b", ""), "five rounds decide nothing"


def test_a_step_that_the_first_case_lacks_decides_nothing():
    """Text alone beside a video, of which only one has something to encode; the schedule's dictionary makes what it is
    asked for."""
    walls = {case: {round_: 10**8 + round_ for round_ in range(12)} for case in ("text", "video")}
    steps = defaultdict(dict, {("text", "generate"): walls["text"], ("video", "generate"): walls["video"]})
    steps["video", "encode"] = walls["video"]
    steps["video", "frames"] = walls["video"]
    assert undecided(walls, steps, 0.01) is None


def test_throttling_is_told_in_words_and_power_caps_are_none():
    assert throttling(0x20 | 0x8 | 0x1) == "hardware slowdown, thermal (software)"
    assert throttling(0x4 | 0x1) == ""


# --- the self-test's verdict --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "verdict"),
    [
        ([0.001, 0.002, 0.003, 0.004, 0.005], "within"),
        ([-0.01, 0.0, 0.004, 0.05, 0.08], "within"),
        ([0.011, 0.012, 0.02, 0.03, 0.04], "above"),
        ([-0.01, 0.0, 0.02, 0.03, 0.04], "unclear"),
    ],
)
def test_the_overhead_is_the_median_of_pairs_with_their_range(over, verdict):
    random.Random(3).shuffle(over)
    bare = [10**9 + n * 10**7 for n in range(5)]
    test = selftest.result(1, "f1", bare, [round(b * (1 + o)) for b, o in zip(bare, over, strict=True)])
    assert test.verdict == verdict
    assert test.overhead == pytest.approx(sorted(over)[2], abs=1e-8)
    assert (test.low, test.high) == (pytest.approx(min(over), abs=1e-8), pytest.approx(max(over), abs=1e-8))
    assert test.coverage == 0.9375
    assert ("more than 1 %" in selftest.words(test)) is (verdict in ("above", "unclear"))
    assert ("noisy" in selftest.words(test)) is (verdict == "unclear")


def test_half_a_self_test_makes_no_figure():
    test = selftest.result(1, "f1", [10, 10, 10], [11, 11])
    assert (test.overhead, test.verdict, test.reason) == (None, "not done", "2 of 5 pairs were run")
    assert selftest.words(test) == ""


def test_the_range_of_five_pairs_covers_as_often_as_it_says():
    """The told coverage is exact for any continuous distribution; here of skewed noise about 0.5 %."""
    numbers = random.Random(4)
    held = 0
    for _ in range(2000):
        over = [0.005 + numbers.expovariate(1) - math.log(2) for _ in range(5)]
        held += min(over) <= 0.005 <= max(over)
    assert held / 2000 == pytest.approx(0.9375, abs=0.02)
