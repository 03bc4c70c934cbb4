"""Whatever goes wrong ends a run, a case or the session with its reason, and keeps what came before."""

import errno
import logging
import sys
from types import SimpleNamespace

import pytest
from worker_fakes import FakePipeline, MemoryStream, make_course

from llava_tui.events import Answer, Log, Profile, RunEnd, RunStart, Schedule, StageTree, StateChange
from llava_tui.pipelines.base import PipelineError
from llava_tui.session.control import send
from llava_tui.worker import memory, microscope
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.sink import EventSink, LogEvents

TWO = {"frames": [1, 2], "rounds": 2, "new_tokens": [5]}
F1, F2 = "f1-b1-n5", "f2-b1-n5"


@pytest.fixture
def stream():
    return MemoryStream()


def ended(stream, outcome="ok"):
    """(kind, case) of the runs that ended so."""
    begun = {event.run: event for event in stream.of(RunStart)}
    return [(begun[e.run].kind, begun[e.run].case) for e in stream.of(RunEnd) if e.outcome == outcome]


def last_state(stream):
    state = stream.of(StateChange)[-1]
    return state.state, state.reason


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (ValueError("bad\x1b[31m shape"), "failed", "ValueError: bad shape"),
        (PipelineError("clip.mp4 cannot be decoded"), "failed", "clip.mp4 cannot be decoded"),
        (MemoryError("no room"), "out-of-memory", "out of memory: no room"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB"), "out-of-memory", "out of memory: Default"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out-of-memory", "out of"),
        (SystemError(), "failed", "SystemError"),
    ],
)
def test_a_failing_case_does_not_end_the_others(tmp_path, plan, stream, capsys, error, outcome, reason):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream, faults={(F2, 2): error})
    assert course.run() == 0
    assert ended(stream, outcome) == [("measured", F2)]
    (end,) = [event for event in stream.of(RunEnd) if event.outcome == outcome]
    assert end.reason.startswith(reason)
    assert [kind for kind, case in ended(stream) if case == F1].count("measured") == 2
    assert [kind for kind, case in ended(stream) if case == F2] == ["warm-up", "cross-check"]
    state, why = last_state(stream)
    assert state == "closed"
    assert why.startswith(f"1 of 2 cases failed: {F2}: {reason}")
    assert [case.id for case in stream.of(Schedule)[-1].cases] == [F1]
    assert stream.of(Schedule)[-1].runs == len(stream.of(RunEnd)) - 1
    assert ("Traceback" in capsys.readouterr().err) is not isinstance(error, PipelineError)
    assert pipeline.closed


