"""What a course does for its figures' sake: looks at the machine, tests itself, takes back what was disturbed."""

import os

import msgspec
import pytest
from worker_fakes import MemoryStream, make_course

from llava_tui.events import (
    Answer,
    CoolDown,
    Ended,
    GpuAbsent,
    GpuDevice,
    GpuProcess,
    GpuSample,
    Log,
    Preflight,
    RunEnd,
    RunStart,
    Schedule,
    SelfTest,
    StateChange,
    WarmUp,
)
from llava_tui.session.control import send
from llava_tui.session.writer import StreamWriter
from llava_tui.worker import preflight
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.cooling import Cooling
from llava_tui.worker.recorder import Recorder
from llava_tui.worker.vitals import Vitals

F1 = "f1-b1-n5"
LOAD = 10**9
"""``t`` at which our own memory may come onto the GPU, where a test says no other."""


@pytest.fixture
def stream():
    return MemoryStream()


def ended(stream):
    """(kind, round, outcome) of every run after loading, as it ended."""
    begun = {event.run: event for event in stream.of(RunStart)}
    return [(end.kind or begun[end.run].kind, begun[end.run].round, end.outcome) for end in stream.of(RunEnd)][1:]


def kinds(stream):
    return [kind for kind, _, _ in ended(stream)]


# --- the self-test ------------------------------------------------------------------------------------------------


def measuring_costs(pipeline, ns):
    """Makes every instrumented run of the pipeline that much longer."""
    bare = pipeline.run

    def run(case, inputs, seed, probe):
        result = bare(case, inputs, seed, probe)
        if isinstance(probe, Recorder):
            pipeline.clock.advance(ns)
        return result

    pipeline.run = run


@pytest.mark.parametrize(("cost", "verdict"), [(250_000, "within"), (1_000_000, "above")])
def test_what_measuring_costs_is_found_out_and_told(tmp_path, plan, stream, caplog, cost, verdict):
    """Runs of 50 ms, lengthened by what measuring is made to cost."""
    values = {"pipeline": "llava", "new_tokens": [5], "frames": [1, 2], "rounds": 2, "self_test": True}
    course, pipeline, _ = make_course(tmp_path, plan(**values), stream)
    measuring_costs(pipeline, cost)
    assert course.run() == 0
    (test,) = stream.of(SelfTest)
    assert (test.case, test.verdict, len(test.bare), test.coverage) == (F1, verdict, 5, 0.9375)
    assert test.overhead == test.low == test.high == pytest.approx(cost / 50e6)
    assert ("more than 1 %" in caplog.text) is (verdict == "above")
    ends = [end.facts.get("self_test") for end in stream.of(RunEnd)]
    pairs = [told for told in ends if told]
    assert [set(pairs[n : n + 2]) for n in range(0, 10, 2)] == [{"bare", "instrumented"}] * 5
    assert pairs[0] != pairs[2], "which of them comes first alternates"
    for end in stream.of(RunEnd):
        assert bool(end.stages) is not (end.facts.get("self_test") == "bare" or "cross_check" in end.facts)
    runs = [event for event in stream.of(RunStart) if event.kind == "self-test"]
    assert len({run.seed for run in runs}) == 1, "all else is equal"
    assert kinds(stream)[-14:] == ["self-test"] * 10 + ["measured"] * 4
    assert course.summary.document("", "")["cases"][F1]["measured"] == 2, "none of it is counted"
    states = [event.state for event in stream.of(StateChange)]
    assert states[states.index("self-test") + 1] == "measuring"


def test_a_self_test_that_fails_says_so_and_the_session_goes_on(tmp_path, plan, stream):
    values = {"pipeline": "llava", "new_tokens": [5], "frames": [1, 2], "rounds": 2, "self_test": True}
    # Cold, warm-up, and two runs of the self-test; the third fails.
    course, _, _ = make_course(tmp_path, plan(**values), stream, faults={(F1, 5): ValueError("odd")})
    assert course.run() == 0
    (test,) = stream.of(SelfTest)
    assert (test.verdict, test.reason) == ("not done", "1 of 5 pairs were run")
    assert kinds(stream)[-2:] == ["measured"] * 2


