"""Answers while the model loads: at once, though no thread of the worker gets a word in, and nothing stays behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_fakes import MemoryStream

from llava_tui.events import Answer, Command
from llava_tui.plan import from_dict
from llava_tui.session import store
from llava_tui.session.control import send
from llava_tui.session.timeline import Timeline
from llava_tui.worker.clock import HostClock
from llava_tui.worker.control import Control
from llava_tui.worker.porter import STREAM
from llava_tui.worker.schedule import Schedule

HELD_S = 0.6
"""How long the interpreter's lock is held at a stretch; importing torch was seen to hold it for 0.45 s, on a busy
machine for 1.3 s."""
DEAF = f"""
import ctypes, errno, os, sys, time
from llava_tui.events import ModelFacts
from llava_tui.pipelines.base import LLAVA_STAGES, RunResult
from llava_tui.worker import main

hold = ctypes.PyDLL(None).usleep  # PyDLL: keeps the interpreter's lock

class Deaf:
    stages = LLAVA_STAGES
    def load(self, probe):
        for _ in range(int(os.environ["DEAF_TIMES"])):
            hold({int(HELD_S * 1e6)})
        return ModelFacts(t=0, name="deaf", model_type="llava", parameters=1, dtype="float32", device="cpu")
    def check_case(self, case):
        return "too long" if case.frames == 9 else ""
    def prepare(self, case): pass
    def detokenize(self, ids): return "a" * len(ids)
    def reference(self, case, inputs, probe): return [[1, 2]]
    def run(self, case, inputs, seed, probe):
        for token in (1, 2):
            probe.check()
            time.sleep(0.003)
            probe.token([token])
        return RunResult([[1, 2]], ["aa"], vision_calls=1)
    def close(self): pass

def no_fork():
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

main._real = lambda plan: Deaf()
if os.environ.get("NO_FORK"):
    os.fork = no_fork
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture
def load(tmp_path, monkeypatch, follow):
    """Starts a real worker, whose model is none and whose loading holds the interpreter's lock; ends what is left."""
    begun = []

    def make(times=2, **values):
        path = store.create(tmp_path / "sessions", "deaf")
        fixed = {"model": str(tmp_path), "inputs": [str(tmp_path)], "rounds": 500, "warmup": 0, "self_test": False}
        plan = from_dict(fixed | {"frames": [1, 2]} | values)
        monkeypatch.setenv("DEAF_TIMES", str(times))
        ready, told = os.pipe()
        with tempfile.TemporaryFile() as given, open(path / "worker.log", "ab") as log:
            given.write(plan.to_json())
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-c", DEAF, str(path), "--ready-fd", str(told), "--"],
                stdin=given,
                stdout=log,
                stderr=log,
                pass_fds=(told,),
                start_new_session=True,
            )
        begun.append(process)
        os.close(told)
        with open(ready, "rb") as file:
            assert file.readline() == b"ready\n", (path / "worker.log").read_text()
        live = follow(path, process)
        live.until(lambda view: view.state == "loading", "loading")
        return live

    yield make
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.wait()


def porter_of(live):
    """The child that is a fork of the worker: it has the worker's own command line."""
    worker = psutil.Process(live.process.pid)
    (porter,) = [child for child in worker.children() if child.cmdline() == worker.cmdline()]
    return porter


def group(live):
    """Who is left of the worker's process group, dead ones that nobody has reaped included."""
    return [process.pid for process in psutil.process_iter() if getpgid(process.pid) == live.process.pid]


