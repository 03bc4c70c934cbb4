from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui import units


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (4130, "4.13 µs"),
        (999_950, "1.00 ms"),
        (126_400_000, "126 ms"),
        (1_041_100_000, "1.041 s"),
        (59_990_000_000, "59.99 s"),
        (75_000_000_000, "01:15"),
        (7_503_000_000_000, "2:05:03"),
        (-4_130, "−4.13 µs"),
        (None, "—"),
        (math.nan, "—"),
    ],
)
def test_durations_read_as_people_write_them(ns: float | None, text: str) -> None:
    assert units.duration(ns) == text


@given(st.floats(-1e15, 1e15))
def test_a_duration_fits_its_column(ns: float) -> None:
    assert len(units.duration(ns)) <= 10


def test_sizes_and_shares() -> None:
    assert units.size(15.3 * 2**30) == "15.3 GiB"
    assert units.size(512) == "512 B"
    assert units.size(None) == "—"
    assert units.percent(0.108) == "10.8 %"
    assert units.percent(0.0002) == "0.02 %"
    assert units.percent(0.0) == "0.0 %"
    assert units.number(73.14, "tok/s") == "73.1 tok/s"


def test_one_is_singular() -> None:
    assert [units.counted(number, "more round") for number in (0, 1, 2, 4096)] == [
        "0 more rounds",
        "1 more round",
        "2 more rounds",
        "4,096 more rounds",
    ]
    assert units.counted(1, "other process", "other processes") == "1 other process"
    assert units.counted(3, "other process", "other processes") == "3 other processes"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.042, "+4.2 %"), (-0.003, "−0.3 %"), (0.0004, "0.0 %"), (-0.0004, "0.0 %"), (None, "—"), (math.nan, "—")],
)
def test_a_change_says_its_direction_and_none_where_it_rounds_to_nothing(fraction: float | None, text: str) -> None:
    assert units.change(fraction) == text