@pytest.mark.parametrize(("values", "words"), [({"pipeline": "llava"}, "the plan"), ({}, "simulated")])
def test_no_self_test_says_why(tmp_path, plan, stream, values, words):
    course, _, _ = make_course(tmp_path, plan(**values, self_test=values == {}, new_tokens=[5]), stream)
    assert course.run() == 0
    (test,) = stream.of(SelfTest)
    assert words in test.reason
    assert "self-test" not in kinds(stream)


# --- warm-up and rounds by rule -------------------------------------------------------------------------------------


def test_automatic_counts_are_told_with_the_rule_that_ended_them(tmp_path, plan, stream):
    course, pipeline, _ = make_course(
        tmp_path, plan(new_tokens=[5], warmup="auto", rounds="auto"), stream
    )  # fmt: skip
    plain = pipeline.run

    def settling(case, inputs, seed, probe):
        count = pipeline.counts.get(case.id, 0)
        pipeline.clock.advance(max(0, 8 - count) * 10_000_000)  # Steady from the eighth run on.
        return plain(case, inputs, seed, probe)

    pipeline.run = settling
    assert course.run() == 0
    assert kinds(stream) == ["cold"] + ["warm-up"] * 10 + ["cross-check"] + ["measured"] * 10
    (warm,) = stream.of(WarmUp)
    assert (warm.case, warm.runs, warm.rule, warm.spread) == (F1, 10, "steady", 0)
    (end,) = stream.of(Ended)
    assert (end.rule, end.rounds, end.width) == ("interval", 10, 0)
    schedules = stream.of(Schedule)
    assert schedules[0].open
    assert schedules[0].rule == "auto: until every step's interval is within ±1 %, at most 50 rounds"
    assert (schedules[-1].open, schedules[-1].runs) == (False, len(kinds(stream)))
    assert schedules[-1].rule == end.text.split(";")[0]


def test_more_rounds_are_had_while_a_rule_ends_the_others(tmp_path, plan, stream):
    course, pipeline, control = make_course(tmp_path, plan(new_tokens=[5], rounds="auto"), stream)

    def ask():
        send(tmp_path, "extend", rounds=2)
        send(tmp_path, "repeat", case=F1)
        control._looked = 0

    pipeline.faults = {(F1, 5): ask}
    assert course.run() == 0
    answers = stream.of(Answer)
    assert [answer.text for answer in answers] == ["2 more rounds: at most 52 in all", f"{F1}: one run more"]
    assert kinds(stream).count("measured") == 10 + 2 + 1
    (end,) = stream.of(Ended)
    assert (end.rule, end.rounds) == ("interval", 12)


@pytest.mark.parametrize("verb", ["pause", "skip"])
def test_a_self_test_can_be_paused_and_left_out(tmp_path, plan, stream, verb):
    values = {"pipeline": "llava", "new_tokens": [5], "frames": [1, 2], "rounds": 2, "self_test": True}
    course, pipeline, control = make_course(tmp_path, plan(**values), stream)

    def ask():
        send(tmp_path, verb)
        control._looked = 0

    write = stream.write

    def resuming(event):
        write(event)
        if isinstance(event, StateChange) and event.state == "paused":
            send(tmp_path, "resume")
            control._looked = 0

    stream.write = resuming
    pipeline.faults = {(F1, 5): ask}  # The third run of the self-test.
    assert course.run() == 0
    (test,) = stream.of(SelfTest)
    states = [event.state for event in stream.of(StateChange)]
    if verb == "pause":
        at = states.index("paused")
        assert states[at - 1 : at + 2] == ["self-test", "paused", "self-test"]
        assert test.verdict == "within"
    else:
        assert (test.verdict, test.reason) == ("not done", "1 of 5 pairs were run")
        assert kinds(stream)[-2:] == ["measured"] * 2, "those of the other case"


def test_a_stop_is_what_ended_it(tmp_path, plan, stream):
    course, pipeline, control = make_course(tmp_path, plan(new_tokens=[5], rounds="auto"), stream)

    def stop():
        send(tmp_path, "stop", author="me@here")
        control._looked = 0

    pipeline.faults = {(F1, 5): stop}
    assert course.run() == 0
    (end,) = stream.of(Ended)
    assert (end.rule, end.text) == ("stopped", "stopped by me@here")


