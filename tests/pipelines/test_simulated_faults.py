"""What is injected is what happens, the telemetry tells the same story, and the truth is exported."""

import json
import os
import signal
import time

import numpy as np
import pytest

from llava_tui.events import CoolDown
from llava_tui.pipelines.simulated import SimulatedPipeline
from llava_tui.pipelines.simulated_cost import (
    TOKENS_PER_FRAME,
    decode_cost,
    expected,
    prefill_cost,
    vision_cost,
)
from llava_tui.pipelines.simulated_faults import THROTTLE_BITS, FaultCourse
from llava_tui.pipelines.simulated_gpu import FOREIGN_PID, GPUS
from llava_tui.pipelines.simulated_session import simulated_session
from llava_tui.plan import SIMULATED_GPUS, Case, from_dict
from llava_tui.session import store
from llava_tui.session.control import send
from llava_tui.session.launch import launch
from llava_tui.session.timeline import Timeline
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.recorder import SilentProbe

CASE = "f1-b1-n16"


def session(*faults, **values):
    plan = {"pipeline": "simulated", "rounds": 12, "warmup": 2, "frames": [1], "new_tokens": [16]}
    return simulated_session(from_dict(plan | {"cool_down": False, "faults": list(faults)} | values)).now()


@pytest.fixture(scope="module")
def clean():
    return session()


def walls(view, **where):
    return np.asarray(view.runs["wall"])[view.runs.where(**({"kind": "measured"} | where))].astype(float)


def stage(view, path):
    mask = view.stages.where(stage=path, kind="measured")
    return np.asarray(view.stages["duration"])[mask]


def slower(view, clean, path):
    """How many times as long a stage takes as in the clean twin."""
    return np.median(stage(view, path) / stage(clean, path))


def busy(view):
    """Samples while runs were measured and the GPU had work."""
    since = view.started["t"][view.started.where(kind="measured")][0]
    return [row for row in view.samples.rows() if row["t"] >= since and row["utilization"]]


# --- the truth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "encode", "one", "three", "decode"),
    [
        ("a100", 1.2, 27, 77, 6.7),
        ("h100", 0.4, 8.5, 24, 4.0),
        ("rtx-4090", 2.3, 51, 146, 13.4),
        ("rtx-3090", 5.4, 118, 339, 14.5),
        ("t4", 5.9, 129, 370, 42),
    ],
)
def test_floors_are_those_of_the_data_sheets(gpu, encode, one, three, decode):
    """Milliseconds of encoding a frame, prefill of one and of three frames with 64 tokens of text, a token."""
    board = GPUS[gpu]
    floors = [
        vision_cost(1).floor_ns(board),
        prefill_cost(TOKENS_PER_FRAME + 64, 1).floor_ns(board),
        prefill_cost(3 * TOKENS_PER_FRAME + 64, 1).floor_ns(board),
        decode_cost(700, 1).floor_ns(board),
    ]
    assert [floor / 1e6 for floor in floors] == pytest.approx([encode, one, three, decode], rel=0.05)


@pytest.mark.parametrize("gpu", SIMULATED_GPUS)
def test_medians_are_the_exported_truth(gpu):
    view = session(rounds=40, simulated_gpu=gpu)
    truth = view.model.extra["truth"]["cases"][CASE]
    assert np.median(walls(view)) == pytest.approx(truth["wall"], rel=0.004)
    for path in ("frames", "encode", "generate", "encode.vision_tower", "generate.prefill", "generate.decode"):
        assert np.median(stage(view, path)) == pytest.approx(truth[path], rel=0.004), path


def test_batch_and_context_cost_what_the_roofline_says():
    board = GPUS["a100"]
    one, eight = (expected(Case(1, batch, 64), 600, board) for batch in (1, 8))
    assert eight.stages["generate.decode"] < 1.5 * one.stages["generate.decode"], "weights are read once for all"
    assert eight.stages["generate.prefill"] == pytest.approx(8 * one.stages["generate.prefill"], rel=0.01)
    assert one.tokens[-1] > one.tokens[0], "the context grows"


