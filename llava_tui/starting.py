"""Starting a run: one way, from the command line and from the New run screen."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from llava_tui.events import Notes
from llava_tui.plan import Plan, PlanError, from_dict
from llava_tui.session import launch, store
from llava_tui.session.reader import SessionError, read_header, safe_text
from llava_tui.session.writer import is_locked

PREFLIGHT_SECONDS = 60.0
"""Decoding the first frame of an input, on a disk that sleeps."""


class _Answer(msgspec.Struct):
    plan: dict[str, object] | None = None
    problem: str = ""


def prepared_aside(plan: Plan) -> Plan:
    """The plan as it is to be run, resolved and checked by :mod:`llava_tui.preflight` in a process of its own: whoever
    only looks never loads what opens a video. Raises :class:`PlanError` with what is wrong and how to mend it."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "llava_tui.preflight"],
            input=plan.to_json(),
            capture_output=True,
            timeout=PREFLIGHT_SECONDS,
            env=launch.environment(),
        )
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except subprocess.TimeoutExpired:
        raise PlanError(f"inputs: checking them did not end within {PREFLIGHT_SECONDS:g} s") from None
    except OSError as error:
        raise PlanError(f"the plan could not be checked: {error.strerror}") from None
    except msgspec.DecodeError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise PlanError(f"the plan could not be checked: {said[-1] if said else 'no answer'}") from None
    if answer.plan is None:
        raise PlanError(answer.problem)
    return from_dict(answer.plan)


def start(folder: Path, plan: Plan, argv: list[str]) -> tuple[Path, subprocess.Popen[bytes]]:
    """Makes a session for ``plan`` (as preflight prepared it) in ``folder`` and starts its worker. Returns the
    session's folder and the worker once that is recording. ``argv`` is the command line that did it, for the header.

    Raises :class:`~llava_tui.session.reader.SessionError`; no session is left behind then.
    """
    path = store.create(folder, plan.name or plan.slug())
    try:
        if plan.name or plan.tags:
            store.set_notes(path, Notes(name=plan.name, tags=plan.tags))
        return path, launch.launch(path, plan.to_json(), argv)
    except BaseException:  # an interrupt too
        launch.remove_unborn(path)
        raise


def resume(path: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    """Starts a worker that goes on with the session in folder ``path`` from the first item of its data set that is not
    done; returns it once it is recording. ``argv`` is the command line that did it.

    Raises :class:`~llava_tui.session.reader.SessionError` for a session that cannot go on (it runs, is finished, or has
    no data set), saying what to do instead; it is then as it was.
    """
    header = read_header(path)
    name = safe_text(path.name)
    if is_locked(path):
        raise SessionError(f"{name} is running: watch it with llava-tui attach {name}")
    return launch.launch(path, from_dict(header.plan).to_json(), argv, resume=True)


def foreign_host(path: Path) -> str:
    """The name of the machine that began the session in folder ``path``, if it is not this one; else ""."""
    host = read_header(path).host.hostname
    return "" if host == socket.gethostname() else host