# --- cool-down ----------------------------------------------------------------------------------------------------


class Gpu:
    """Samples into a telemetry stream as time passes; heats up and throttles as it is told."""

    def __init__(self, folder, clock):
        self.writer = StreamWriter(folder / "telemetry.jsonl")
        self.clock = clock
        self.temperature, self.bits = 40, 0
        self.cooling = 0
        """Degrees a second, while nothing runs."""
        self.due = 0
        clock.passed = self.passed
        self.sample(clock.now())

    def sample(self, t):
        self.writer.write(GpuSample(t=t, gpu=0, temperature_c=round(self.temperature), throttle=self.bits))

    def passed(self, start, end):
        if end >= self.due:
            self.due = end + 10_000_000
            self.sample(end)
        if end - start >= 100_000_000:
            self.temperature -= self.cooling * (end - start) / 1e9


@pytest.fixture
def watched(tmp_path, plan, stream):
    """A course over two rounds of one case whose GPU does what the test says in a run (by the case's count: the cold
    start is 1, the warm-up 2, rounds 3 and on)."""

    def make(does, **values):
        course, pipeline, control = make_course(
            tmp_path,
            plan(**{"new_tokens": [5], "cool_down": True, "rounds": 2} | values),
            stream,
            vitals=Vitals(tmp_path / "telemetry.jsonl"),
        )
        gpu = Gpu(tmp_path, pipeline.clock)
        plain = pipeline.run

        def run(case, inputs, seed, probe):
            does(gpu, pipeline.counts.get(case.id, 0) + 1, True)
            result = plain(case, inputs, seed, probe)
            does(gpu, pipeline.counts[case.id], False)
            return result

        pipeline.run = run
        return course, gpu, control

    return make


def test_a_throttled_run_is_taken_back_and_tried_again(watched, stream, caplog):
    def does(gpu, count, running):
        gpu.bits = 0x20 if running and count == 4 else 0

    course, _, _ = watched(does)
    assert course.run() == 0
    assert ended(stream)[-3:] == [("measured", 0, "ok"), ("discarded", 1, "ok"), ("measured", 1, "ok")]
    (rest,) = stream.of(CoolDown)
    assert (rest.attempt, rest.why) == (1, "GPU 0 throttled: thermal (software)")
    assert 2e9 <= rest.waited < 3e9
    assert "is taken back" in caplog.text
    assert [end.reason for end in stream.of(RunEnd) if end.kind] == [rest.why]
    assert course.summary.document("", "")["cases"][F1]["measured"] == 2
    assert stream.of(Schedule)[-1].runs == len(ended(stream))
    assert "cooling down" in [event.state for event in stream.of(StateChange)]


def test_a_run_five_degrees_warmer_than_round_1_waits_until_it_is_cool(watched, stream):
    def does(gpu, count, running):
        gpu.cooling = 0 if running else 1
        if running and count == 4:
            gpu.temperature = 46

    course, _, _ = watched(does)
    assert course.run() == 0
    assert kinds(stream)[-3:] == ["measured", "discarded", "measured"]
    (rest,) = stream.of(CoolDown)
    assert rest.why == "GPU 0 has 46 °C, in round 1 it had 40 °C"
    assert 3e9 < rest.waited < 6e9, "from 46 °C to 42 °C at a degree a second"
    assert rest.temperature_c == 42


def test_what_rests_do_not_mend_is_kept_after_three(watched, stream):
    def does(gpu, count, running):
        gpu.bits = 0x8

    course, _, _ = watched(does, rounds=3)
    assert course.run() == 0
    assert kinds(stream)[-6:] == ["discarded"] * 3 + ["measured"] * 3
    rests = stream.of(CoolDown)
    assert [rest.attempt for rest in rests] == [1, 2, 3]
    assert all(60e9 <= rest.waited < 61e9 for rest in rests), "a rest that does not help ends after a minute"


def test_power_caps_and_cool_down_switched_off_take_nothing_back(watched, stream):
    def does(gpu, count, running):
        gpu.bits = 0x4 | 0x1
        gpu.temperature = 44 if count >= 4 else 40

    course, _, _ = watched(does)
    assert course.run() == 0
    assert "discarded" not in kinds(stream)


