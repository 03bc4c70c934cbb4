"""Starting a worker: a real process each time, standing in for the one that loads models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llava_tui.session import store
from llava_tui.session.launch import LaunchError, launch

Worker = Callable[[str], Path]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Makes ``launch`` run this script in place of Python on the worker; gives a session folder to launch on."""

    def stand_in(script: str) -> Path:
        executable = tmp_path / "python"
        prelude = """
            import os, sys
            from pathlib import Path
            path, ready = Path(sys.argv[4]), int(sys.argv[6])
            """
        executable.write_text(f"#!{sys.executable}\n" + textwrap.dedent(prelude) + textwrap.dedent(script))
        executable.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(executable))
        return store.create(tmp_path / "sessions", "launched")

    return stand_in


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to be ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_worker_that_is_ready_runs_on_in_a_process_session_of_its_own(
    worker: Worker, ended: list[subprocess.Popen[bytes]]
) -> None:
    path = worker(
        """
        import json, time
        print("a progress bar")
        print("a warning", file=sys.stderr, flush=True)
        seen = {"argv": sys.argv[1:], "plan": sys.stdin.read(), "sid": os.getsid(0), "pid": os.getpid()}
        (path / "session.json").write_text(json.dumps(seen))
        os.write(ready, b"rea")
        os.write(ready, b"dy\\n")
        time.sleep(60)
        """
    )
    plan = json.dumps({"prompt": "x" * 200_000}).encode()  # more than a pipe holds
    process = launch(path, plan, ["llava-tui", "run", "--headless"])
    ended.append(process)
    assert process.poll() is None
    seen = json.loads((path / "session.json").read_text())
    assert seen["argv"][:2] == ["-P", "-m"]
    assert seen["argv"][2:4] == ["llava_tui.worker", str(path)]
    assert seen["argv"][6:] == ["--", "llava-tui", "run", "--headless"]
    assert seen["plan"].encode() == plan
    assert seen["sid"] == seen["pid"] == process.pid
    assert seen["sid"] != os.getsid(0)
    assert sorted((path / "worker.log").read_text().splitlines()) == ["a progress bar", "a warning"]


def test_a_worker_that_refuses_is_quoted_and_leaves_nothing(worker: Worker) -> None:
    path = worker(
        'os.write(ready, b"error: the model folder has no config.json; give \\x1b[31manother\\n"); sys.exit(2)'
    )
    with pytest.raises(LaunchError) as caught:
        launch(path, b"{}", [])
    assert str(caught.value) == "the model folder has no config.json; give another"
    assert not path.exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('sys.exit("ModuleNotFoundError: no x")', "ended before it was ready (exit code 1): ModuleNotFoundError: no x"),
        ("sys.exit(0)", "ended before it was ready (exit code 0)"),
        ("os.kill(os.getpid(), 9)", "ended before it was ready (signal 9)"),
    ],
)
def test_a_worker_that_just_ends_is_told_with_its_last_words(worker: Worker, script: str, message: str) -> None:
    path = worker(script)
    with pytest.raises(LaunchError) as caught:
        launch(path, b"{}", [])
    assert str(caught.value) == f"the worker {message}"
    assert not path.exists()


def test_a_worker_that_hangs_is_ended_with_all_its_children(worker: Worker, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = worker(
        f"""
        import time
        child = os.fork()
        if child:
            Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{child}}")
            print("loading", flush=True)
        time.sleep(60)
        """
    )
    with pytest.raises(LaunchError, match=r"the worker was not ready within 1 s"):
        launch(path, b"{}", [], patience=1)
    parent, child = (int(pid) for pid in pids.read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(parent, 0)
    while not gone(child):  # its parent was waited for; nobody waits for it
        time.sleep(0.01)
    assert not path.exists()


def gone(pid: int) -> bool:
    """Whether a process that is not ours to wait for has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def test_a_header_that_was_written_is_kept_whatever_came_after(worker: Worker) -> None:
    path = worker('(path / "session.json").write_text("{}"); os.write(ready, b"error: too late\\n"); sys.exit(3)')
    with pytest.raises(LaunchError, match=r"^too late$"):
        launch(path, b"{}", [])
    assert (path / "session.json").exists()


def test_an_interrupt_while_waiting_leaves_no_worker_behind(worker: Worker, tmp_path: Path) -> None:
    path = worker(f"import time; Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)")

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(path, b"{}", [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not path.exists()
    if (tmp_path / "pid").exists():  # it had got as far as running
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_python_that_is_not_there_is_said(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = worker("")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(LaunchError, match="cannot start the worker"):
        launch(path, b"{}", [])
    assert not path.exists()


def test_the_real_worker_is_found_from_any_folder_and_says_what_is_wrong_with_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    path = store.create(tmp_path / "sessions", "launched")
    with pytest.raises(LaunchError, match=r"novelty: no such field in a plan"):
        launch(path, b'{"novelty": 1}', ["llava-tui"])
    assert not path.exists()
