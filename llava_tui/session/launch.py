"""Starting the worker: a process of its own that outlives the terminal it was started from."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llava_tui
from llava_tui.session.reader import HEADER, SessionError, is_there, safe_text

WORKER_LOG = "worker.log"


class LaunchError(SessionError):
    """The worker ended before it was ready: the message is the worker's own."""


def launch(
    path: Path, plan_json: bytes, argv: list[str], *, resume: bool = False, patience: float = 60.0
) -> subprocess.Popen[bytes]:
    """Starts the worker on the session folder ``path`` and returns once it holds the lock and has written the header;
    ``resume``: on a session that has one, to go on with it.

    The worker runs in its own process session, reads the plan from its standard input, and writes what it and its
    libraries print to ``worker.log``. ``argv`` is the command line that the user gave, for the header.
    Raises :class:`LaunchError` with the worker's own message if it ends first, or is not ready within ``patience``
    seconds; a folder that never got a header is then removed.
    """
    path = Path(path)
    try:
        process, ready = _start(path, plan_json, argv, resume)
    except OSError as error:
        remove_unborn(path)
        raise LaunchError(f"cannot start the worker in {safe_text(str(path))}: {error.strerror or error}") from None
    except BaseException:  # an interrupt; a worker that was started nevertheless ends without its folder
        remove_unborn(path)
        raise
    try:
        answer = _first_line(ready, patience)
        if answer == "ready":
            return process
        raise LaunchError(_reason(path, process, answer, patience))
    except BaseException:  # an interrupt too: nobody watches this worker yet
        _end(process)
        remove_unborn(path)
        raise
    finally:
        os.close(ready)


def _start(path: Path, plan_json: bytes, argv: list[str], resume: bool) -> tuple[subprocess.Popen[bytes], int]:
    ready, told = os.pipe()
    options = ["--ready-fd", str(told), *(["--resume"] if resume else [])]
    try:
        # The plan goes through a nameless file, not a pipe: the worker reads it whenever it likes.
        with tempfile.TemporaryFile() as plan, open(path / WORKER_LOG, "ab") as log:
            plan.write(plan_json)
            plan.seek(0)
            process = subprocess.Popen(
                # -P: a random.py in the user's folder must not stand in for Python's own.
                [sys.executable, "-P", "-m", "llava_tui.worker", str(path), *options, "--", *argv],
                stdin=plan,
                stdout=log,
                stderr=log,
                pass_fds=(told,),
                start_new_session=True,
                env=environment(),
            )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(told)
    return process, ready


def environment() -> dict[str, str]:
    """This process's environment; a package that runs from its source tree is found there by its children too."""
    environment = dict(os.environ)
    root = str(Path(llava_tui.__file__).resolve().parent.parent)
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    return environment


def _first_line(fd: int, patience: float) -> str | None:
    """The first line that comes out of a pipe, "" if its other end closes without one, None if it takes too long."""
    until = time.monotonic() + patience
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    data = b""
    while b"\n" not in data:
        if not poller.poll(max(0, until - time.monotonic()) * 1000):
            return None
        if not (more := os.read(fd, 4096)):
            break
        data += more
    return data.split(b"\n")[0].decode("utf-8", "replace").strip()


def _reason(path: Path, process: subprocess.Popen[bytes], answer: str | None, patience: float) -> str:
    if answer is None:
        return f"the worker was not ready within {patience:g} s" + _last_words(path)
    if answer:
        return safe_text(answer.removeprefix("error:").strip(), 2000)
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "the worker never said that it was ready" + _last_words(path)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the worker ended before it was ready ({how})" + _last_words(path)


def _last_words(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (path / WORKER_LOG).read_bytes()[-4096:].decode("utf-8", "replace").strip().splitlines()
        if lines:
            return ": " + safe_text(lines[-1], 300)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # the process leads a group of its own: its sampler goes with it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove_unborn(path: Path) -> None:
    """Removes the session folder ``path`` unless its worker has written the header."""
    if not is_there(path / HEADER):
        shutil.rmtree(path, ignore_errors=True)
