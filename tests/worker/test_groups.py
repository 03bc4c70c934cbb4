"""Models that do not fit into memory together: one group of cases after the other, each with rounds of its own."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_fakes import MemoryStream, make_course

from llava_tui import events
from llava_tui.analysis.comparison import Comparison, Side, compare
from llava_tui.plan import Case, Plan, from_dict
from llava_tui.report.facts import head
from llava_tui.session.control import send
from llava_tui.session.timeline import Timeline
from llava_tui.worker.schedule import Planned, Schedule

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def plan(**values: object) -> Plan:
    fixed = {"quantization": "none,bnb-8bit", "frames": [1, 2], "rounds": 3, "warmup": 1, "self_test": False}
    return from_dict({**fixed, **values})


def grouped(of: Plan) -> tuple[Schedule, list[list[str]]]:
    groups = [[case.id for case in of.cases() if of.load_of(case) == load] for load in of.loads()]
    schedule = Schedule(of)
    schedule.group(groups)
    return schedule, groups


def all_runs(schedule: Schedule) -> list[Planned]:
    runs = []
    while (planned := schedule.take()) is not None:
        runs.append(planned)
        if planned.kind == "cold":
            schedule.cold_started()
        assert len(runs) < 1000
    return runs


def test_a_groups_rounds_are_over_before_the_next_is_loaded() -> None:
    schedule, (first, second) = grouped(plan())
    total = schedule.event(0).runs
    runs = all_runs(schedule)
    load = [planned.kind for planned in runs].index("load")
    assert {planned.case.id for planned in runs[:load]} == set(first)
    assert {planned.case.id for planned in runs[load:]} == set(second)
    assert [planned.kind for planned in runs[load : load + 2]] == ["load", "cold"]
    assert Counter(planned.kind for planned in runs) == {
        "cold": 2, "load": 1, "warm-up": 4, "cross-check": 4, "measured": 12,
    }  # fmt: skip
    assert total == len(runs), "what is told beforehand is what comes"
    for group in (runs[:load], runs[load:]):
        rounds = [planned.round for planned in group if planned.kind == "measured"]
        assert rounds == sorted(rounds), "within a group cases interleave, round by round"
    assert "in 2 groups, one after the other: 3 rounds; 3 rounds, as planned" in schedule.ended(0).text


def test_a_group_of_which_nothing_is_left_is_never_loaded() -> None:
    schedule, (_, second) = grouped(plan())
    left = schedule.left()
    assert schedule.skip(second[0]) == 1 + 1 + 3
    schedule.drop(second[1], "refused")
    assert schedule.left() < left - 5
    assert "load" not in {planned.kind for planned in all_runs(schedule)}


def test_the_profiled_run_is_the_last_and_the_self_test_runs_once() -> None:
    schedule, (first, second) = grouped(plan(profile=True, self_test=True))
    runs = all_runs(schedule)
    assert (runs[-1].kind, runs[-1].case.id in second) == ("profile", True)
    tested = {planned.case.id for planned in runs if planned.kind == "self-test"}
    assert tested == {first[0]}


def test_a_time_limit_is_shared_by_the_groups() -> None:
    schedule, (_, second) = grouped(plan(rounds=50, time_limit_s=10.0))
    now, measured = 0, Counter[bool]()
    while (planned := schedule.take(now)) is not None:
        if planned.kind == "cold":
            schedule.cold_started()
        now += 500_000_000
        if planned.kind == "measured":
            measured[planned.case.id in second] += 1
    assert 5 <= measured[False] <= 12
    assert 5 <= measured[True] <= 12


def test_what_a_viewer_asks_for_meets_the_case_where_it_is() -> None:
    schedule, (first, second) = grouped(plan())
    assert schedule.is_away(second[0])
    assert not schedule.is_away(first[0])
    schedule.repeat(first[0])
    runs = all_runs(schedule)
    assert Counter(planned.case.id for planned in runs if planned.kind == "measured")[first[0]] == 4
    assert schedule.is_away(first[0])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    rounds=st.integers(1, 4),
    lost=st.sets(st.integers(0, 11), max_size=6),
)
def test_every_case_has_all_its_rounds_however_cases_are_grouped_and_lost(
    sizes: list[int], rounds: int, lost: set[int]
) -> None:
    of = from_dict({"frames": list(range(1, sum(sizes) + 1)), "rounds": rounds, "warmup": 0, "self_test": False})
    names = [case.id for case in of.cases()]
    groups = [names[sum(sizes[:place]) : sum(sizes[: place + 1])] for place in range(len(sizes))]
    schedule = Schedule(of)
    schedule.group(groups)
    gone = {names[place] for place in lost if place < len(names)}
    for name in gone:
        schedule.skip(name)
    runs = all_runs(schedule)
    measured = Counter(planned.case.id for planned in runs if planned.kind == "measured")
    assert measured == {name: rounds for name in names if name not in gone}
    order = [next(place for place, group in enumerate(groups) if planned.case.id in group) for planned in runs]
    assert order == sorted(order)
    assert schedule.left() == 0


def course_of_groups(folder: Path, groups: list[list[str]], lost: dict[int, Exception]) -> tuple[Any, ...]:
    """A course over a pipeline that holds one group of models at a time, and fails to load those in ``lost``."""
    stream = MemoryStream()
    of = from_dict({"pipeline": "simulated", "frames": [1, 2], "rounds": 2, "warmup": 1, "new_tokens": [5]})
    course, pipeline, control = make_course(folder, of, stream)
    load = pipeline.load

    def load_group(probe: Any, group: int = 0) -> events.ModelFacts:
        if group in lost:
            raise lost[group]
        made: events.ModelFacts = load(probe)
        probe.begin("load.device")
        probe.end("load.device")
        return made

    pipeline.load, pipeline.groups = load_group, groups  # type: ignore[method-assign, attr-defined]
    return course, pipeline, control, stream


def kinds(stream: MemoryStream) -> list[tuple[str, str, str]]:
    """Each run's kind, case and outcome."""
    begun = {event.run: event for event in stream.of(events.RunStart)}
    return [(begun[end.run].kind, begun[end.run].case, end.outcome) for end in stream.of(events.RunEnd)]


