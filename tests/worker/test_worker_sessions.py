"""Sessions from their first line to their last, by real worker processes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from llava_tui.plan import from_json
from llava_tui.session import store
from llava_tui.session.launch import LaunchError, launch
from llava_tui.session.timeline import Timeline

LEAVES = (
    "frames.decode_frames",
    "encode.preprocess",
    "encode.h2d",
    "encode.vision_tower",
    "encode.projector",
    "generate.prefill",
    "generate.decode",
    "generate.detokenize",
)


def spans(live, run):
    """Stage → (start after the run's, duration) of one run, ns."""
    rows = [row for row in live.timeline.stages.rows() if row["run"] == run["run"]]
    return {row["stage"]: (row["start"] - run["start"], row["duration"]) for row in rows}


def durations(live):
    return [(row["run"], row["stage"], row["duration"]) for row in live.timeline.stages.rows()]


def test_a_whole_session(start):
    live = start(frames=[1, 2], rounds=3, warmup=1, name="x")
    assert live.end() == 0
    assert store.status(live.path) == "finished"
    states = ["starting", "loading", "preflight", "cold", "warming up", "measuring", "closing", "closed"]
    assert live.states() == states
    assert [r["kind"] for r in live.runs()][:4] == ["load", "cold", "warm-up", "cross-check"]
    assert {r["outcome"] for r in live.runs()} == {"ok"}
    for case in ("f1-b1-n16", "f2-b1-n16"):
        assert [r["round"] for r in live.runs(kind="measured", case=case)] == [0, 1, 2]
    view = live.view()
    assert view.schedule.runs == len(live.runs()) - 1, "the schedule said how many runs there would be"
    assert view.model.parameters == 7_063_427_072
    assert "simulated" in view.model.device_name
    header = live.timeline.header
    assert header.provenance == "simulated"
    assert from_json(json.dumps(header.plan).encode()).name == "x", "the header's plan can be run again"
    assert header.argv == ["llava-tui", "run", "--headless"]
    assert header.host.cores == os.cpu_count()
    summary = json.loads((live.path / "summary.json").read_text())
    assert summary["state"] == "closed"
    assert summary["cases"]["f2-b1-n16"]["measured"] == 3
    assert summary["cases"]["f2-b1-n16"]["steps"]["generate"] > summary["cases"]["f1-b1-n16"]["steps"]["generate"]
    with pytest.raises(ProcessLookupError):
        os.kill(header.pid, 0)


def test_spans_add_up(start):
    live = start(frames=[2], rounds=2, new_tokens=[20])
    assert live.end() == 0
    for run in live.runs(kind="measured"):
        of = spans(live, run)
        for step in ("frames", "encode", "generate"):
            leaves = sum(of[leaf][1] for leaf in LEAVES if leaf.startswith(step + "."))
            assert 0.97 * of[step][1] <= leaves <= of[step][1]
        steps = sum(of[step][1] for step in ("frames", "encode", "generate"))
        assert 0.97 * run["wall"] <= steps < run["wall"], "what lies between steps is left over, not spread"
        tokens = [row["at"] - run["start"] for row in live.timeline.tokens.rows() if row["run"] == run["run"]]
        assert len(tokens) == run["new_tokens"] == 20
        assert tokens == sorted(tokens)
        before = sum(of[leaf][1] for leaf in LEAVES[:6])
        assert tokens[0] == pytest.approx(before, rel=0.01), "the first token comes after what precedes it"
        decode_start, decode = of["generate.decode"]
        assert decode_start + decode == tokens[-1]
        assert run["text"][0].startswith("The video shows")


def test_the_seed_decides_every_duration(start):
    first, again, other = start(seed=3, rounds=2), start(seed=3, rounds=2), start(seed=4, rounds=2)
    for live in (first, again, other):
        assert live.end() == 0
    assert durations(first) == durations(again)
    assert durations(first) != durations(other)


def test_no_token_is_awaited_by_the_disk(start):
    """Hints are written while a run lasts, ten a second at most, whatever the number of tokens."""
    live = start(new_tokens=[400], rounds=1, warmup=0)
    assert live.end() == 0
    run = live.runs(kind="measured")[0]
    hints = [row for row in live.timeline.text_hints.rows() if row["run"] == run["run"]]
    assert len(hints) <= run["wall"] / 1e8 + 2
    assert "".join(row["text"] for row in hints) == run["text"][0], "the pieces make up the text"
    assert hints[-1]["tokens"] == 400
    stages = [row["stage"] for row in live.timeline.stage_hints.rows() if row["run"] == run["run"]]
    assert [stage for stage in stages if "." in stage] == list(LEAVES)


def test_a_case_that_does_not_fit_is_left_out_and_the_others_go_on(start):
    live = start(frames=[1, 8], simulated_gpu="rtx-4090", batch=[1, 32], rounds=2)
    assert live.end() == 0
    assert store.status(live.path) == "finished"
    assert any("f8-b1-n16 is left out" in line and "at most 7 frames fit" in line for line in live.log())
    (failed,) = live.runs(outcome="out-of-memory")
    assert failed["case"] == "f1-b32-n16"
    assert "24.0 GiB on the NVIDIA GeForce RTX 4090" in failed["reason"]
    assert len(live.runs(kind="measured", case="f1-b1-n16", outcome="ok")) == 2
    assert live.runs(kind="measured", case="f1-b32-n16") == []
    last = list(live.timeline.states.rows())[-1]
    assert last["state"] == "closed"
    assert "3 of 4 cases failed" in last["reason"]
    assert "Traceback" in (live.path / "worker.log").read_text(), "the details are kept, elsewhere"
    assert [case.id for case in live.view().schedule.cases] == ["f1-b1-n16"]


def test_nothing_fits(start):
    live = start(frames=[9, 10])
    assert live.end() == 3
    assert store.status(live.path) == "failed"
    assert "overflow the context of 4096" in list(live.timeline.states.rows())[-1]["reason"]


def test_a_plan_that_cannot_be_run_leaves_nothing(tmp_path):
    path = store.create(tmp_path, "x")
    with pytest.raises(LaunchError, match="rounds: 0 measures nothing"):
        launch(path, b'{"rounds": 0}', [])
    assert list(tmp_path.iterdir()) == []


def test_a_model_the_simulator_does_not_know(start):
    live = start(model="llava-9")
    assert live.end() == 3
    assert "knows llava-1.5-7b, not 'llava-9'" in list(live.timeline.states.rows())[-1]["reason"]


def test_a_session_has_one_worker(start, plan):
    live = start(time_scale=1, rounds=1000)
    header = (live.path / "session.json").read_bytes()
    with pytest.raises(LaunchError, match="recorded by another process"):
        launch(live.path, plan().to_json(), [])
    assert (live.path / "session.json").read_bytes() == header
    assert live.process.poll() is None


def test_the_worker_outlives_who_launched_it(tmp_path, plan):
    """The launcher, its process group and its terminal go away; the worker notices nothing."""
    path = store.create(tmp_path, "x")
    script = f"""
import os, signal
from pathlib import Path
from llava_tui.session.launch import launch
worker = launch(Path({str(path)!r}), {plan(time_scale=0.05, rounds=20).to_json()!r}, [])
os.killpg(0, signal.SIGHUP)
"""
    launcher = subprocess.run([sys.executable, "-c", script], start_new_session=True, check=False, timeout=60)
    assert launcher.returncode == -signal.SIGHUP
    assert store.status(path) == "running"
    timeline = Timeline.open(path)
    deadline = time.monotonic() + 60
    while store.status(path) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    timeline.poll()
    assert store.status(path) == "finished"
    assert len([row for row in timeline.runs.rows() if row["kind"] == "measured"]) == 20


def test_a_folder_that_is_moved_while_the_run_is_paused_ends_the_worker(start, tmp_path):
    """Nobody could resume or stop it any more. What it had measured is whole, and says why it ended."""
    live = start(time_scale=0.02, rounds=1000)
    live.until(lambda view: len(live.runs(kind="measured")) >= 2, "two measured runs")
    assert live.ask("pause")[0]
    live.until(lambda view: view.state == "paused", "paused")
    moved = live.path.rename(tmp_path / "elsewhere")
    assert live.process.wait(10) == 3
    assert store.status(moved) == "failed"
    timeline = Timeline.open(moved)
    assert timeline.corrupt == 0
    assert list(timeline.states.rows())[-1]["reason"] == "the session's folder was moved or deleted while it ran"
    assert not live.path.exists(), "nothing is written where it was"


def test_a_disk_that_fills_up(tmp_path, plan):
    """A real one, of 400 KiB: the session ends with its reason, in the room that was set aside for it."""
    unshare = shutil.which("unshare")
    mount = shutil.which("mount")
    if (
        not unshare
        or not mount
        or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no mount namespaces for this user")
    script = f"""
import json
from pathlib import Path
from llava_tui.session import store
from llava_tui.session.launch import launch
from llava_tui.session.timeline import Timeline
path = store.create(Path({str(tmp_path)!r}), "full")
worker = launch(path, {plan(rounds=2000).to_json()!r}, [])
code = worker.wait(60)
timeline = Timeline.open(path)
last = list(timeline.states.rows())[-1]
ends = [row["outcome"] for row in timeline.runs.rows()]
print(json.dumps([code, store.status(path), last["reason"], timeline.corrupt, timeline.started.n, ends]))
"""
    inside = f"{mount} -t tmpfs -o size=400k none {tmp_path} && exec {sys.executable} -c {shlex.quote(script)}"
    command = [unshare, "-rm", "sh", "-c", inside]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    if "mount" in result.stderr and "denied" in result.stderr:
        pytest.skip("mounting is not permitted")
    code, status, reason, corrupt, begun, ends = json.loads(result.stdout)
    assert (code, status) == (3, "failed")
    assert corrupt <= 2, "the line that no longer fitted, at most one a stream"
    assert reason.startswith("disk full")
    assert len(ends) == begun, "every run that began has its end"
    assert ends.count("ok") >= len(ends) - 1 > 5, "everything before it is kept"


def test_a_deaf_hang_whose_session_is_deleted_ends(start):
    """Nobody could ask it to stop any more."""
    live = start(faults=["hang=2,deaf=yes"])
    live.until(lambda view: view.stage_hints.where(run=2, stage="generate.prefill").any(), "the second run hangs")
    shutil.rmtree(live.path)
    assert live.process.wait(20) == 3