def test_a_small_board_runs_out_of_memory_by_itself():
    view = session(simulated_gpu="t4", frames=[1], batch=[1, 4], rounds=2)
    rows = {row["case"]: row["outcome"] for row in view.runs.rows() if row["kind"] != "load"}
    assert rows["f1-b1-n16"] == "ok"
    assert rows["f1-b4-n16"] == "out-of-memory"


def test_the_same_seed_goes_wrong_the_same_way(clean):
    faults = ("drift=3%", "spikes=20%", "ar-noise", "foreign", "tokens")
    first, again, other = session(*faults), session(*faults), session(*faults, seed=1)
    assert list(first.runs["wall"]) == list(again.runs["wall"])
    assert [row["power_mw"] for row in first.samples.rows()] == [row["power_mw"] for row in again.samples.rows()]
    assert list(first.runs["wall"]) != list(other.runs["wall"])
    assert clean.model.extra["truth"]["faults"] == []
    assert [fault["kind"] for fault in first.model.extra["truth"]["faults"]] == [f.split("=")[0] for f in faults]


# --- times ----------------------------------------------------------------------------------------------------------


def test_a_run_tells_its_factor_and_that_is_what_it_took(clean):
    """Noise does not depend on faults, so that a session can be laid beside its clean twin."""
    view = session("drift=4%", "spikes=25%,size=40%", "ar-noise=3%")
    facts = list(view.runs["facts"][view.runs.where(kind="measured")])
    assert walls(view) / walls(clean) == pytest.approx([each["factor"] for each in facts], rel=2e-3)
    spiked = ["spikes" in each["faults"] for each in facts]
    assert 0 < sum(spiked) < len(facts)


def test_drift_is_as_large_as_it_was_ordered(clean):
    ratios = walls(session("drift=5%")) / walls(clean)
    assert ratios[-1] / ratios[0] - 1 == pytest.approx(0.05 * 11 / 12, rel=0.1)
    assert (np.diff(ratios) > 0).all()


def test_noise_remembers_as_much_as_was_ordered():
    course = FaultCourse(from_dict({"pipeline": "simulated", "faults": ["ar-noise=2%,correlation=0.8"]}).faults, 3, 1)
    noise = np.log([course.next().time for _ in range(4000)])
    assert noise.std() == pytest.approx(0.02, rel=0.1)
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0.8, abs=0.04)


def test_spikes_are_as_many_as_were_ordered():
    course = FaultCourse(from_dict({"pipeline": "simulated", "faults": ["spikes=5%,size=30%"]}).faults, 0, 1)
    factors = np.array([course.next().time for _ in range(4000)])
    spikes = factors[factors > 1]
    assert len(spikes) / 4000 == pytest.approx(0.05, abs=0.01)
    assert spikes.min() >= 1.15
    assert spikes.max() <= 1.45


def test_a_fault_lasts_as_long_as_it_was_ordered(clean):
    ratios = walls(session("gap=20%,first=6,runs=4")) / walls(clean)
    long = np.flatnonzero(ratios > 1.1)
    assert len(long) == 4
    assert ratios[long] == pytest.approx(1.25, rel=0.01)


def test_an_early_stop_leaves_the_wall_time_as_it_is(clean):
    view = session("early-stop=5%")
    assert walls(view) == pytest.approx(walls(clean), rel=0.02)
    assert np.median(stage(view, "generate.prefill")) < 0.1 * np.median(stage(clean, "generate.prefill"))
    floor = prefill_cost(TOKENS_PER_FRAME + 23, 1).floor_ns(GPUS["h100"])
    assert np.median(stage(view, "generate.prefill")) < floor, "faster than the roofline allows"


def test_shorter_answers_have_fewer_tokens_everywhere():
    view = session("tokens=50%")
    rows = view.runs.rows(view.runs.where(kind="measured"))
    assert {row["new_tokens"] for row in rows} > {16}
    for row in rows:
        assert len(row["token_ids"][0]) == row["new_tokens"] == (view.tokens["run"] == row["run"]).sum()
        assert len(row["text"][0].split()) == row["new_tokens"]


