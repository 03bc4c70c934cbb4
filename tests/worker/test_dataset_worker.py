"""A data set in a course: every item is measured once in every case, what cannot be read is recorded and left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_fakes import MemoryStream, make_course

from llava_tui.events import BrokenItem, Ended, RunEnd, RunStart, Schedule, StateChange
from llava_tui.plan import Plan, from_dict
from llava_tui.session_files import Item
from llava_tui.worker.batches import Batches


def plan_of(**values: Any) -> Plan:
    fixed = {"warmup": 1, "self_test": False, "cool_down": False, "new_tokens": [5], "frames": [1]}
    return from_dict(fixed | values)


def items_of(count: int) -> list[Item]:
    return [Item(f"/clips/{number}.mp4", f"What is {number}?") for number in range(count)]


def measured(stream: MemoryStream) -> Counter[tuple[str, int]]:
    """How often each item was measured in each case."""
    well = {end.run for end in stream.of(RunEnd) if end.outcome == "ok" and end.kind != "discarded"}
    starts = [start for start in stream.of(RunStart) if start.kind in ("measured", "partial") and start.run in well]
    return Counter((start.case, item) for start in starts for item in start.items)


def test_one_pass_takes_every_item_once_and_the_last_batch_is_apart(tmp_path: Path) -> None:
    stream, plan = MemoryStream(), plan_of(batch=[3], frames=[1, 2])
    course, pipeline, _ = make_course(tmp_path, plan, stream, items=items_of(8))
    assert course.run() == 0
    cases = [case.id for case in plan.cases()]
    assert measured(stream) == {(case, item): 1 for case in cases for item in range(8)}
    starts = [start for start in stream.of(RunStart) if start.round is not None]
    assert {(start.round, start.kind, tuple(start.items)) for start in starts} == {
        (0, "measured", (0, 1, 2)),
        (1, "measured", (3, 4, 5)),
        (2, "partial", (6, 7)),
    }
    assert {start.item for start in starts} == {"0.mp4 +2", "3.mp4 +2", "6.mp4 +1"}
    assert {tuple(start.items) for start in stream.of(RunStart) if start.kind == "warm-up"} == {(0, 1, 2)}
    assert [item.prompt for item in pipeline.used[-1]] == ["What is 6?", "What is 7?"]
    assert all(len(end.token_ids) == 1 for end in stream.of(RunEnd)[1:])
    assert stream.of(Ended)[-1].text == "one pass over 8 items, as planned"
    assert stream.of(Schedule)[-1].runs == stream.of(RunEnd)[-1].run
    assert course.summary.document("closed", "")["cases"][cases[0]]["measured"] == 2, "full batches alone"


def test_a_number_of_rounds_is_that_many_passes(tmp_path: Path) -> None:
    stream, plan = MemoryStream(), plan_of(batch=[1, 2], rounds=2)
    course, _, _ = make_course(tmp_path, plan, stream, items=items_of(3))
    assert course.run() == 0
    assert measured(stream) == {(case.id, item): 2 for case in plan.cases() for item in range(3)}
    assert stream.of(Schedule)[-1].rule == "2 passes over 3 items"
    assert stream.of(Schedule)[-1].runs == stream.of(RunEnd)[-1].run


broken = st.sets(st.integers(0, 8), max_size=8)


@given(count=st.integers(1, 9), bad=broken, batches=st.sampled_from([[1], [2], [4], [1, 3]]), passes=st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_whatever_is_broken_all_else_is_measured_once_a_pass(
    tmp_path_factory: pytest.TempPathFactory, count: int, bad: set[int], batches: list[int], passes: int
) -> None:
    stream, plan = MemoryStream(), plan_of(batch=batches, rounds=passes)
    course, pipeline, _ = make_course(tmp_path_factory.mktemp("s"), plan, stream, items=items_of(count))
    pipeline.broken = {f"{number}.mp4": "no such file" for number in bad}
    bad = {item for item in bad if item < count}
    code = course.run()
    good = set(range(count)) - bad
    assert code == (0 if good else 3)
    assert measured(stream) == {(case.id, item): passes for case in plan.cases() for item in good}
    told = stream.of(BrokenItem)
    assert len(told) == len({one.item for one in told}), "each is told once"
    assert {one.item for one in told} == bad
    ended = {end.run: end.outcome for end in stream.of(RunEnd)}
    assert all(ended[one.run] == "broken-input" for one in told)
    full = {start.run: len(start.items) for start in stream.of(RunStart) if start.kind == "measured"}
    sizes = {case.id: case.batch for case in plan.cases()}
    starts = {start.run: start for start in stream.of(RunStart)}
    assert all(size in (sizes[starts[run].case], 0) for run, size in full.items())
    assert stream.of(Schedule)[-1].runs == stream.of(RunEnd)[-1].run


def test_a_broken_item_of_a_batch_is_said_and_the_others_run_again_without_it(tmp_path: Path) -> None:
    stream, plan = MemoryStream(), plan_of(batch=[3], warmup=0)
    course, pipeline, _ = make_course(tmp_path, plan, stream, items=items_of(6))
    pipeline.broken = {"4.mp4": "no such file; check the path"}
    assert course.run() == 0
    (event,) = stream.of(BrokenItem)
    assert (event.item, event.name, event.reason) == (4, "4.mp4", "4.mp4: no such file; check the path")
    ends = {end.run: (end.outcome, end.reason) for end in stream.of(RunEnd)}
    assert ends[event.run] == ("broken-input", "4.mp4: no such file; check the path")
    last = [start for start in stream.of(RunStart) if start.round == 1]
    assert [(start.kind, start.items) for start in last] == [("measured", [3, 4, 5]), ("partial", [3, 5])]
    final = stream.of(StateChange)[-1]
    assert (final.state, final.reason) == (
        "closed",
        "1 of 6 inputs left out: 4.mp4: no such file; check the path",
    )


def test_when_no_item_can_be_read_the_session_has_failed_and_says_why(tmp_path: Path) -> None:
    stream = MemoryStream()
    course, pipeline, _ = make_course(tmp_path, plan_of(), stream, items=items_of(3))
    pipeline.broken = {f"{number}.mp4": "no such file" for number in range(3)}
    assert course.run() == 3
    final = stream.of(StateChange)[-1]
    assert final.state == "failed"
    assert final.reason == ("none of 3 inputs can be read: 0.mp4: no such file; 1.mp4: no such file; and 1 more")


def test_an_out_of_memory_is_the_cases_and_not_the_items(tmp_path: Path) -> None:
    stream, plan = MemoryStream(), plan_of(frames=[1, 2])
    first, second = (case.id for case in plan.cases())
    course, _, _ = make_course(tmp_path, plan, stream, items=items_of(4), faults={(first, 4): MemoryError("full")})
    assert course.run() == 0
    assert not stream.of(BrokenItem)
    assert sum(count for (case, _), count in measured(stream).items() if case == second) == 4


def test_several_inputs_that_are_no_data_set_fill_every_round_with_those_that_can_be_read(tmp_path: Path) -> None:
    stream = MemoryStream()
    course, pipeline, _ = make_course(tmp_path, plan_of(inputs=["/a.mp4", "/b.mp4"], rounds=4, warmup=0), stream)
    pipeline.broken = {"b.mp4": "cut short"}
    assert course.run() == 0
    runs = [start for start in stream.of(RunStart) if start.kind == "measured"]
    assert [start.items for start in runs] == [[0], [1], [0], [0], [0]]
    assert stream.of(BrokenItem)[0].name == "b.mp4"


def test_the_only_input_breaking_is_the_cases_failure(tmp_path: Path) -> None:
    stream = MemoryStream()
    course, pipeline, _ = make_course(tmp_path, plan_of(inputs=["/a.mp4"]), stream)
    pipeline.broken = {"a.mp4": "cut short"}
    assert course.run() == 3
    assert stream.of(RunEnd)[-1].outcome == "failed"
    assert not stream.of(BrokenItem)


def test_the_time_limit_ends_a_data_set_between_two_rounds(tmp_path: Path) -> None:
    stream = MemoryStream()
    course, _, _ = make_course(tmp_path, plan_of(time_limit_s=0.2), stream, items=items_of(100))
    assert course.run() == 0
    assert stream.of(Ended)[-1].rule == "time limit"
    assert 0 < len(measured(stream)) < 10


@pytest.mark.parametrize("verb", ["extend", "repeat"])
def test_more_rounds_of_a_data_set_begin_with_its_first_items(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_tui.session.control import send

    stream, plan = MemoryStream(), plan_of(batch=[2])
    course, _, control = make_course(tmp_path, plan, stream, items=items_of(4))
    case = plan.cases()[0].id
    send(tmp_path, verb, case=case, rounds=1)
    control.look()
    assert course.run() == 0
    assert measured(stream)[case, 0] == 2
    assert measured(stream)[case, 3] == 1


def test_items_that_a_damaged_stream_says_were_done_and_are_not_there_are_passed_over() -> None:
    plan = from_dict({"pipeline": "simulated", "dataset": "set.jsonl", "frames": [1]})
    batches = Batches(plan, [Item(path=f"{number}.mp4", id=str(number)) for number in range(3)])
    case = plan.cases()[0]
    batches.restore(
        plan, {(case.id, 0): [0, 7, -2], (case.id, 900): [1], ("gone", 0): [1]}, {-1: "?", 3: "?", 2: "cut"}
    )
    assert batches.broken == {2: "cut"}
    assert batches.left(case) == 1
    assert batches.of(case, 1) == (1,)