def test_cool_down_can_be_left_out(watched, stream):
    course, _, _ = watched(lambda gpu, count, running: setattr(gpu, "bits", 0x40), cool_down=False)
    assert course.run() == 0
    assert "discarded" not in kinds(stream)


UUID = "8a3f0c1d-0000-1111-2222-333344445555"
MINE = [GpuProcess(pid=os.getpid())]


@pytest.mark.parametrize(
    ("device", "uuid", "others", "ours"),
    [
        ("cuda:0", UUID, {}, {1}),  # CUDA_VISIBLE_DEVICES=1 in a container: number and PIDs are others'.
        ("cuda:0", UUID, {"worker_memory": 1 << 20}, {1}),  # A context that somebody opened on the wrong GPU.
        ("cuda:0", "", {"worker_memory": 1 << 20}, {0}),
        ("cuda:1", "", {"processes": MINE}, {0}),
        ("cuda:1", "", {}, {1}),
        ("cuda:0", "12345678-of-a-slice", {"mig": True}, {0}),
        ("cuda", "", {}, None),
        ("cpu", "", {}, set()),
    ],
    ids=["UUID", "not by memory", "memory", "process", "number", "slice", "not known", "none"],
)
def test_a_neighbour_that_throttles_takes_no_run_back(tmp_path, device, uuid, others, ours):
    """GPU 0 throttles; whose run that disturbs depends on where the model is."""
    mig = others.pop("mig", None) if "mig" in others else None
    vitals = machine(
        tmp_path,
        GpuDevice(t=1, gpu=0, uuid="GPU-00000000-0000-1111-2222-333344445555", mig=mig),
        GpuDevice(t=1, gpu=1, uuid=f"GPU-{UUID}"),
        *(GpuSample(t=LOAD + t, gpu=0, throttle=0x20, temperature_c=85, **others) for t in range(3)),
        *(GpuSample(t=LOAD + t, gpu=1, throttle=0, temperature_c=40) for t in range(3)),
    )
    vitals.model_on(device, uuid)
    assert vitals.ours == ours
    disturbed = ours is None or 0 in ours
    assert bool(Cooling(vitals, SimulatedClock(0)).why(LOAD, 0)) is disturbed
    warnings = preflight.inspect(0, vitals, LOAD, 0.5, simulated=False).warnings
    assert any(line.startswith("GPU 0 is throttled") for line in warnings) is disturbed


def test_the_course_says_where_its_model_is(tmp_path, plan, stream):
    vitals = machine(tmp_path, DEVICE, GpuDevice(t=1, gpu=1, uuid=f"GPU-{UUID}"), GpuSample(t=1, gpu=1))
    course, pipeline, _ = make_course(tmp_path, plan(new_tokens=[5]), stream, vitals=vitals)
    load = pipeline.load
    pipeline.load = lambda probe: msgspec.structs.replace(load(probe), extra={"gpu_uuid": UUID})
    assert course.run() == 0
    assert vitals.ours == {1}


def test_a_stop_ends_a_rest(watched, stream, tmp_path):
    course, _, control = watched(lambda gpu, count, running: setattr(gpu, "bits", 0x40))
    write = stream.write

    def watching(event):
        if isinstance(event, StateChange) and event.state == "cooling down":
            send(tmp_path, "stop", author="me@here")
            control._looked = 0
        write(event)

    stream.write = watching
    assert course.run() == 0
    assert stream.of(CoolDown)[0].waited == 0
    last = stream.of(StateChange)[-1]
    assert (last.state, last.reason) == ("stopped", "stopped by me@here")
    assert kinds(stream).count("measured") == 0, "what was taken back stays so"


# --- preflight ----------------------------------------------------------------------------------------------------


def machine(tmp_path, *happened):
    writer = StreamWriter(tmp_path / "telemetry.jsonl")
    for event in happened:
        writer.write(event)
    vitals = Vitals(tmp_path / "telemetry.jsonl")
    vitals.read()
    return vitals


DEVICE = GpuDevice(t=1, gpu=0, name="GPU", memory_total=8 << 30)
FOREIGN = GpuProcess(pid=1, memory=1 << 30)
OWN = GpuProcess(pid=os.getpid(), memory=1 << 20)