# --- what the driver says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", THROTTLE_BITS)
def test_throttling_is_seen_in_clock_bits_and_times(clean, reason):
    view = session(f"throttle=20%,reason={reason}")
    samples = busy(view)
    assert {row["throttle"] for row in samples} == {THROTTLE_BITS[reason]}
    clock = np.median([row["sm_clock_mhz"] for row in samples]) / np.median([r["sm_clock_mhz"] for r in busy(clean)])
    assert clock == pytest.approx(0.8, abs=0.01)
    assert slower(view, clean, "generate.prefill") == pytest.approx(1.25, rel=0.01)
    decode = slower(view, clean, "generate.decode")
    assert 1.03 < decode < 1.1, "it waits for memory, whose clock stays"
    hot = [row["temperature_c"] for row in samples]
    assert (min(hot) >= 85) == ("thermal" in reason)
    assert np.median([row["power_mw"] for row in samples]) < np.median([row["power_mw"] for row in busy(clean)])


def test_throttling_ends_where_the_gpu_rests():
    course = FaultCourse(from_dict({"pipeline": "simulated", "faults": ["throttle=20%,cools_s=5"]}).faults, 0, 1)
    assert course.next().throttle
    assert course.next(rested_ns=4 * 10**9).throttle
    assert not course.next(rested_ns=6 * 10**9).throttle
    assert not course.next().throttle, "it stays cool"


def test_a_rest_mends_what_it_can():
    """The worker's cool-down takes the throttled run back, and the telemetry gets cooler meanwhile."""
    view = session("throttle=20%,cools_s=2", cool_down=True)
    cooled = view.fact(CoolDown)
    assert cooled is not None
    assert cooled.attempt == 1
    assert cooled.temperature_c < 85
    assert {row["kind"] for row in view.runs.rows()} >= {"discarded", "measured"}
    assert not any(int(row["throttle"]) & 0x20 for row in view.samples.rows() if row["t"] > cooled.t)
    assert len(walls(view)) == 12


def test_a_power_limit_is_kept_and_told():
    view = session("power-cap=50%", frames=[3], new_tokens=[32], simulated_gpu="rtx-4090", sample_hz=50)
    samples = busy(view)
    limit = samples[0]["power_limit_mw"]
    assert limit == 225_000
    assert max(row["power_mw"] for row in samples[20:]) < 1.02 * limit
    assert np.mean([bool(int(row["throttle"]) & 0x4) for row in samples]) > 0.5
    assert min(row["sm_clock_mhz"] for row in samples) < 0.8 * GPUS["rtx-4090"].boost_mhz


def test_a_foreign_process_is_in_the_list_the_memory_and_the_times(clean):
    view = session("foreign=30%,memory_gib=5")
    lists = list(view.processes["processes"])
    assert [process.pid for process in lists[0]] == [FOREIGN_PID], "it was there before the model"
    assert {process.pid for process in lists[1]} == {FOREIGN_PID, os.getpid()}
    row = busy(view)[-1]
    assert row["memory_used"] - row["worker_memory"] > 5 * 2**30
    assert slower(view, clean, "generate.decode") > 1.15
    assert slower(view, clean, "frames") == pytest.approx(1), "the host is not slower"
    unlisted = session("foreign=30%,memory_gib=5,listed=no")
    assert {process.pid for each in unlisted.processes["processes"] for process in each} == {os.getpid()}
    assert busy(unlisted)[-1]["memory_used"] == row["memory_used"]


def test_a_board_that_others_fill_does_not_hold_the_model():
    view = session("foreign=10%,memory_gib=3", simulated_gpu="t4")
    assert view.state == "failed"
    assert "out of memory" in view.runs.row(0)["reason"]


def test_a_loaded_host_is_seen_in_its_load_and_its_stages(clean):
    view = session("load=4")
    assert view.host["load"][-1] == 4 * (os.cpu_count() or 1)
    assert slower(view, clean, "frames") > 1.4
    assert slower(view, clean, "generate.decode") == pytest.approx(1)
    assert clean.host.n == 0


# --- ends -----------------------------------------------------------------------------------------------------------


