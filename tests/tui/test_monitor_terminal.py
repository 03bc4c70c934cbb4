"""The monitor on a real terminal, beside a real worker: what it costs, and what happens when either goes away."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from terminal_program import ESCAPES, TerminalProgram

from llava_tui.plan import Plan
from llava_tui.session import launch, store
from llava_tui.session.timeline import Timeline


@pytest.fixture
def program() -> Iterator[Callable[..., TerminalProgram]]:
    """Starts the monitor on a session in a pseudo-terminal; ends what is left of it."""
    started: list[TerminalProgram] = []

    def start(session: Path, *options: str, **how: Any) -> TerminalProgram:
        started.append(TerminalProgram.monitor(session, *options, **how))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A simulated run that goes on for longer than the tests."""
    path = store.create(tmp_path_factory.mktemp("sessions"), "running")
    plan = Plan(pipeline="simulated", model="llava-1.5-7b", frames=(1,), new_tokens=(32,), rounds=2000, warmup=1)
    worker = launch.launch(path, plan.to_json(), ["test"])
    yield path, worker
    worker.kill()
    worker.wait()


def last_events(path: Path) -> int:
    return (path / "events.jsonl").stat().st_size


def test_q_detaches_restores_the_terminal_and_the_run_goes_on(
    program: Callable[..., TerminalProgram], running: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    path, worker = running
    monitor = program(path)
    monitor.until("LIVE")
    monitor.write("q")
    monitor.ended_within(10)
    assert monitor.code == 0
    after = monitor.output.rpartition(b"\x1b[?1049l")[2]
    assert f"detached: the run goes on; llava-tui attach {path.name}" in ESCAPES.sub(b"", after).decode()
    assert worker.poll() is None
    assert store.status(path) == "running"


@pytest.mark.parametrize("how", ["SIGHUP", "SIGTERM", "hang-up", "hang-up with SIGHUP ignored"])
def test_the_monitor_ends_with_its_terminal_and_the_worker_never_notices(
    program: Callable[..., TerminalProgram], running: tuple[Path, subprocess.Popen[bytes]], how: str
) -> None:
    path, worker = running
    monitor = program(path, ignore_hangup=how == "hang-up with SIGHUP ignored")
    monitor.until("median")
    if how.startswith("SIG"):
        os.kill(monitor.pid, getattr(signal, how))
    else:
        monitor.hang_up()
    monitor.ended_within(2)
    assert worker.poll() is None
    assert store.status(path) == "running"


def test_a_terminal_that_takes_nothing_any_more_does_not_keep_the_monitor_alive(
    program: Callable[..., TerminalProgram], running: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    path, worker = running
    monitor = program(path, "--fps", "60")
    monitor.until("median")
    time.sleep(2)  # nobody reads: the terminal's buffer, then Textual's queue of writes fill up
    os.kill(monitor.pid, signal.SIGHUP)
    monitor.ended_within(2, reading=False)
    assert worker.poll() is None


def test_killed_at_random_moments_the_monitor_leaves_the_run_alone(
    program: Callable[..., TerminalProgram], running: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    path, worker = running
    chance = random.Random(7)
    before = (path / "control.jsonl").stat().st_size
    size = last_events(path)
    for _ in range(5):
        # Four at a time: any number may watch.
        monitors = [program(path) for _ in range(4)]
        began = time.monotonic()
        moments = sorted(chance.uniform(0, 1.5) for _ in monitors)
        for index, (monitor, moment) in enumerate(zip(monitors, moments, strict=True)):
            while time.monotonic() < began + moment:
                for other in monitors[index:]:
                    other.read(0.01)
            os.kill(monitor.pid, signal.SIGHUP if index % 2 else signal.SIGKILL)
            monitor.ended_within(2)
    assert worker.poll() is None
    assert last_events(path) > size
    assert (path / "control.jsonl").stat().st_size == before
    assert Timeline.open(path).corrupt == 0


def test_keys_steer_the_worker_and_its_answers_come_back(
    tmp_path: Path, program: Callable[..., TerminalProgram]
) -> None:
    path = store.create(tmp_path, "steered")
    plan = Plan(
        pipeline="simulated", model="llava-1.5-7b", frames=(1,), new_tokens=(16,), rounds=2000, warmup=1, time_scale=0.2
    )
    worker = launch.launch(path, plan.to_json(), ["test"])
    try:
        monitor = program(path)
        monitor.until("median")
        monitor.write("p")
        monitor.until("PAUSED")
        monitor.write("p")
        monitor.until("resume:")
        monitor.write("s")
        monitor.until("Stop the run?")
        monitor.write("y")
        assert worker.wait(20) == 0
        monitor.until("STOPPED")
        monitor.write("q")
        monitor.ended_within(10)
        assert "detached" not in ESCAPES.sub(b"", monitor.output).decode()
    finally:
        worker.kill()
        worker.wait()


def test_ascii_sends_ascii_alone(program: Callable[..., TerminalProgram], finished: Path) -> None:
    monitor = program(finished, "--ascii", cols=80, rows=24)
    monitor.until("unaccounted")
    monitor.read(0.5)
    assert monitor.output.isascii()


def test_low_bandwidth_has_no_mouse_motion_and_no_true_colour(
    program: Callable[..., TerminalProgram], finished: Path
) -> None:
    monitor = program(finished, "--low-bandwidth", cols=80, rows=24)
    monitor.until("unaccounted")
    monitor.read(0.5)
    assert b"\x1b[?1003h" not in monitor.output
    assert not re.search(rb"[34]8;2;", monitor.output)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "vt100"}, {"TERM": "xterm", "COLORTERM": ""}])
