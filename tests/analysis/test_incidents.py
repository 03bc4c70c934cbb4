"""What is worth jumping to in a session: found where it began, once, at the same place however much comes later."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from headers import make_header
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui import events
from llava_tui.analysis.incidents import APART_NS, KINDS, Incidents, incidents
from llava_tui.session.timeline import Timeline
from llava_tui.session.writer import StreamWriter, write_atomically

MS = 1_000_000
S = 1_000_000_000
GIB = 1 << 30
THERMAL = 0x20


def write(path: Path, told: list[Any]) -> Path:
    """A session of these events."""
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / "session.json", make_header(path.name))
    machine = (events.GpuDevice, events.GpuSample, events.GpuAbsent, events.HostSample)
    for name, wanted in (("events", False), ("telemetry", True)):
        stream = StreamWriter(path / f"{name}.jsonl")
        for event in sorted(told, key=lambda event: event.t):
            if isinstance(event, machine) is wanted:
                stream.write(event)
        stream.close()
    return path


def found(path: Path, told: list[Any]) -> Incidents:
    return incidents(Timeline.open(write(path, told)).now())


def run(number: int, t: int, wall: int, case: str = "a", outcome: str = "ok", reason: str = "") -> list[Any]:
    start = events.RunStart(t=t, run=number, kind="measured", case=case)
    return [start, events.RunEnd(t=t + wall, run=number, outcome=outcome, start=t, wall=wall, reason=reason)]


def sample(t: int, throttle: int | None = 0, used: int = GIB, gpu: int = 0) -> events.GpuSample:
    return events.GpuSample(t=t, gpu=gpu, throttle=throttle, memory_used=used)


def device(gpu: int = 0) -> events.GpuDevice:
    return events.GpuDevice(t=0, gpu=gpu, memory_total=81 * GIB, memory_reserved=GIB)


def test_throttling_is_told_where_it_began_and_not_with_every_sample(tmp_path: Path) -> None:
    slow = [
        *range(20, 30),
        *range(31, 35),
        *range(120, 125),
    ]  # in and out within a second, and once more a minute later
    told = [device(), *(sample(i * S // 2, THERMAL if i in slow else 0) for i in range(200))]
    one, two = found(tmp_path / "s", told)
    assert (one.t, two.t) == (10 * S, 60 * S)
    assert one.kind == "throttling"
    assert one.text == "GPU 0 throttles: thermal, software"


def test_a_power_limit_is_no_incident_and_unknown_reasons_are_no_end(tmp_path: Path) -> None:
    told = [device(), *(sample(i * S, 0x4) for i in range(5)), *(sample((i + 5) * S, THERMAL) for i in range(3))]
    told += [sample((i + 8) * S, None) for i in range(20)] + [sample((i + 28) * S, THERMAL) for i in range(3)]
    assert [one.t for one in found(tmp_path / "s", told)] == [5 * S]


def test_each_gpu_has_its_own(tmp_path: Path) -> None:
    told = [device(0), device(1)]
    for i in range(10):
        told += [sample(i * S, THERMAL if i > 3 else 0, gpu=0), sample(i * S + 1, THERMAL if i > 5 else 0, gpu=1)]
    assert [one.text[:5] for one in found(tmp_path / "s", told)] == ["GPU 0", "GPU 1"]


def test_a_memory_that_is_nearly_full_is_told_of_what_programs_can_have(tmp_path: Path) -> None:
    told = [device(), *(sample(i * S, used=(70 + i) * GIB) for i in range(10))]
    told += [events.HostSample(t=i * S + 5, memory_used=i * GIB, memory_total=10 * GIB) for i in range(11)]
    gpu, host = found(tmp_path / "s", told)
    assert (gpu.t, gpu.kind, gpu.text) == (
        6 * S,
        "near out of memory",
        "GPU 0 memory 95.0 % full: 76.0 GiB of 80.0 GiB",
    )
    assert (host.t, host.text) == (10 * S + 5, "host memory 100.0 % full: 10.0 GiB of 10.0 GiB")


def test_a_run_out_of_line_is_told_when_it_ended_by_the_runs_of_its_own_case(tmp_path: Path) -> None:
    told: list[Any] = []
    for number in range(30):
        wall = (100 + number % 3) * MS if number % 2 else (500 + number % 3) * MS
        told += run(number, number * S, 400 * MS if number == 21 else wall, "ab"[number % 2])
    (one,) = found(tmp_path / "s", told)
    assert (one.t, one.kind) == (21 * S + 400 * MS, "outlier")
    assert one.text == "run 21 b took 400 ms, 3.96 × the median"


def test_errors_are_told_whoever_said_them(tmp_path: Path) -> None:
    told = [
        *run(1, 1 * S, S // 2, outcome="out-of-memory", reason="out of memory: CUDA"),
        *run(2, 2 * S, S // 2, outcome="cancelled", reason="stopped"),
        events.Log(t=3 * S, level="error", text="no [bold]space[/bold]"),
        events.Log(t=3 * S, level="warning", text="slow"),
        events.GpuAbsent(t=4 * S, gpu=-1, reasons={"*": "no NVIDIA driver"}),
        events.GpuAbsent(t=5 * S, gpu=0, reasons={"*": "GPU lost: it needs a reset"}),
        events.GpuAbsent(t=6 * S, gpu=0, reasons={"*": "GPU lost: it needs a reset"}),
        events.StateChange(t=7 * S, state="failed", reason="the device is gone"),
    ]
    assert [(one.t / S, one.kind, one.text) for one in found(tmp_path / "s", told)] == [
        (1.5, "error", "run 1 a out-of-memory: out of memory: CUDA"),
        (3, "error", "no [bold]space[/bold]"),
        (5, "error", "GPU 0: GPU lost: it needs a reset"),
        (7, "error", "the session failed: the device is gone"),
    ]


def test_a_rest_is_told_with_its_cause(tmp_path: Path) -> None:
    rest = events.CoolDown(t=9 * S, run=4, why="GPU 0 throttled", attempt=1, waited=6 * S)
    (one,) = found(tmp_path / "s", [rest])
    assert (one.kind, one.text) == ("cool-down", "run 4 was taken back (GPU 0 throttled); rested for 6.0 s")


def test_a_session_in_which_nothing_happened_has_none(tmp_path: Path) -> None:
    assert len(found(tmp_path / "s", [device(), *(sample(i * S) for i in range(5)), *run(1, 0, S)])) == 0
    assert len(found(tmp_path / "t", [])) == 0


def told_of(throttled: list[bool], walls: list[int]) -> list[Any]:
    told: list[Any] = [device()]
    told += [sample(i * 700 * MS, THERMAL if on else 0) for i, on in enumerate(throttled)]
    for number, wall in enumerate(walls):
        told += run(number, number * S, wall * MS, "ab"[number % 2])
    return told


@settings(max_examples=40, deadline=None)
@given(
    throttled=st.lists(st.booleans(), max_size=40),
    walls=st.lists(st.sampled_from([100, 101, 102, 103, 900]), max_size=40),
    at=st.integers(0, 41),
)
def test_a_moment_has_the_incidents_that_it_had_when_it_was_the_newest(
    tmp_path_factory: pytest.TempPathFactory, throttled: list[bool], walls: list[int], at: int
) -> None:
    folder, t = tmp_path_factory.mktemp("s"), at * S
    told = told_of(throttled, walls)
    whole = Timeline.open(write(folder / "whole", told))
    incidents(whole.now())  # what was worked out for the end is not shown before
    then = incidents(whole.at(t))
    before = found(folder / "then", [event for event in told if event.t <= t])
    assert list(then) == list(before)
    assert [one.t for one in then] == sorted(one.t for one in then)
    onsets = [one.t for one in then if one.kind == "throttling"]
    assert all(later - earlier > APART_NS for earlier, later in pairwise(onsets))
    assert all(KINDS[code] == one.kind for code, one in zip(then.kinds, then, strict=True))


def test_they_are_found_anew_when_a_session_has_grown(tmp_path: Path) -> None:
    path = write(tmp_path / "s", [device(), *(sample(i * S) for i in range(5))])
    timeline = Timeline.open(path)
    assert len(incidents(timeline.now())) == 0
    stream = StreamWriter(path / "telemetry.jsonl")
    stream.write(sample(9 * S, THERMAL))
    stream.close()
    timeline.poll()
    assert [one.t for one in incidents(timeline.now())] == [9 * S]
    assert len(incidents(timeline.at(8 * S))) == 0


def test_a_long_session_is_looked_through_at_once(tmp_path: Path) -> None:
    told: list[Any] = [device(), *(sample(i * 100 * MS, THERMAL if i % 1000 < 9 else 0) for i in range(60_000))]
    for number in range(4000):
        told += run(number, number * S, (5000 if number % 100 == 7 else 900 + number % 5) * MS)
    timeline = Timeline.open(write(tmp_path / "s", told))
    began = time.process_time()
    several = incidents(timeline.now())
    took = time.process_time() - began
    assert len(several) == 60 + 40
    assert took < 0.1