def test_running_out_of_memory_ends_the_case_alone():
    view = session("out-of-memory,run=9", frames=[1, 2])
    bad = [row for row in view.runs.rows() if row["outcome"] != "ok"]
    assert [row["outcome"] for row in bad] == ["out-of-memory"]
    assert "as the plan's fault asks" in bad[0]["reason"]
    assert max(row["memory_used"] for row in view.samples.rows()) == GPUS["h100"].memory
    assert view.state == "closed"
    other = {"f1-b1-n16", "f2-b1-n16"} - {bad[0]["case"]}
    assert len(walls(view, case=other)) == 12


def test_a_stall_is_one_long_run_and_a_hang_never_ends():
    stalled = session("hang=9,seconds=4")
    assert (walls(stalled) > 4e9).sum() == 1
    assert stalled.state == "closed"
    hung = session("hang=9")
    assert hung.current is not None
    assert hung.state == "measuring"
    assert hung.t - hung.current["t"] > 30e9, "the machine is still watched"
    assert hung.samples.row(-1)["utilization"] == 100


@pytest.mark.parametrize(("deaf", "heard"), [("no", True), ("yes", False)])
def test_a_deaf_hang_does_not_look_at_control(deaf, heard):
    class Over(Exception):
        pass

    def stall():
        stalls.append(len(checks))
        if len(stalls) == 5:
            raise Over

    stalls, checks = [], []
    plan = from_dict({"pipeline": "simulated", "faults": [f"hang=1,deaf={deaf}"]})
    clock = SimulatedClock(0, start=0)
    pipeline = SimulatedPipeline(plan, clock, lambda event: None, stall=stall)
    with pytest.raises(Over):
        pipeline.run(Case(1, 1, 8), ("x",), 0, SilentProbe(lambda: checks.append(clock.now())))
    assert (stalls[-1] > stalls[0]) == heard


def launched(tmp_path, *faults):
    plan = {"pipeline": "simulated", "time_scale": 0, "frames": [1], "new_tokens": [16]}
    path = store.create(tmp_path / "sessions", "simulated")
    return path, launch(path, from_dict(plan | {"rounds": 9, "faults": list(faults)}).to_json(), [])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_a_real_one(tmp_path, number):
    path, worker = launched(tmp_path, f"crash=7,signal={int(number)}")
    assert worker.wait(30) == -number
    assert store.status(path) == "interrupted"
    view = Timeline.open(path).now()
    assert {row["outcome"] for row in view.runs.rows()} == {"ok"}, "what was run before is kept"
    assert view.current["kind"] == "measured"


def test_a_hang_hears_control(tmp_path):
    path, worker = launched(tmp_path, "hang=7")
    try:
        timeline = Timeline.open(path)
        deadline = time.monotonic() + 30
        while timeline.started.n < 8:
            assert time.monotonic() < deadline
            timeline.poll()
            time.sleep(0.01)
        assert store.status(path) == "running"
        send(path, "stop-now", author="tester@here")
        assert worker.wait(30) == 0
    finally:
        worker.kill()  # one that nobody stops hangs for good
        worker.wait()
    assert store.status(path) == "stopped"


def test_from_the_command_line_to_the_badge(cli):
    asked = ("run", "--pipeline", "simulated", "--time-scale", "0", "--frames", "1", "--new-tokens", "8", "--headless")
    done = cli(*asked, "--rounds", "10", "--fault", "foreign=20%", "--fault", "gap=15%", "--simulated-gpu", "rtx-3090")
    assert done.returncode == 0, done.stderr
    shown = json.loads(cli("show", "@latest", "--json").stdout)
    (case,) = shown["cases"]
    assert {"foreign", "unaccounted"} <= {reason["kind"] for reason in case["trust"]["reasons"]}
    text = cli("show", "@latest").stdout
    assert f"  trust {case['trust']['grade']}\n    ! others compute on the GPU (pid {FOREIGN_PID}" in text
    refused = cli(*asked, "--fault", "lightning")
    assert refused.returncode == 2
    assert "no fault 'lightning'" in refused.stderr
    assert "Traceback" not in refused.stderr
