"""What is said of a moment is what would be said of a session that came no further, whatever was asked before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import record

from llava_tui.analysis.measures import ALL_CASES, measures
from llava_tui.analysis.series import ranks, trend
from llava_tui.analysis.statistics import summarize
from llava_tui.analysis.steps import StepTable, step_table
from llava_tui.analysis.trust import badge
from llava_tui.session.timeline import Timeline

CASES = {"a": {"frames": 4, "batch": 1, "new_tokens": 4}, "b": {"frames": 8, "batch": 2, "new_tokens": 4}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    path = tmp_path_factory.mktemp("s") / "whole"
    return Timeline.open(record(path, cases=CASES, rounds=25, noise=0.2, clock=1900, utilization=80))


def cut(path: Path, to: Path, t: int) -> Timeline:
    """The session as it was at ``t``."""
    to.mkdir()
    (to / "session.json").write_bytes((path / "session.json").read_bytes())
    for stream in path.glob("*.jsonl"):
        lines = [line for line in stream.read_text().splitlines(True) if json.loads(line)["t"] <= t]
        (to / stream.name).write_text("".join(lines))
    return Timeline.open(to)


def plain(table: StepTable) -> list[Any]:
    rows = [
        (row.path, row.last, row.share, dataclasses.astuple(row.summary), row.durations.tolist())
        for row in (*table.rows, table.wall)
    ]
    sums = (table.ttft, table.tpot, table.itl, table.tokens_per_second, table.frames_per_second)
    return [*rows, *(dataclasses.astuple(one) for one in sums), table.itl_p95, table.n]


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(st.floats(0, 1), min_size=1, max_size=4), case=st.sampled_from(["a", "b", ALL_CASES]))
def test_a_moment_has_the_figures_of_a_session_that_came_no_further(
    tmp_path_factory: pytest.TempPathFactory, whole: Timeline, parts: list[float], case: str
) -> None:
    for part in parts:
        t = whole.start + int((whole.end - whole.start) * part)
        then = cut(whole.path, tmp_path_factory.mktemp("s") / "cut", t)
        assert json.dumps(plain(step_table(whole.at(t), case))) == json.dumps(plain(step_table(then.at(t), case)))
        assert badge(whole.at(t), case) == badge(then.at(t), case)
        ours, theirs = measures(whole.at(t), case), measures(then.at(t), case)
        for name in ("itl", "gaps", "starts", "rounds", "unaccounted"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name), equal_nan=True), name


def test_a_growing_session_is_looked_at_anew(tmp_path: Path, whole: Timeline) -> None:
    middle = whole.start + (whole.end - whole.start) // 2
    growing = cut(whole.path, tmp_path / "growing", middle)
    few = step_table(growing.now(), "a").n
    for name in ("events", "telemetry"):
        lines = (whole.path / f"{name}.jsonl").read_text()
        (growing.path / f"{name}.jsonl").write_text(lines)
    growing.poll()
    assert 0 < few < step_table(growing.now(), "a").n
    assert plain(step_table(growing.at(middle), "b")) == plain(step_table(whole.at(middle), "b"))


@settings(max_examples=60)
@given(st.lists(st.sampled_from([1.0, 1.5, 2.0, 7.0, -3.0]) | st.floats(-1e9, 1e9, width=32), max_size=60))
def test_a_summary_is_the_same_from_values_that_are_in_order_already(values: list[float]) -> None:
    array = np.array(values, np.float64)
    known = summarize(array)
    assert summarize(array, ordered=np.sort(array)) == known
    if known.median is not None:
        assert known.mad == pytest.approx(float(np.median(np.abs(array - known.median))), rel=1e-12, abs=1e-300)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=6, max_size=40))
def test_a_trend_is_the_same_from_places_that_are_known_already(values: list[int]) -> None:
    array = np.array(values, np.float64)
    places = np.argsort(array)
    assert trend(array, places) == trend(array)
    shared = [float(np.mean([place for place, other in enumerate(sorted(values)) if other == one])) for one in values]
    assert ranks(array).tolist() == shared
