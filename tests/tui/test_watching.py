"""The monitor on a session from elsewhere, in a real terminal."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from screen_sessions import Recording
from terminal_program import TerminalProgram

Start = Callable[..., TerminalProgram]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Start]:
    """Starts a shell line in a terminal of its own, with ``$watch`` for `llava-tui watch`; the other end of ssh is this
    machine. Nothing of it is left."""
    begun: list[TerminalProgram] = []
    end = tmp_path / "instead-of-ssh"
    end.write_text('for command; do :; done\nexec sh -c "$command"\n')
    watch = shlex.join([sys.executable, "-m", "llava_tui", "watch"])
    environment = {"LLAVA_TUI_SSH": f"sh {end}", "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def start(line: str) -> TerminalProgram:
        begun.append(TerminalProgram(["/bin/sh", "-c", line.replace("$watch", watch)], environment=environment))
        return begun[-1]

    yield start
    for one in begun:
        one.end()


def test_a_run_elsewhere_is_drawn_and_steered_here_and_told_of_when_it_is_cut_off(
    program: Start, live: Callable[..., Recording], tmp_path: Path
) -> None:
    path = live().path
    screen = program(f"exec $watch ssh://gpu1{path}")
    screen.until("LIVE")
    screen.write("p")
    screen.until("pause: asked")
    screen.until("pause: no answer from the worker yet")
    assert json.loads((path / "control.jsonl").read_text())["verb"] == "pause"
    end = tmp_path / "instead-of-ssh"
    end.rename(tmp_path / "no-way")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == path:
                os.kill(int(process.name), signal.SIGKILL)
    screen.until("cut off")
    screen.until("connecting again")
    (tmp_path / "no-way").rename(end)
    screen.until("connected again")
    screen.write("q")
    screen.ended_within(10)
    assert screen.code == 0
    assert (
        f"the run goes on; llava-tui watch --ssh 'sh {tmp_path}/instead-of-ssh' ssh://gpu1{path}".encode()
        in screen.output
    )
    assert [one.name for one in (tmp_path / "cache" / "llava-tui" / "watch").iterdir()] == [".lock"]


def test_a_session_out_of_a_pipe_is_drawn_and_the_keys_come_from_the_terminal(
    program: Start, finished: Path, tmp_path: Path
) -> None:
    screen = program(f"cd {finished}; cat session.json events.jsonl telemetry.jsonl | $watch -")
    screen.until("FINISHED")
    screen.write("?")
    screen.until("Browse the sessions.")
    screen.write("?q")
    screen.ended_within(10)
    assert screen.code == 0
    assert [one.name for one in (tmp_path / "cache" / "llava-tui" / "watch").iterdir()] == [".lock"]


def test_a_run_out_of_a_pipe_offers_nothing_that_would_steer_it(program: Start, live: Callable[..., Recording]) -> None:
    path = live().path
    screen = program(f"cd {path}; tail -qn +1 -f session.json events.jsonl telemetry.jsonl | $watch -")
    screen.until("LIVE")
    screen.write("?")
    screen.until("Browse the sessions.")
    assert b"Pause the run" not in screen.output
    screen.write("?q")
    screen.until("the run goes on")


def test_watch_without_a_pipe_says_what_to_pipe(program: Start) -> None:
    screen = program("exec $watch -")
    screen.ended_within(20)
    assert screen.code == 2
    assert b"llava-tui: standard input is a terminal: pipe a session in" in screen.output