def test_a_poor_terminal_is_good_enough(
    program: Callable[..., TerminalProgram], finished: Path, environment: dict[str, str]
) -> None:
    monitor = program(finished, cols=80, rows=24, environment=environment)
    monitor.until("unaccounted")
    monitor.write("q")
    monitor.ended_within(10)
    assert monitor.code == 0


def test_without_a_terminal_there_is_one_line_and_exit_code_2(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llava_tui", "open", str(finished)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("how", "named"), [(("TERM=dumb",), "TERM=dumb"), (("TERM=",), "TERM=(unset)"), (("-u", "TERM"), "TERM=(unset)")]
)
def test_a_terminal_that_cannot_be_drawn_on_is_one_line_and_exit_code_2(
    finished: Path, how: tuple[str, ...], named: str
) -> None:
    monitor = TerminalProgram(["/usr/bin/env", *how, sys.executable, "-m", "llava_tui", "open", str(finished)])
    try:
        monitor.ended_within(10)
        assert monitor.code == 2
        (line,) = monitor.output.decode().splitlines()
        assert line.startswith(f"llava-tui: the monitor cannot draw on {named}: set TERM to")
    finally:
        monitor.end()


def test_the_monitor_loads_nothing_that_measures(finished: Path) -> None:
    script = """
import asyncio, json, sys
from pathlib import Path
from llava_tui.tui.app import LlavaTui

async def look() -> None:
    app = LlavaTui(Path(sys.argv[1]))
    async with app.run_test(size=(120, 40)) as pilot:
        for _ in range(500):
            await pilot.pause(0.02)
            if app.screen.timeline is not None:
                break
        await pilot.press("v", "question_mark", "escape", "ctrl+t")
        await pilot.pause(0.2)

before = sorted(sys.modules)
asyncio.run(look())
print(json.dumps([before, sorted(sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(finished)], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout.splitlines()[-1])
    heavy = {"torch", "torchvision", "transformers", "accelerate", "av", "PIL", "scipy", "pynvml"}
    assert heavy & {name.partition(".")[0] for name in after} == set()
    assert "numpy" in after
    # What the first paint does not wait for.
    assert {"numpy", "msgspec"} & set(before) == set()


def test_a_live_run_costs_few_bytes(
    program: Callable[..., TerminalProgram], running: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    path, _ = running
    monitor = program(path)
    monitor.until("median")
    monitor.read(1)
    before, since = len(monitor.output), time.monotonic()
    while time.monotonic() - since < 3:
        monitor.read(0.5)
    # The budget is 4 kB/s (benchmarks/terminal.py measures it); twice that is a defect.
    assert (len(monitor.output) - before) / (time.monotonic() - since) < 8000
