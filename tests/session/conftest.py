from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from session_making import Child, MakeSession, MountNamespace, append, make_header

from llava_tui.session import store, writer


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[Path]:
    """Where copies are kept; nothing is left in it."""
    folder = tmp_path / "mirrors"
    yield folder
    assert [path.name for path in folder.glob("*") if path.name != ".lock"] == []


@pytest.fixture
def make_session(tmp_path: Path) -> MakeSession:
    """Makes a session in ``tmp_path / "sessions"`` out of events by stream, as the worker would."""

    def make(slug: str = "example", happened: Iterable[Any] = (), **changes: Any) -> Path:
        path = store.create(tmp_path / "sessions", slug)
        writer.write_atomically(path / "session.json", make_header(path.name, **changes))
        append(path / "events.jsonl", happened)
        return path

    return make


@pytest.fixture
def child() -> Iterator[Child]:
    """Starts Python on a script in a process of its own; returns once it printed "ready". Ends what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def in_mount_namespace() -> MountNamespace:
    """Runs a Python script where mounts are private, after a shell line that mounts; skips where it may not."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("no permission for a mount namespace (unshare -m)")

    def run(mount: str, script: str) -> subprocess.CompletedProcess[str]:
        command = f'set -e; {mount}; exec "$0" -c "$1"'
        return subprocess.run(
            [unshare, "-m", "sh", "-c", command, sys.executable, textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
