from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llava_tui.tui.widgets import figures, plots

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)
NAN = math.nan


def test_a_bar_is_drawn_in_eighths() -> None:
    assert plots.bar(0.5, 4) == "██  "
    assert plots.bar(0.53125, 4) == "██▏ "
    assert plots.bar(1.0, 4) == "████"
    assert plots.bar(1e-9, 4) == "▏   "
    assert plots.bar(0.0, 4) == plots.bar(None, 4) == plots.bar(NAN, 4) == "    "


def test_a_strip_is_filled_from_below_two_values_a_cell() -> None:
    assert plots.strip([0.0, 0.25, 0.5, 1.0]) == ["⢀⣼"]
    assert plots.strip([1.0, 1.0, 0.5, 0.5], 2) == ["⣿ ", "⣿⣿"]
    assert plots.strip([NAN, NAN]) == [" "]


def test_little_is_told_from_nothing() -> None:
    assert plots.strip([0.001, 0.0]) == ["⡀"]


@given(st.lists(ANY, max_size=80), st.integers(0, 40), st.integers(1, 3))
def test_plots_have_exactly_their_cells_whatever_the_values(values: list[float], width: int, rows: int) -> None:
    lines = plots.strip(values, rows)
    assert len(lines) == rows
    assert all(len(line) == (len(values) + 1) // 2 for line in lines)
    assert len(plots.trend(values, width)) == width
    assert len(plots.bar(values[0] if values else None, width)) == width


def test_a_trend_shows_the_least_and_the_greatest() -> None:
    assert plots.trend([1.0, 2.0], 2) == "⣸ "
    assert plots.trend([3.0, 3.0], 1) == "⣤"


def test_a_full_trend_goes_on_from_its_middle() -> None:
    full = plots.trend([1.0, 2.0] * 4, 4)
    assert full == "⣸⣸⣸⣸"
    assert plots.trend([1.0, 2.0] * 4 + [1.0], 4) == "⣸⣸⡀ "


def test_nice_numbers_are_1_2_5() -> None:
    assert [plots.nice(x) for x in (0.3, 1, 1.1, 4, 7, 99)] == [0.5, 1, 2, 5, 10, 100]


def test_samples_are_folded_onto_an_even_grid_and_held() -> None:
    at = np.array([0, 5, 12, 50], dtype=np.int64)
    values = np.array([1.0, 3.0, 2.0, 9.0])
    levels, own = plots.fold(at, values, 0, 10, 5, "max", 20)
    assert levels.tolist()[:4] == [3.0, 2.0, 2.0, 2.0]
    # 12 is held for 20: up to 32, so the slot at 30 still has it, and one at 40 has not.
    assert math.isnan(levels[4])
    assert own.tolist() == [True, True, False, False, False]
    assert plots.fold(at, values, 0, 10, 4, "mean", 20)[0].tolist()[:2] == [2.0, 2.0]
    assert plots.fold(at, values, 20, 10, 1, "max", 20)[0].tolist() == [2.0]


def test_what_is_held_is_told_from_a_reading() -> None:
    """At a deep zoom there is a reading every twenty cells: between them nothing was read, so nothing is filled."""
    assert plots.strip([0.5, 0.5, 1.0, 1.0], 1, np.array([True, False, True, False])) == ["⡤⡏"]
    assert plots.strip([1.0, 1.0, 0.5, 0.5], 2, np.array([True, False, False, True])) == ["⡏ ", "⡇⢹"]


@given(
    st.lists(st.tuples(st.integers(0, 2000), ANY), max_size=50),
    st.integers(-500, 2000),
    st.integers(1, 300),
    st.integers(0, 50),
    st.sampled_from(["max", "mean"]),
    st.integers(0, 500),
)
def test_folding_is_what_one_would_do_slot_by_slot(
    pairs: list[tuple[int, float]], start: int, step: int, count: int, how: str, hold: int
) -> None:
    pairs.sort(key=lambda pair: pair[0])
    at = np.array([t for t, _ in pairs], dtype=np.int64)
    values = np.array([v for _, v in pairs], dtype=np.float64)
    levels, own = plots.fold(at, values, start, step, count, how, hold)
    assert levels.size == own.size == count
    known = [(t, v) for t, v in pairs if math.isfinite(v)]
    for slot in range(count):
        begin = start + slot * step
        inside = [v for t, v in known if begin <= t < begin + step]
        before = [(t, v) for t, v in known if begin - hold <= t < begin]
        assert own[slot] == bool(inside)
        if inside:
            wanted = max(inside) if how == "max" else sum(inside) / len(inside)
            assert levels[slot] == pytest.approx(wanted, rel=1e-6, abs=1e-30)
        elif before:
            assert levels[slot] == before[-1][1]
        else:
            assert math.isnan(levels[slot])


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (4_130, "4.13 µs"),
        (4_130_000, "4.13 ms"),
        (126_000_000, "126 ms"),
        (999_600_000, "1.000 s"),
        (1_041_000_000, "1.041 s"),
        (59_990_000_000, "59.99 s"),
        (131_000_000_000, "02:11"),
        (-5_000_000, "−5.00 ms"),
        (None, "—"),
        (NAN, "—"),
    ],
)
def test_durations(ns: float | None, text: str) -> None:
    assert figures.duration(ns) == text


@given(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)))
def test_a_duration_is_short_and_never_says_0_for_nothing(ns: float | None) -> None:
    shown = figures.duration(ns)
    assert cell_len(shown) <= 9 or abs(ns or 0) > 1e14
    if ns is None or not math.isfinite(ns):
        assert shown == "—"


def test_an_interval_tells_its_ends_apart() -> None:
    assert figures.interval(1.037e9, 1.043e9, 20) == "1.037 … 1.043 s"
    assert figures.interval(125e6, 126e6, 20) == "125.0 … 126.0 ms"
    assert figures.interval(100e6, 150e6, 20) == "100 … 150 ms"
    assert figures.interval(None, None, 3) == "too few"
    assert figures.interval(None, None, 0) == "—"


@given(st.floats(0, 1e13), st.floats(0, 1e13))
def test_an_interval_fits_its_column(a: float, b: float) -> None:
    assert cell_len(figures.interval(min(a, b), max(a, b), 20)) <= 19
