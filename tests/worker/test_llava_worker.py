"""Genuine small LLaVAs through a real worker: what only torch, a video and a sampler can show."""

import os
import shutil
import signal
import time

import psutil
import pytest
from worker_fakes import MemoryStream, NoTelemetry

from llava_tui.events import ModelFacts, RunEnd, RunStart, StateChange, TextHint
from llava_tui.plan import from_dict
from llava_tui.session import store
from llava_tui.session.control import CommandReader
from llava_tui.worker.clock import HostClock
from llava_tui.worker.control import Control
from llava_tui.worker.course import Course
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from llava_tui.pipelines.checkpoints import build_tiny

    return build_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from llava_tui.pipelines.checkpoints import synthesise_video

    return synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1)


@pytest.fixture
def values(model, clip):
    """A plan's values for the tiny model on the CPU."""
    return {
        "pipeline": "llava",
        "model": str(model),
        "inputs": [str(clip)],
        "frames": [1, 2],
        "new_tokens": [8],
        "rounds": 2,
        "warmup": 1,
        "self_test": False,
        "device": "cpu",
        "sample_hz": 20,
    }


def samplers(process):
    return [
        child for child in psutil.Process(process.pid).children() if "telemetry.sampler" in " ".join(child.cmdline())
    ]


def test_a_session_and_a_video_that_breaks_half_way(start, values, tmp_path):
    """Round 0 takes the first input, round 1 the second, which cannot be read: it is left out, and the case goes on."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    values["inputs"].append(str(broken))
    live = start(**values)
    live.until(lambda view: view.state == "loading", "loading")
    (sampler,) = samplers(live.process)
    accepted, _, took = live.ask("extend", rounds=1)
    assert accepted
    assert took < 0.5, "heard while torch is imported"
    assert live.end() == 0
    assert not sampler.is_running(), "the sampler ends with the worker"
    assert store.status(live.path) == "finished"

    checks = live.runs(kind="cross-check")
    assert [run["outcome"] for run in checks] == ["ok", "ok"]
    assert {run["facts"]["cross_check"] for run in checks} == {"equal"}
    good = live.runs(kind="measured", outcome="ok")
    assert sorted(run["case"] for run in good) == ["f1-b1-n8"] * 3 + ["f2-b1-n8"] * 3
    assert {run["item"] for run in good} == {"clip.mp4"}
    (bad,) = live.runs(kind="measured", outcome="broken-input")
    assert "broken.mp4" in bad["reason"]
    assert "broken.mp4" in list(live.timeline.states.rows())[-1]["reason"]

    view = live.view()
    assert view.model.model_type == "llava"
    assert view.model.digest
    assert live.timeline.header.versions["torch"]
    for run in good:
        of = {row["stage"]: row["duration"] for row in live.timeline.stages.rows() if row["run"] == run["run"]}
        assert all(duration > 0 for duration in of.values()), of
        for step in ("frames", "encode", "generate"):
            assert sum(d for path, d in of.items() if path.startswith(step + ".")) <= of[step]
        assert of["frames"] + of["encode"] + of["generate"] <= run["wall"]
        assert run["new_tokens"] == 8
        assert run["rss"] > 100e6
        tokens = [row["at"] - run["start"] for row in live.timeline.tokens.rows() if row["run"] == run["run"]]
        before = of["frames"] + of["encode"] + of["generate.prefill"]
        assert before <= tokens[0] <= run["wall"]
    host = list(live.timeline.host.rows())
    assert host[0]["t"] < live.runs(kind="cold")[0]["start"] < host[-1]["t"], "sampled from loading to the end"
    assert max(row["worker_rss"] for row in host if row["worker_rss"] == row["worker_rss"]) > 100e6


def test_loading_can_be_stopped_and_killed(start, values):
    live = start(**values)
    live.until(lambda view: view.state == "loading", "loading")
    (sampler,) = samplers(live.process)
    begin = time.monotonic()
    assert live.ask("stop-now")[0]
    assert live.end() == 0
    assert time.monotonic() - begin < 3
    assert store.status(live.path) == "stopped"
    assert live.states()[-1] == "stopped"
    assert [run["outcome"] for run in live.runs()] == ["cancelled"]
    sampler.wait(10)

    live = start(**values)
    live.until(lambda view: view.state == "loading", "loading")
    (sampler,) = samplers(live.process)
    os.kill(live.process.pid, signal.SIGKILL)
    live.process.wait()
    sampler.wait(10)
    assert store.status(live.path) == "interrupted"


def test_a_pipeline_that_disagrees_with_generate_is_found_out(values, tmp_path):
    """A split that changed one token would make every figure worthless."""
    from llava_tui.pipelines.llava import LlavaPipeline

    class Lying(LlavaPipeline):
        def run(self, case, inputs, seed, probe):
            result = super().run(case, inputs, seed, probe)
            if case.frames == 2:
                result.token_ids[0][5] += 1
            return result

    plan = from_dict(values)
    stream, clock, schedule = MemoryStream(), HostClock(), Schedule(plan)
    sink = EventSink(stream)
    control = Control(CommandReader(tmp_path), sink.write, clock, schedule)
    course = Course(plan, lambda: Lying(plan), sink, clock, control, schedule, NoTelemetry())
    assert course.run() == 3
    last = stream.of(StateChange)[-1]
    assert last.state == "failed"
    assert last.reason.startswith("f2-b1-n8: cross-check failed")
    assert "token 6 of sequence 1" in last.reason
    begun = {event.run: event for event in stream.of(RunStart)}
    measured = {begun[e.run].case for e in stream.of(RunEnd) if begun[e.run].kind == "measured" and e.outcome == "ok"}
    assert measured == {"f1-b1-n8"}, "the other case is sound and goes on"
    assert stream.of(ModelFacts)[0].t > 0
    for end in stream.of(RunEnd):
        if begun[end.run].kind in ("cold", "warm-up", "measured"):
            hinted = "".join(hint.text for hint in stream.of(TextHint) if hint.run == end.run)
            assert hinted == end.text[0], "what was seen live is what came out"


@pytest.mark.timeout(240)
def test_a_compiled_case_is_compiled_outside_the_statistics_and_control_is_heard(start, values):
    """Real: torch's compiler in a real worker, without a warm-up that would hide it."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler on this machine")
    live = start(**values | {"frames": [1], "new_tokens": [6], "compile": "off,on", "warmup": 0, "rounds": 2})
    plain, compiled = "f1-b1-n6-dynamic-uncompiled", "f1-b1-n6-static-compiled"
    live.until(lambda view: view.current is not None and view.current["case"] == compiled, "the first compiled run")
    accepted, _, took = live.ask("extend", rounds=1)
    assert accepted
    assert took < 5, "heard while something is compiled"
    assert live.process.wait(180) == 0, live.log()
    assert {run["facts"]["cross_check"] for run in live.runs(kind="cross-check")} == {"equal"}
    for case in (plain, compiled):
        measured = live.runs(kind="measured", outcome="ok", case=case)
        assert sorted(run["round"] for run in measured) == [0, 1, 2]
        assert not any("compiled_graphs" in run["facts"] for run in measured)


def test_without_a_compiler_the_other_cases_are_measured(start, values, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    live = start(**values | {"frames": [1], "compile": "off,on"})
    assert live.end() == 0
    assert {run["case"] for run in live.runs() if run["case"]} == {"f1-b1-n8-dynamic-uncompiled"}
    told = "f1-b1-n8-static-compiled is left out: compile: needs a C++ compiler"
    assert any(line.startswith(told) for line in live.log())
    states = list(live.view().states.rows())
    assert states[-1]["reason"].startswith("1 of 2 cases failed: f1-b1-n8-static-compiled: compile: needs a C++")
