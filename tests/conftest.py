from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


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
