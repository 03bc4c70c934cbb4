from __future__ import annotations

from pathlib import Path

import pytest
from made_sessions import MS, a100, make

from llava_tui import events
from llava_tui.analysis.insights import Fit, Insights, insights
from llava_tui.analysis.references import UNVERIFIED
from llava_tui.analysis.whole import analyze
from llava_tui.plan import Case

FRAMES = [Case(frames, 1, 32) for frames in (1, 2, 4)]


def fit_of(found: Insights, path: str) -> Fit:
    return next(fit for fit in found.fits if fit.path == path)


def test_the_seeds_report_of_a_session(tmp_path: Path) -> None:
    found = insights(make(tmp_path / "s", FRAMES))
    assert (found.total_runs, found.measured_runs) == (36, 36)
    assert [(count.kind, count.outcome, count.runs) for count in found.runs] == [("measured", "ok", 36)]
    assert [case.case for case in found.cases] == ["f1-b1-n32", "f2-b1-n32", "f4-b1-n32"]
    extremes = found.cases[0].extremes
    assert extremes.slowest is not None
    assert extremes.lightest is not None
    assert (extremes.slowest.path, extremes.lightest.path) == ("generate", "frames")
    assert extremes.lightest.value == pytest.approx(5 * MS, rel=0.01)


def test_stability_is_relative_so_the_shortest_step_is_not_crowned(tmp_path: Path) -> None:
    def shaky_first(case: Case, round_: int) -> dict[str, float]:
        # Step 1 wobbles by 20 % of 5 ms, step 3 by 0.4 % of 500 ms: less in relation, more in ms.
        return a100(case, round_) | {
            "frames.decode_frames": 5.0 * (1 + 0.2 * (round_ % 2)),
            "generate.decode": 500.0 + 2.0 * (round_ % 2),
        }

    extremes = insights(make(tmp_path / "s", FRAMES[:1], times=shaky_first)).cases[0].extremes
    assert extremes.least_stable is not None
    assert extremes.least_stable.path == "frames"


def test_a_line_through_frames_is_found_with_its_interval(tmp_path: Path) -> None:
    fit = fit_of(insights(make(tmp_path / "s", FRAMES)), "encode")
    # encode = 2 + 6 F (preprocess) + 0.1 (h2d) + 1 + 2.448 F (tower) + 0.16 F (projector), ms
    assert fit.a == pytest.approx(3.1 * MS, rel=0.01)
    assert fit.b == pytest.approx(8.608 * MS, rel=0.01)
    assert fit.frames == (1, 2, 4)
    assert fit.rounds == 12
    assert fit.b_low is not None
    assert fit.b_high is not None
    assert fit.b_low <= fit.b <= fit.b_high
    assert fit.misfit == pytest.approx(0, abs=0.001)


def test_what_is_no_line_says_how_far_off_it_is(tmp_path: Path) -> None:
    def square(case: Case, round_: int) -> dict[str, float]:
        return a100(case, round_) | {"generate.prefill": 10.0 * case.frames**2}

    fit = fit_of(insights(make(tmp_path / "s", FRAMES, times=square)), "generate.prefill")
    assert fit.misfit is not None
    assert fit.misfit > 0.2


def test_drift_does_not_tilt_the_line_because_rounds_are_paired(tmp_path: Path) -> None:
    def drifting(case: Case, round_: int) -> dict[str, float]:
        return {leaf: ms * (1 + 0.05 * round_) for leaf, ms in a100(case, round_).items()}

    fit = fit_of(insights(make(tmp_path / "s", FRAMES, times=drifting)), "encode")
    assert fit.a / fit.b == pytest.approx(3.1 / 8.608, rel=0.01)


def test_what_a_batch_gave_before_its_case_failed_is_told(tmp_path: Path) -> None:
    small, large = Case(1, 1, 32), Case(1, 8, 32)
    dropped = events.Schedule(t=4, cases=[events.Case(small.id, small.values())], rounds=12, runs=12)
    found = insights(make(tmp_path / "s", [small, large], extra=[dropped]))
    assert [point.batch for impact in found.batches for point in impact.points] == [1, 8]
    assert found.cases[-1].roofline.stage("prefill").flops == 8 * found.cases[0].roofline.stage("prefill").flops  # type: ignore[union-attr]


def test_few_rounds_have_no_interval_and_one_frame_count_no_line(tmp_path: Path) -> None:
    fit = fit_of(insights(make(tmp_path / "s", FRAMES, rounds=5)), "encode")
    assert (fit.a_low, fit.b_high) == (None, None)
    assert insights(make(tmp_path / "t", FRAMES[:1])).fits == ()


def test_frames_are_compared_within_one_batch_only(tmp_path: Path) -> None:
    cases = [Case(frames, batch, 32) for frames in (1, 2) for batch in (1, 2)]
    found = insights(make(tmp_path / "s", cases))
    assert sorted({(fit.batch, fit.frames) for fit in found.fits}) == [(1, (1, 2)), (2, (1, 2))]
    assert [[point.batch for point in impact.points] for impact in found.batches] == [[1, 2], [1, 2]]


def test_a_batch_makes_a_sequence_cheaper_where_decode_shares_its_weights(tmp_path: Path) -> None:
    (impact,) = insights(make(tmp_path / "s", [Case(1, batch, 32) for batch in (1, 2, 4)])).batches
    one, two, four = impact.points
    assert one.efficiency == 1
    assert 1 < two.efficiency < four.efficiency < 4
    assert four.tokens_per_second is not None
    assert one.tokens_per_second is not None
    assert four.tokens_per_second == pytest.approx(4 * one.tokens_per_second, rel=0.15)


def test_eventgpt_stands_beside_it_labelled(tmp_path: Path) -> None:
    view = make(tmp_path / "s", FRAMES[:1])
    (published,) = insights(view).beside
    assert published.model == "EventGPT"
    assert UNVERIFIED in published.label
    assert [step.share for step in published.steps] == [0.0988, 0.0241, 0.1880, 0.0147, 0.6745]

    other = make(tmp_path / "e", FRAMES[:1], header={"pipeline": "eventgpt", "model": "eventgpt-7b"})
    (measured,) = insights(view, beside=other).beside
    assert measured.model == "eventgpt-7b"
    assert "session e" in measured.label
    assert UNVERIFIED not in measured.label
    assert measured.steps[2].ns is not None
    # And beside a session of EventGPT stands LLaVA.
    assert insights(other).beside[0].model == "LLaVA-7B"


def test_an_empty_session_is_analysed_too(tmp_path: Path) -> None:
    view = make(tmp_path / "s", FRAMES, rounds=0)
    found = analyze(view)
    assert found.insights.measured_runs == 0
    assert found.advice == ()
    assert found.insights.fits == ()
    before = analyze(view.timeline.at(-1))
    assert before.insights.cases == ()


def test_a_moment_in_the_past_is_analysed_as_it_was(tmp_path: Path) -> None:
    view = make(tmp_path / "s", FRAMES)
    half = view.timeline.at(int(view.runs["t"][17]))
    assert insights(half).measured_runs == 18
