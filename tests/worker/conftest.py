"""Real workers on simulated plans, followed through the files they write."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llava_tui.plan import Plan, from_dict
from llava_tui.session import store
from llava_tui.session.control import send
from llava_tui.session.launch import launch
from llava_tui.session.timeline import Timeline, View

PATIENCE_S = 60.0


class Live:
    """A launched worker and its session."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.process = process
        self.timeline = Timeline.open(path)

    def view(self) -> View:
        self.timeline.poll()
        return self.timeline.now()

    def until(self, condition: Callable[[View], Any], what: str = "") -> View:
        """Follows the session until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(view := self.view()):
            assert time.monotonic() < deadline, f"never came: {what}; state {view.state}"
            if self.process.poll() is not None and not condition(self.view()):
                raise AssertionError(f"the worker ended before: {what}; {self.states()} {self.log()}")
            time.sleep(0.003)
        return self.view()

    def ask(self, verb: str, **arguments: Any) -> tuple[bool, str, float]:
        """Sends a command; whether it was accepted, what was said, and the real seconds until that was to be read."""
        begin = time.monotonic()
        command = send(self.path, verb, author="tester@here", **arguments)
        view = self.until(lambda view: command.id in list(view.answers["id"]), f"answer to {verb}")
        took = time.monotonic() - begin
        row = next(row for row in view.answers.rows() if row["id"] == command.id)
        assert row["verb"] == verb
        assert row["author"] == "tester@here"
        return bool(row["accepted"]), row["text"], took

    def end(self) -> int:
        """Waits for the worker's end; its exit code."""
        code = self.process.wait(PATIENCE_S)
        self.timeline.poll()
        return code

    def states(self) -> list[str]:
        return [row["state"] for row in self.view().states.rows()]

    def log(self) -> list[str]:
        return [row["text"] for row in self.view().log.rows()]

    def runs(self, **values: Any) -> list[dict[str, Any]]:
        """Ended runs whose columns have these values."""
        return [row for row in self.view().runs.rows() if all(row[key] == value for key, value in values.items())]


@pytest.fixture
def plan() -> Callable[..., Plan]:
    def make(**values: Any) -> Plan:
        fixed = {"rounds": 5, "warmup": 1, "self_test": False, "cool_down": False}
        small = {"pipeline": "simulated", "time_scale": 0, "new_tokens": [16], "frames": [1]}
        return from_dict(fixed | small | values)

    return make


@pytest.fixture
def follow() -> Callable[[Path, subprocess.Popen[bytes]], Live]:
    """Follows a worker that was started in another way."""
    return Live


@pytest.fixture
def start(tmp_path: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Live]]:
    """Launches a worker on a plan of those values (simulated, as fast as possible, counts fixed); ends what is left at
    the end."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # matrices are tiny, and other tests run beside
    begun: list[Live] = []

    def make(**values: Any) -> Live:
        path = store.create(tmp_path / "sessions", "simulated")
        live = Live(path, launch(path, plan(**values).to_json(), ["llava-tui", "run", "--headless"]))
        begun.append(live)
        return live

    yield make
    for live in begun:
        if live.process.poll() is None:
            os.kill(live.process.pid, signal.SIGKILL)
        live.process.wait()
