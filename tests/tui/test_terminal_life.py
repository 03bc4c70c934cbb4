"""What happens to a terminal in the course of a night: it is resized, suspended, detached from, closed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyte
import pytest
from screen_sessions import LOADING, WALL, Recording
from terminal_program import ESCAPES, TerminalProgram

MONITOR = f"{sys.executable} -m llava_tui open"


@pytest.fixture
def terminal() -> Iterator[Callable[..., TerminalProgram]]:
    """Starts programs in pseudo-terminals; ends what is left of them."""
    started: list[TerminalProgram] = []

    def start(argv: list[str], **how: object) -> TerminalProgram:
        started.append(TerminalProgram(argv, **how))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.end()


def resize(program: TerminalProgram, columns: int, lines: int) -> None:
    fcntl.ioctl(program.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def picture(program: TerminalProgram, columns: int, lines: int, since: int = 0) -> list[str]:
    """What a terminal of that size shows of what was written."""
    screen = pyte.Screen(columns, lines)
    pyte.ByteStream(screen).feed(program.output[since:])
    return list(screen.display)


def until(program: TerminalProgram, true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, ESCAPES.sub(b"", program.output)[-1500:].decode(errors="replace")
        program.read(0.1)


def settle(program: TerminalProgram) -> None:
    """Until it has written nothing for half a second."""
    written = -1
    while written != len(program.output):
        written = len(program.output)
        program.read(0.5)


def share_of_a_core(pid: int, program: TerminalProgram, seconds: float = 1.0) -> float:
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        program.read(left)
    return (sum(process.cpu_times()[:2]) - before) / seconds


def test_a_window_made_tiny_and_large_again_shows_what_it_showed(
    terminal: Callable[..., TerminalProgram], finished: Path
) -> None:
    monitor = terminal([*MONITOR.split(), str(finished)], cols=80, rows=24)
    monitor.until("unaccounted")
    settle(monitor)
    before = picture(monitor, 80, 24)
    for columns, lines in ((20, 5), (3, 1), (80, 24)):
        at = len(monitor.output)
        resize(monitor, columns, lines)
        until(monitor, lambda at=at: len(monitor.output) > at)
        settle(monitor)
    until(monitor, lambda: picture(monitor, 80, 24, at) == before)
    monitor.write("q")
    monitor.ended_within(10)
    assert monitor.code == 0


def test_suspended_and_brought_back_the_monitor_goes_on(
    terminal: Callable[..., TerminalProgram], live: Callable[..., Recording]
) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    shell = terminal(["/bin/bash", "--norc", "-i"], cols=100, rows=30, environment={"PS1": "READY> "})
    shell.until("READY>")
    shell.write(f"{MONITOR} {recording.path}\n")
    shell.until("LIVE")
    shell.write("\x1a")
    shell.until("Stopped")
    assert b"\x1b[?1049l" in shell.output, "the shell's own screen is back"
    recording.write_until(LOADING + 3 * WALL)
    resize(shell, 80, 24)
    at = len(shell.output)
    shell.write("fg\n")
    until(shell, lambda: any("LIVE" in line for line in picture(shell, 80, 24, at)))
    until(shell, lambda: any("2/8" in line or "3/8" in line for line in picture(shell, 80, 24, at)))
    child = psutil.Process(shell.pid).children()[0]
    assert share_of_a_core(child.pid, shell) < 0.6
    shell.write("q")
    shell.until("detached: the run goes on")
    shell.write("exit\n")
    shell.ended_within(10)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")
def test_detached_from_in_tmux_the_monitor_waits_and_is_there_again(
    terminal: Callable[..., TerminalProgram], live: Callable[..., Recording], tmp_path: Path
) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", os.devnull]

    def shown() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    subprocess.run([*tmux, "new-session", "-d", "-x", "100", "-y", "30", f"{MONITOR} {recording.path}"], check=True)
    try:
        client = terminal([shutil.which("tmux") or "", *tmux[1:], "attach"], cols=100, rows=30)
        client.until("LIVE")
        pane = subprocess.run([*tmux, "list-panes", "-F", "#{pane_pid}"], capture_output=True, text=True, check=True)
        pid = int(pane.stdout)
        client.write("\x02d")  # detach
        client.ended_within(10)
        recording.write_until(LOADING + 3 * WALL)
        end = time.monotonic() + 20
        while "2/8" not in shown() and "3/8" not in shown():
            assert time.monotonic() < end, shown()
        again = terminal([shutil.which("tmux") or "", *tmux[1:], "attach"], cols=80, rows=24)
        again.until("LIVE")
        os.kill(again.pid, signal.SIGKILL)  # a lost connection
        again.ended_within(5)
        assert psutil.pid_exists(pid)
        assert "LIVE" in shown()
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    end = time.monotonic() + 5
    while psutil.pid_exists(pid):
        assert time.monotonic() < end, "the monitor outlived its tmux"


@pytest.mark.parametrize("keys", ["b", "\x0e", "c", "a", "?", "bn", "s"])
def test_on_every_screen_a_closed_terminal_ends_the_program(
    terminal: Callable[..., TerminalProgram], live: Callable[..., Recording], keys: str
) -> None:
    recording = live()
    recording.write_until(LOADING + 2 * WALL)
    program = terminal([*MONITOR.split(), str(recording.path)], ignore_hangup=True)
    program.until("LIVE")
    for key in keys:
        program.write(key)
        program.read(0.5)
    program.hang_up()
    program.ended_within(3)


def test_a_terminal_that_has_no_size_is_drawn_on_and_left(
    terminal: Callable[..., TerminalProgram], finished: Path
) -> None:
    program = terminal([*MONITOR.split(), str(finished)], cols=0, rows=0)
    program.until("unaccounted")
    program.write("q")
    program.ended_within(5)
    assert program.code == 0
