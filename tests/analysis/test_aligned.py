"""Samples folded onto the moments of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui.analysis.aligned import MOST_PARTS, SAMPLES_A_PART, _moments, profile
from llava_tui.analysis.measures import measures
from llava_tui.session.timeline import Timeline

SIMULATED = Path(__file__).parents[2] / "sessions" / "example-simulated-h100"


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 40)), min_size=1, max_size=8),
    samples=st.lists(st.integers(-20, 800), max_size=60),
)
def test_a_sample_counts_where_it_fell_and_nowhere_else(spans: list[tuple[int, int]], samples: list[int]) -> None:
    starts, lengths, at = [], [], 0
    for gap, length in spans:  # steps of one kind never overlap
        starts.append(at + gap)
        lengths.append(length)
        at += gap + length
    times = np.array(sorted(samples), np.int64)
    inside, moments = _moments(times, np.array(starts, float), np.array(lengths, float))
    expected = [
        (index, (t - start) / length)
        for index, t in enumerate(times.tolist())
        for start, length in zip(starts, lengths, strict=True)
        if start <= t < start + length
    ]
    assert inside.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(moments, [moment for _, moment in expected])


def test_a_step_that_was_not_told_apart_takes_no_samples() -> None:
    nothing = np.array([np.nan])
    inside, _ = _moments(np.array([5, 6]), np.array([0.0]), nothing)
    assert inside.size == 0


def test_a_simulated_gpu_is_busy_where_the_model_is() -> None:
    view = Timeline.open(SIMULATED).now()
    found = profile(measures(view, "f4-b1-n64"))
    assert found.source == "GPU 0"
    assert found.memory_total is not None
    assert [step.path for step in found.steps] == ["frames", "encode", "generate"]
    generate = found.steps[2]
    assert 1 <= generate.utilization.size <= MOST_PARTS
    known = generate.utilization[np.isfinite(generate.utilization)]
    assert known.mean() > 0.5
    assert np.nanmax(generate.memory) > 13 * 2**30, "the weights alone are 13 GiB"
    assert 100 < np.nanmean(generate.power) < 800, "watts"
    # As many parts as there are samples for: each part holds some on average.
    samples = np.asarray(view.samples["t"]).size
    assert generate.utilization.size <= max(samples // SAMPLES_A_PART, 1)


def test_without_a_gpu_the_cpu_is_told() -> None:
    view = Timeline.open(SIMULATED.parent / "example-demo-cpu").now()
    found = profile(measures(view, "f1-b1-n32"))
    assert found.source == "CPU"
    assert found.memory_total is None
    assert all(np.isnan(step.power).all() for step in found.steps)
    assert any(np.isfinite(step.memory).any() for step in found.steps)
