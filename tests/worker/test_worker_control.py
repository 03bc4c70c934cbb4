"""What viewers and the system ask of a running worker, and how it ends."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from llava_tui.session import store
from llava_tui.session.control import send
from llava_tui.session.timeline import Timeline


def measured(live, case):
    return [row for row in live.view().started.rows() if row["kind"] == "measured" and row["case"] == case]


def test_every_command_is_answered_at_once_and_does_what_it_says(start):
    live = start(time_scale=0.1, frames=[1, 2], rounds=200, warmup=0)
    took = []

    def ask(verb, **arguments):
        accepted, text, seconds = live.ask(verb, **arguments)
        took.append(seconds)
        return accepted, text

    live.until(lambda view: view.state == "measuring", "measuring")
    assert ask("extend", rounds=2) == (True, "2 more rounds: 202 in all")
    assert ask("extend")[0] is False
    assert ask("repeat", case="f2-b1-n16") == (True, "f2-b1-n16: one run more")
    assert ask("repeat", case="nowhere") == (False, "no case 'nowhere'; there are f1-b1-n16, f2-b1-n16")
    view = live.until(lambda view: 202 in {row["round"] for row in view.runs.rows()}, "the repeated run")
    assert view.schedule.rounds == 203
    assert view.schedule.rule == "202 rounds and 1 repeat"

    assert ask("resume") == (False, "not paused")
    assert ask("pause")[0]
    live.until(lambda view: view.state == "paused", "pause")
    assert store.status(live.path) == "paused"
    runs = len(live.runs())
    assert ask("pause") == (False, "already paused")
    with open(live.path / "control.jsonl", "ab") as stream:
        stream.write(b'not json\n{"id":"1","verb":"dance","author":"me\\u001b[31m","wall":0}\n')
    live.until(lambda view: "1" in list(view.answers["id"]), "the answer to an unknown verb")
    last = list(live.timeline.answers.rows())[-1]
    assert (last["accepted"], last["author"]) == (0, "me")
    assert "no such command: 'dance'" in last["text"]
    assert any("1 line ignored" in line for line in live.log())
    assert len(live.runs()) == runs, "nothing runs while it is paused"
    assert ask("resume")[0]

    assert ask("skip", case="f1-b1-n16")[0]
    skipped = len(measured(live, "f1-b1-n16"))
    before = len(measured(live, "f2-b1-n16"))
    live.until(lambda view: len(measured(live, "f2-b1-n16")) > before + 3, "runs of the other case")
    assert len(measured(live, "f1-b1-n16")) <= skipped + 1
    assert ask("stop")[0]
    assert live.end() == 0
    assert store.status(live.path) == "stopped"
    assert list(live.timeline.states.rows())[-1]["reason"] == "stopped by tester@here"
    assert {row["outcome"] for row in live.runs()} == {"ok"}, "stop waits for the run to end"
    assert (live.path / "summary.json").exists()
    took.sort()
    assert took[len(took) // 2] < 0.2
    assert took[-1] < 1.0  # a machine that is busy with other tests may let a process wait


def test_stop_now_cuts_the_run_short(start):
    live = start(time_scale=0.2, new_tokens=[3000], rounds=5, warmup=0)
    live.until(lambda view: view.text_hints.n > 2, "some tokens")
    begin = time.monotonic()
    assert live.ask("stop-now")[0]
    assert live.end() == 0
    assert time.monotonic() - begin < 2
    assert live.runs()[-1]["outcome"] == "cancelled"
    assert live.states()[-2:] == ["closing", "stopped"]
    assert store.status(live.path) == "stopped"


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_load_can_be_stopped(start, how):
    live = start(time_scale=5)
    live.until(lambda view: view.state == "loading", "loading")
    assert live.ask("pause")[0], "heard while loading"
    if how == "command":
        assert live.ask("stop-now")[0]
    else:
        os.kill(live.process.pid, signal.SIGTERM)
    assert live.end() == 0
    assert [row["outcome"] for row in live.runs()] == ["cancelled"]
    assert live.states() == ["starting", "loading", "stopped"]
    assert store.status(live.path) == "stopped"


def test_a_closed_terminal_is_ignored_and_a_polite_end_is_taken(start):
    live = start(time_scale=0.2, rounds=1000)
    os.kill(live.process.pid, signal.SIGHUP)
    live.until(lambda view: view.state == "measuring", "measuring after SIGHUP")
    os.kill(live.process.pid, signal.SIGTERM)
    assert live.end() == 0
    assert store.status(live.path) == "stopped"
    assert list(live.timeline.states.rows())[-1]["reason"] == "stopped by SIGTERM"


def test_what_was_asked_before_anything_ran_is_heard(start):
    live = start(time_scale=0.3, rounds=50)
    assert live.ask("skip") == (False, "no case is running yet; name one", pytest.approx(0, abs=1.0))
    send(live.path, "stop")
    assert live.end() == 0
    assert live.states()[-1] == "stopped"
    assert live.runs(kind="measured") == []


def test_killed_at_any_moment_the_session_opens(start):
    moments = random.Random(7)
    for _ in range(5):
        live = start(time_scale=0.02, rounds=100_000)
        time.sleep(moments.uniform(0, 0.4))  # The moment is the point here.
        os.kill(live.process.pid, signal.SIGKILL)
        live.process.wait()
        assert store.status(live.path) == "interrupted"
        timeline = Timeline.open(live.path)
        assert timeline.corrupt == 0, "a torn last line is not yet a line"
        assert timeline.states.n > 0 or timeline.runs.n == 0


def test_hearing_a_command_loads_nothing(tmp_path):
    """A command comes between two tokens of a timed run: importing numpy there would be 0.2 s of somebody's figure."""
    script = f"""
import sys
from pathlib import Path
import llava_tui.worker.main
from llava_tui.session.control import CommandReader, send
path = Path({str(tmp_path)!r})
reader = CommandReader(path)
before = set(sys.modules)
send(path, "pause")
assert [command.verb for command in reader.read()] == ["pause"]
print(*sorted(set(sys.modules) - before))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"numpy", "torch", "scipy", "textual", "psutil"}
    assert heavy.isdisjoint(result.stdout.split())
    assert len(result.stdout.split()) < 5