@pytest.mark.parametrize(
    ("samples", "others"),
    [
        ([(1, [FOREIGN])], [FOREIGN]),
        ([(1, []), (2 * LOAD, [FOREIGN])], []),  # In a container our own PID is another one.
        ([(2 * LOAD, [FOREIGN])], None),
        ([(2 * LOAD, [FOREIGN, OWN])], [FOREIGN]),
        ([(1, None)], None),
    ],
    ids=["before us", "we came later", "may be us", "told apart by its PID", "not told"],
)
def test_others_on_the_gpu_are_told_apart_from_us(tmp_path, samples, others):
    happened = [GpuSample(t=t, gpu=0, memory_used=2 << 30, processes=found) for t, found in samples]
    found = preflight.inspect(0, machine(tmp_path, DEVICE, *happened), LOAD, 0.5, simulated=False)
    assert found.gpus[0].foreign == others
    assert found.gpus[0].memory_free == 6 << 30
    assert any("GPU 0 is used by others (pid 1, 1.00 GiB)" in line for line in found.warnings) is bool(others)
    assert found.load is not None


def test_a_busy_or_throttled_gpu_is_warned_of(tmp_path):
    sample = GpuSample(t=1, gpu=0, utilization=97, throttle=0x40)
    found = preflight.inspect(0, machine(tmp_path, sample), LOAD, 0.5, simulated=False)
    assert [line for line in found.warnings if "GPU 0" in line] == [
        "GPU 0 is 97 % busy before anything ran: somebody else uses it",
        "GPU 0 is throttled before anything ran: thermal (hardware)",
    ]
    assert found.gpus[0].memory_free is None, "not known, and not 0"


def test_what_the_driver_keeps_is_not_free(tmp_path):
    device = GpuDevice(t=1, gpu=0, memory_total=8 << 30, memory_reserved=1 << 30)
    vitals = machine(tmp_path, device, GpuSample(t=1, gpu=0, memory_used=2 << 30))
    assert preflight.inspect(0, vitals, LOAD, 0.5, simulated=False).gpus[0].memory_free == 5 << 30


def test_load_is_that_of_the_time_before_loading(tmp_path, plan, stream, monkeypatch):
    """Loading a model takes all cores for a minute: that is not somebody else."""
    course, pipeline, _ = make_course(tmp_path, plan(pipeline="llava", new_tokens=[5]), stream)
    cores = os.cpu_count() or 1
    loads = [cores / 4]
    monkeypatch.setattr(os, "getloadavg", lambda: (loads[-1], 0.0, 0.0))
    load = pipeline.load
    pipeline.load = lambda probe: (loads.append(cores * 2.0), load(probe))[1]
    assert course.run() == 0
    (found,) = stream.of(Preflight)
    assert found.load == round(cores / 4, 2)
    assert not [line for line in found.warnings if "load average" in line]
    busy = preflight.inspect(0, None, LOAD, cores * 2.0, simulated=False)
    assert any(line.startswith(f"load average was {cores * 2:.1f} on {cores} core") for line in busy.warnings)


def test_no_gpu_has_its_reason(tmp_path):
    vitals = machine(tmp_path, GpuAbsent(t=1, gpu=-1, reasons={"*": "no NVIDIA driver"}))
    assert preflight.inspect(0, vitals, LOAD, 0.5, simulated=False).absent == "no NVIDIA driver"
    assert preflight.inspect(0, None, LOAD, 0.5, simulated=False).absent == "nothing watches the machine"


def test_preflight_is_kept_and_its_warnings_are_logged(tmp_path, plan, stream, caplog):
    vitals = machine(tmp_path, DEVICE, GpuSample(t=1, gpu=0, processes=[FOREIGN]))
    course, _, _ = make_course(tmp_path, plan(new_tokens=[5]), stream, vitals=vitals)
    assert course.run() == 0
    (found,) = stream.of(Preflight)
    assert found.warnings == ["GPU 0 is used by others (pid 1, 1.00 GiB): times will vary"]
    assert found.load is None, "a simulation does not depend on the machine that it runs on"
    assert found.warnings[0] in caplog.text
    assert not stream.of(Log), "no handler is installed here"