def getpgid(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def gone(live, seconds=3):
    """Whether nobody of that group is left, soon."""
    until = time.monotonic() + seconds
    while group(live) and time.monotonic() < until:
        time.sleep(0.005)
    return not group(live)


def answers(live):
    return list(live.view().answers.rows())


def test_a_loading_worker_answers_at_once_and_keeps_its_word(load):
    live = load(frames=[1, 2, 9])
    porter = porter_of(live)
    took = []
    for verb, arguments in [
        ("extend", {"rounds": 3}),
        ("skip", {"case": "f2-b1-n64"}),
        ("skip", {"case": "nowhere"}),
        ("resume", {}),
        ("repeat", {"case": "f1-b1-n64"}),
        ("pause", {}),
    ]:
        accepted, _, seconds = live.ask(verb, **arguments)
        assert accepted == (arguments != {"case": "nowhere"} and verb != "resume")
        took.append(seconds)
    assert live.view().state == "loading"
    assert sorted(took)[3] < 0.1
    assert max(took) < 0.5  # a machine that is busy with other tests may let a process wait

    live.until(lambda view: view.state == "paused", "the pause")
    assert not porter.is_running(), "it is reaped"
    assert live.view().schedule.rounds == 504
    assert [case.id for case in live.view().schedule.cases] == ["f1-b1-n64", "f2-b1-n64"], "refused, when told of it"
    assert store.info(live.path).runs_planned == live.view().schedule.runs, "the worker's own stream says it too"
    assert live.ask("skip", case="f2-b1-n64")[:2] == (False, "f2-b1-n64 is left out already")
    assert live.ask("resume")[0]
    live.until(lambda view: (view.runs["round"] == 503).any(), "the repeated run")
    assert live.ask("stop")[0]
    assert live.end() == 0
    assert not [run for run in live.runs() if run["case"] == "f2-b1-n64"]
    assert set(Counter(row["id"] for row in answers(live)).values()) == {1}, "nothing is answered twice"
    assert live.view().answers.n == 9
    assert live.timeline.corrupt == 0


def test_who_answers_holds_nothing_of_the_workers_open(load):
    """Else a lock, or the end of a pipe, would outlive a killed worker."""
    live = load()
    porter = porter_of(live)
    live.ask("pause")
    opened = [str(fd.readlink()) for fd in Path(f"/proc/{porter.pid}/fd").iterdir() if int(fd.name) > 2]
    assert {name for name in opened if not name.startswith("socket:")} == {
        str(live.path / "control.jsonl"),
        str(live.path / STREAM),
    }
    assert len(opened) == 3
    assert porter.num_threads() == 1


def test_a_killed_porter_is_noticed_and_its_word_is_kept(load):
    live = load(times=4)
    assert live.ask("extend", rounds=7)[0]
    porter_of(live).kill()
    later = send(live.path, "extend", rounds=2)
    view = live.until(lambda view: later.id in list(view.answers["id"]), "the worker's own answer")
    assert view.state == "loading", "it does not wait for the handover"
    live.until(lambda view: view.state == "measuring", "measuring")
    assert live.view().schedule.rounds == 509
    assert live.ask("stop")[0]
    assert live.end() == 0
    assert live.view().answers.n == 3
    assert gone(live)


def test_a_worker_killed_while_it_loads_leaves_a_whole_session_and_no_process(load):
    for moment in (0.0, 0.2):
        live = load(times=10)
        live.ask("extend", rounds=1)
        before = len(answers(live))
        until = time.monotonic() + moment
        while time.monotonic() < until:
            send(live.path, "extend", rounds=1)
        os.kill(live.process.pid, signal.SIGKILL)
        live.process.wait()
        assert store.status(live.path) == "interrupted", "nobody else holds the lock"
        assert gone(live)
        timeline = Timeline.open(live.path)
        assert timeline.corrupt == 0
        assert timeline.answers.n >= before


@pytest.mark.parametrize("how", ["command", "to the worker", "to the group"])
def test_a_load_that_hears_nobody_is_stopped(load, how):
    live = load(times=50)
    assert live.ask("extend", rounds=1)[0]
    begin = time.monotonic()
    if how == "command":
        assert live.ask("stop-now")[0]
        assert time.monotonic() - begin < 0.5
    elif how == "to the worker":
        os.kill(live.process.pid, signal.SIGTERM)
    else:
        os.killpg(live.process.pid, signal.SIGTERM)
    assert live.end() == 0
    assert time.monotonic() - begin < 8 * HELD_S
    assert store.status(live.path) == "stopped"
    assert live.states() == ["starting", "loading", "stopped"]
    by = "tester@here" if how == "command" else "SIGTERM"
    assert list(live.timeline.states.rows())[-1]["reason"] == f"stopped by {by}"
    assert [run["outcome"] for run in live.runs()] == ["cancelled"]
    assert live.view().answers.n == (2 if how == "command" else 1)
    assert gone(live)


def test_where_no_process_can_be_had_the_worker_answers_itself(load, monkeypatch):
    monkeypatch.setenv("NO_FORK", "1")
    live = load()
    assert live.ask("extend", rounds=1)[0]
    live.until(lambda view: view.state == "measuring", "measuring")
    assert any("no process to answer" in line for line in live.log())
    assert live.ask("stop")[0]
    assert live.end() == 0
    assert not (live.path / STREAM).exists()


def test_where_answers_cannot_be_written_the_session_says_why_it_ends(load):
    live = load(times=1)
    (live.path / STREAM).mkdir()
    send(live.path, "pause")
    assert live.process.wait(30) == 3
    (live.path / STREAM).rmdir()
    assert "cannot be written" in list(live.view().states.rows())[-1]["reason"]
    assert store.status(live.path) == "failed"


COMMANDS = st.builds(
    Command,
    id=st.just("x"),
    verb=st.sampled_from(["pause", "resume", "stop", "stop-now", "skip", "repeat", "extend", "dance"]),
    author=st.just("me"),
    wall=st.just(0),
    case=st.sampled_from(["", "f1-b1-n64", "f2-b1-n64", "f4-b1-n64", "nowhere"]),
    rounds=st.integers(-1, 5),
)


class Listed:
    """Commands as a :class:`CommandReader` gives them."""

    def __init__(self):
        self.waiting = []
        self.corrupt = 0

    def read(self):
        found, self.waiting = self.waiting, []
        return found


@settings(max_examples=60, deadline=None)
@given(st.lists(COMMANDS, max_size=12), st.integers(0, 12))
def test_answered_by_two_one_after_the_other_is_as_answered_by_one(commands, first):
    plan = from_dict({"frames": [1, 2, 4], "rounds": 5})

    def control():
        stream, reader, schedule = MemoryStream(), Listed(), Schedule(plan)
        return Control(reader, stream.write, HostClock(), schedule), stream, reader, schedule

    def said(stream):
        return [(answer.verb, answer.accepted, answer.text) for answer in stream.of(Answer)]

    one, alone, reader, whole = control()
    reader.waiting = list(commands)
    one.look()
    porter, before, reader, _ = control()
    reader.waiting = commands[:first]
    porter.look()
    worker, after, reader, schedule = control()
    reader.waiting = list(commands)
    worker.replay(len(before.of(Answer)))
    assert said(before) + said(after) == said(alone)
    assert schedule.event(0) == whole.event(0)
    assert (worker.paused, worker.stop, worker.stop_now) == (one.paused, one.stop, one.stop_now)
