from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
"""Torch tries the compiler on every instruction set first: 6 s that show nothing of ours."""

for _number in (signal.SIGINT, signal.SIGHUP):
    # In the background of a script, or under nohup, they are ignored, and so by every process that a test starts.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What torch compiles goes to a folder of the test run, for all of its processes, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of sessions that the command line uses."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    monkeypatch.setenv("LLAVA_TUI_SESSIONS", str(folder))
    return folder


@pytest.fixture
def cli(sessions: Path) -> Cli:
    """The real command in a real process, as a user's shell starts it; its output as text."""

    def run(*arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llava_tui", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LLAVA_TUI_SESSIONS": str(sessions)},
        )

    return run