def test_a_group_that_cannot_be_loaded_ends_its_cases_and_no_others(tmp_path: Path) -> None:
    course, _, _, stream = course_of_groups(tmp_path, [["f1-b1-n5"], ["f2-b1-n5"]], {1: MemoryError("no room")})
    assert course.run() == 0
    runs = kinds(stream)
    assert ("load", "", "out-of-memory") in runs
    assert [outcome for kind, case, outcome in runs if case == "f1-b1-n5" and kind == "measured"] == ["ok", "ok"]
    assert not any(case == "f2-b1-n5" for _, case, _ in runs)
    state = stream.of(events.StateChange)[-1]
    assert state.state == "closed"
    assert "1 of 2 cases failed: f2-b1-n5: out of memory: no room" in state.reason
    assert len({start.run for start in stream.of(events.RunStart)}) == len(runs), "every run has a number of its own"


def test_what_is_not_in_memory_cannot_be_repeated_and_the_viewer_is_told(tmp_path: Path) -> None:
    course, pipeline, control, stream = course_of_groups(tmp_path, [["f1-b1-n5"], ["f2-b1-n5"]], {})
    run = pipeline.run

    def ask(case: Case, *rest: Any) -> Any:
        if case.frames == 1 and pipeline.counts.get(case.id) == 3:
            send(tmp_path, "repeat", case="f2-b1-n5")
            send(tmp_path, "repeat", case="f1-b1-n5")
            control._looked = 0
        return run(case, *rest)

    pipeline.run = ask
    assert course.run() == 0
    answers = [(answer.accepted, answer.text) for answer in stream.of(events.Answer)]
    assert answers == [(False, "f2-b1-n5: its model is not in memory now"), (True, "f1-b1-n5: one run more")]
    measured = Counter(case for kind, case, _ in kinds(stream) if kind == "measured")
    assert measured == {"f1-b1-n5": 3, "f2-b1-n5": 2}


@pytest.mark.models
def test_a_session_whose_models_do_not_fit_together_runs_one_after_the_other_and_says_so(
    cli: Cli, sessions: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The worker itself: a genuine model in two dtypes, and memory for one of them."""
    from llava_tui.pipelines.checkpoints import build_tiny, synthesise_video

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny = build_tiny(tmp_path / "tiny")
    clip = synthesise_video(tmp_path / "clip.mp4", seconds=1, size=(64, 48))
    ran = cli(
        *("run", "--model", str(tiny), "--input", str(clip), "--device", "cpu", "--frames", "1,2"),
        *("--new-tokens", "4", "--dtype", "float32,bfloat16", "--max-memory", "cpu=700KiB", "--rounds", "6"),
        *("--warmup", "1", "--no-self-test", "--headless", "--json"),
    )
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert len(document["cases"]) == 4
    view = Timeline.open(sessions / document["id"]).now()
    runs = [(row["kind"], row["case"]) for row in view.runs.rows()]
    assert runs[0] == ("load", "")
    second = [kind for kind, _ in runs].index("load", 1)
    assert {case.rpartition("-")[2] for _, case in runs[1:second]} == {"float32"}
    assert {case.rpartition("-")[2] for _, case in runs[second + 1 :]} == {"bfloat16"}
    assert [kind for kind, _ in runs].count("cold") == 2
    loads = view.model.extra["loads"] if view.model is not None else []
    assert [(each["dtype"], each["group"]) for each in loads] == [("float32", 0), ("bfloat16", 1)]
    assert loads[1]["weights_bytes"] * 2 == loads[0]["weights_bytes"]
    assert "2 groups, one in memory after the other: float32; then bfloat16" in "\n".join(head(view))

    def compared(a: str, b: str) -> Comparison:
        return compare([Side("s", (view,), f"f1-b1-n4-{a}"), Side("s", (view,), b)])[0]

    apart = compared("float32", "f1-b1-n4-bfloat16")
    assert (apart.method, apart.reasons) == ("single session", ())
    assert any("not interleaved (each on a model of its own)" in note for note in apart.notes)
    assert compared("float32", "f2-b1-n4-float32").method == "paired rounds"
