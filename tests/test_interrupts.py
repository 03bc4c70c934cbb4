"""Ctrl+c at any moment of a command's start: one line, exit code 130, no traceback, and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llava_tui.session import store

LINE = "llava-tui: interrupted\n"
RUN = ("run", "--pipeline", "simulated", "--frames", "1", "--new-tokens", "16", "--rounds", "200", "--headless")
AT = """
import os, runpy, signal, sys
module, sys.argv = sys.argv[1], ["llava-tui", *sys.argv[2:]]
class Interrupt:
    def find_spec(name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
runpy.run_module("llava_tui", run_name="__main__")
"""
"""The command line, interrupted when it begins to load the module that is named."""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("click", ("list",)),
        ("llava_tui.cli.verbs", ("--help",)),
        ("llava_tui.cli.looking", ("list",)),
        ("llava_tui.session.store", ("list",)),
        ("msgspec", ("list",)),
        ("numpy", ("show", "@latest")),
        ("llava_tui.cli.runs", RUN),
        ("llava_tui.plan", RUN),
        ("llava_tui.report.progress", RUN),
        ("llava_tui.session.launch", RUN),
    ],
)
def test_an_interrupt_while_a_command_loads_is_one_line(
    sessions: Path, recorded: Path, module: str, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT, module, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (130, LINE)
    assert list(sessions.iterdir()) == [recorded]


def test_an_interrupt_while_the_worker_starts_leaves_no_worker(sessions: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llava_tui", *RUN, "--time-scale", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not list(sessions.glob("*/worker.log")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(err.splitlines()) == 1, err
    assert [store.status(path) for path in sessions.iterdir()] in ([], ["stopped"])


def test_a_job_in_the_background_is_not_interrupted(sessions: Path) -> None:
    """A shell starts one with SIGINT ignored: ctrl+c is for the job in the foreground."""
    done = subprocess.run(
        [sys.executable, "-c", AT, "msgspec", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        env=os.environ | {"LLAVA_TUI_SESSIONS": str(sessions)},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def recorded(sessions: Path) -> Path:
    """A session of which nothing is known but that it is there."""
    path = sessions / "20260101-000000-one"
    path.mkdir()
    (path / "session.json").write_text("{}")
    return path