def test_a_case_that_cannot_be_prepared_ends_alone(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.unprepared = {F1: MemoryError("no room for a second copy")}
    assert course.run() == 0
    assert ended(stream, "out-of-memory") == [("cold", F1)]
    assert [kind for kind, case in ended(stream) if case == F2] == ["cold", "warm-up", "cross-check", *["measured"] * 2]
    assert last_state(stream)[0] == "closed"


def test_a_measured_run_that_was_disturbed_is_run_again_and_counts_nowhere(tmp_path, plan, stream):
    """Whatever is compiled in a warm-up run is out of the statistics anyway."""
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.disturbed = {(F2, 1), (F2, 2), (F2, 4)}  # the warm-up; both rounds, once each
    assert course.run() == 0
    begun = {event.run: event for event in stream.of(RunStart)}
    ends = [(end.kind or begun[end.run].kind, end.reason) for end in stream.of(RunEnd) if begun[end.run].case == F2]
    again = ("discarded", "compiled in it")
    assert ends == [("warm-up", ""), ("cross-check", ""), again, ("measured", ""), again, ("measured", "")]
    assert sorted(begun[end.run].round for end in stream.of(RunEnd) if begun[end.run].kind == "measured") == [
        *(0, 0, 0),
        *(1, 1, 1),
    ]
    assert last_state(stream) == ("closed", "")


def test_a_case_that_is_disturbed_in_every_run_is_given_up(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.disturbed = {(F2, count) for count in range(100)}
    assert course.run() == 0
    assert [kind for kind, case in ended(stream) if case == F1].count("measured") == 2
    assert last_state(stream) == ("closed", f"1 of 2 cases failed: {F2}: compiled in it, in 4 measured runs")


@pytest.mark.parametrize("where", ["in a run", "between runs"])
def test_a_lost_device_ends_the_session_and_no_run_is_left_open(tmp_path, plan, stream, where):
    """An illegal access poisons the whole context: from then on everything that is asked of the device fails."""
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)

    def gone(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress`")

    def poison():
        pipeline.clock.start_run = gone
        finish = pipeline.clock.finish_run
        pipeline.clock.finish_run = gone
        if where == "in a run":
            gone()
        # This run has its end still.
        pipeline.clock.finish_run = lambda: (setattr(pipeline.clock, "finish_run", gone), finish())[1]

    pipeline.faults = {(F1, 2): poison}
    assert course.run() == 3
    assert {end.run for end in stream.of(RunEnd)} == {start.run for start in stream.of(RunStart)}
    last = stream.of(RunEnd)[-1]
    assert (last.run, last.outcome) == (2 if where == "in a run" else 3, "failed")
    assert last.reason.startswith("RuntimeError: CUDA error: an illegal memory access")
    why = f"the device was lost in run {last.run}: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert last_state(stream) == ("failed", why)


def test_memory_that_is_not_given_back_harms_nothing(monkeypatch, caplog):
    def gone():
        raise RuntimeError("CUDA error: unspecified launch failure")

    torch = SimpleNamespace(get_device_module=lambda device: SimpleNamespace(empty_cache=gone))
    monkeypatch.setitem(sys.modules, "torch", torch)
    memory.release("cuda:0")
    assert "not given back: CUDA error: unspecified launch failure" in caplog.text


@pytest.mark.parametrize("where", ["made", "entered"])
def test_a_profiler_that_does_not_start_ends_its_run(tmp_path, plan, stream, monkeypatch, where):
    class Forbidden:
        def __init__(self, device):
            if where == "made":
                raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

        def __enter__(self):
            raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(microscope, "Microscope", Forbidden)
    course, _, _ = make_course(tmp_path, plan(pipeline="llava", frames=[1], rounds=2, profile=True), stream)
    assert course.run() == 0
    assert stream.of(RunStart)[-1].kind == "profile"
    last = stream.of(RunEnd)[-1]
    assert (last.run, last.outcome) == (stream.of(RunStart)[-1].run, "failed")
    assert last.reason == "RuntimeError: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"
    assert [profile.problem for profile in stream.of(Profile)] == [last.reason]
    assert last_state(stream) == ("closed", "")


def test_every_case_fails(tmp_path, plan, stream):
    course, _, _ = make_course(
        tmp_path, plan(**TWO), stream, faults={(F1, 1): ValueError("a"), (F2, 1): ValueError("b")}
    )
    assert course.run() == 3
    assert last_state(stream) == ("failed", f"{F1}: ValueError: a; {F2}: ValueError: b")
    assert ended(stream, "failed") == [("cold", F1), ("cold", F2)], "the second case's first run was the cold one"


def test_tokens_that_differ_from_plain_generate_are_not_trusted(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.reference_ids = [[1, 2, 3, 9, 5]]
    assert course.run() == 3
    state, why = last_state(stream)
    assert state == "failed"
    assert "token 4 of sequence 1 is 4 against 9" in why
    assert ended(stream, "failed") == [("cross-check", F1), ("cross-check", F2)]
    assert "measured" not in [kind for kind, _ in ended(stream)]


@pytest.mark.parametrize(
    ("ids", "words"),
    [([[1, 2, 3, 4]], "5 tokens against 4"), ([[1, 2, 3, 4, 5], [1]], "1 sequences against 2")],
)
def test_a_difference_in_length_is_one_too(tmp_path, plan, stream, ids, words):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.reference_ids = ids
    assert course.run() == 3
    assert words in last_state(stream)[1]


def test_the_cross_check_is_recorded_and_carries_no_times(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO, warmup=0), stream)
    assert course.run() == 0
    checks = [e for e in stream.of(RunEnd) if "cross_check" in e.facts]
    assert [e.facts["cross_check"] for e in checks] == ["equal", "equal"]
    assert all(e.stages == [] and e.token_times == [] and e.wall >= 0 for e in checks)
    # Without a warm-up the second case had no run of its own to compare: the cross-check made one, outside the times.
    assert pipeline.counts == {F1: 3, F2: 3}


def test_encoding_twice_is_not_trusted(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.vision_calls = 2
    assert course.run() == 3
    assert "the vision tower ran 2 times" in last_state(stream)[1]


def test_a_model_that_does_not_load(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.load_error = PipelineError("no such model: x; give a folder")
    assert course.run() == 3
    assert last_state(stream) == ("failed", "no such model: x; give a folder")
    assert [(e.run, e.outcome) for e in stream.of(RunEnd)] == [(0, "failed")]


def test_a_fault_of_ours_is_not_an_interruption(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.check_case = None
    assert course.run() == 3
    assert last_state(stream)[1].startswith("a fault of llava-tui (TypeError")


def test_refused_cases_are_told_and_left_out(tmp_path, plan, stream):
    course, pipeline, _ = make_course(tmp_path, plan(**TWO), stream)
    pipeline.refuse = {F1: "8 frames overflow the context"}
    assert course.run() == 0
    assert {case for _, case in ended(stream)} == {"", F2}
    assert ended(stream)[1] == ("cold", F2)
    assert last_state(stream) == ("closed", f"1 of 2 cases failed: {F1}: 8 frames overflow the context")


def test_a_full_disk_ends_the_session_with_its_reason(tmp_path, plan, stream):
    """Wherever it fills up: at a hint in the middle of a run, at a run's end, at the last word."""
    values = plan(frames=[1], rounds=2)
    assert make_course(tmp_path, values, stream)[0].run() == 0
    for full_at in range(len(stream.events)):
        full = MemoryStream(full_at)
        course, pipeline, _ = make_course(tmp_path, values, full)
        assert course.run() == 3
        state, reason = last_state(full)
        assert state == "failed"
        assert reason.startswith("disk full")
        assert pipeline.closed or not full.of(StageTree), "what was opened is closed"
        begun, over = {e.run for e in full.of(RunStart)}, {e.run for e in full.of(RunEnd)}
        assert over <= begun
        assert begun - over == set(), "every run that began has its end"


def test_a_run_that_is_not_safely_on_the_disk_is_written_once(tmp_path, plan, stream):
    course, _, _ = make_course(tmp_path, plan(frames=[1], rounds=2), stream)
    sync = stream.sync

    def broken():
        if len(stream.of(RunEnd)) == 4:
            raise OSError(errno.EIO, "Input/output error")
        sync()

    stream.sync = broken
    assert course.run() == 3
    assert [(end.run, end.outcome) for end in stream.of(RunEnd)] == [(run, "ok") for run in range(4)]
    state, reason = last_state(stream)
    assert (state, reason.startswith("the session cannot be written: Input/output error")) == ("failed", True)


def test_a_full_disk_met_by_a_log_record_is_not_forgotten(tmp_path, plan, stream):
    course, _, _ = make_course(tmp_path, plan(**TWO), stream)
    handler = LogEvents(course._sink, SimulatedClock(0))
    stream.full_at = 0
    handler.emit(logging.LogRecord("llava_tui.x", logging.INFO, "", 0, "hello", None, None))
    assert course.run() == 3
    assert last_state(stream)[1].startswith("disk full")


def test_log_records_become_events_without_control_sequences():
    stream = MemoryStream()
    handler = LogEvents(EventSink(stream), SimulatedClock(0))
    record = logging.LogRecord(
        "llava_tui.pipelines.llava", logging.WARNING, "", 0, "odd \x1b]0;x\x07file %s", ("a",), None
    )
    handler.emit(record)
    (event,) = stream.of(Log)
    assert (event.level, event.text, event.source) == ("warning", "odd file a", "pipelines")


def test_a_run_is_on_the_disk_before_the_next_begins(tmp_path, plan):
    stream = MemoryStream()
    seen = []
    write = stream.write

    def watched(event):
        if isinstance(event, RunStart):
            seen.append(stream.synced == len(stream.events) or not isinstance(stream.events[-1], RunEnd))
        write(event)

    stream.write = watched
    course, _, _ = make_course(tmp_path, plan(frames=[1], rounds=4), stream)
    assert course.run() == 0
    assert len(seen) > 5
    assert all(seen)


def test_rounds_go_through_the_inputs(tmp_path, plan, stream):
    values = {"frames": [1], "batch": [2], "rounds": 3, "warmup": 0, "inputs": ["a.mp4", "b.mp4", "c.mp4"]}
    course, pipeline, _ = make_course(tmp_path, plan(**values), stream)
    pipeline.reference_ids = None
    assert course.run() == 0
    assert pipeline.used == [("a.mp4", "b.mp4"), ("a.mp4", "b.mp4"), ("c.mp4", "a.mp4"), ("b.mp4", "c.mp4")]
    assert [e.item for e in stream.of(RunStart)][1:4] == ["a.mp4 +1", "a.mp4 +1", "a.mp4 +1"]


def test_a_signal_in_the_middle_of_a_run(tmp_path, plan, stream):
    course, pipeline, control = make_course(tmp_path, plan(**TWO), stream)

    def interrupt():
        control.interrupt("stopped by SIGTERM")
        control._looked = 0  # Time to look again.

    pipeline.faults = {(F1, 2): interrupt}
    assert course.run() == 0
    assert last_state(stream) == ("stopped", "stopped by SIGTERM")
    assert ended(stream, "cancelled") == [("warm-up", F1)]
    assert isinstance(pipeline, FakePipeline)
    assert pipeline.closed


def test_a_stop_in_the_last_run_leaves_nothing_out(tmp_path, plan, stream):
    course, pipeline, control = make_course(tmp_path, plan(**TWO), stream)

    def stop():
        if len(stream.of(RunEnd)) == 9:  # All but the last: load, cold, 2 warm-ups, 2 cross-checks, 3 of 4 measured.
            send(tmp_path, "stop")
            control._looked = 0

    pipeline.faults = {(case, count): stop for case in (F1, F2) for count in range(1, 6)}
    assert course.run() == 0
    assert len(ended(stream)) == 10
    assert last_state(stream) == ("closed", "")


def test_what_comes_too_late_is_answered(tmp_path, plan, stream):
    course, _, _ = make_course(tmp_path, plan(**TWO), stream)
    write = stream.write

    def watched(event):
        if isinstance(event, StateChange) and event.state == "closing":
            send(tmp_path, "extend", rounds=3)
        write(event)

    stream.write = watched
    assert course.run() == 0
    (answer,) = stream.of(Answer)
    assert (answer.accepted, answer.text) == (False, "the session is over")
