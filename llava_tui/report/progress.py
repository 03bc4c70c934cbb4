"""A running session followed from a command line: progress lines, and the answer to a command."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from llava_tui import units
from llava_tui.events import FINAL_STATES
from llava_tui.report import facts, overview
from llava_tui.session import control, store
from llava_tui.session.reader import safe_text
from llava_tui.session.source import Source
from llava_tui.session.timeline import Timeline, View

POLL_SECONDS = 0.1
ANSWER_SECONDS = 10.0
"""A worker answers within 200 ms or one token; a token of a big model on a CPU can take seconds."""


class Lines:
    """Says what is new in a timeline, a line a run. Holds what it has said."""

    def __init__(self, timeline: Timeline, say: Callable[[str], None]) -> None:
        self._timeline = timeline
        self._say = say
        self._states = self._runs = self._log = self._facts = 0

    def update(self) -> None:
        view = self._timeline.now()
        states = [view.states.row(index) for index in range(self._states, view.states.n)]
        news = [(row["t"], ": ".join(filter(None, (row["state"], safe_text(row["reason"]))))) for row in states]
        log = [view.log.row(index) for index in range(self._log, view.log.n)]
        marks = {"info": "", "warning": "warning: ", "error": "error: "}
        whose = {row["rank"]: f"rank {row['rank']}: " if row["rank"] else "" for row in log}
        news += [
            (row["t"], marks[row["level"]] + whose[row["rank"]] + row["text"]) for row in log if row["level"] in marks
        ]
        news += [(int(view.runs["t"][index]), _run_line(view, index)) for index in range(self._runs, view.runs.n)]
        told = zip(view.facts["t"][self._facts :], view.facts["event"][self._facts :], strict=True)
        news += [(int(t), text) for t, fact in told if (text := facts.sentence(fact))]
        self._states, self._log, self._runs = view.states.n, view.log.n, view.runs.n
        self._facts = view.facts.n
        for t, text in sorted(news, key=lambda line: line[0]):
            self._say(f"{units.clock(t - self._timeline.start)}  {text}")


def _run_line(view: View, index: int) -> str:
    row = view.runs.row(index)
    schedule = view.schedule
    most = "≤" if schedule is not None and schedule.open else ""
    of = f"/{most}{schedule.runs}" if schedule is not None and row["kind"] != "load" else ""
    what = "load" if row["kind"] == "load" else f"run {row['run']}{of}  {row['kind']:<11} {row['case']}"
    if row["outcome"] != "ok":
        return f"{what}  {row['outcome']}: {safe_text(row['reason'])}"
    mask = view.stages["run"] == row["run"]
    names = view.stages.names("stage")
    steps = {
        names[int(code)]: float(duration)
        for code, duration in zip(view.stages["stage"][mask], view.stages["duration"][mask], strict=True)
    }
    parts = "  ".join(
        f"{path} {units.duration(value)}" for path, value in steps.items() if "." not in path and path != "load"
    )
    return f"{what}  {units.duration(row['wall'])}" + (f"  ({parts})" if parts else "")


def follow(path: Path, worker: subprocess.Popen[bytes], *, json_: bool) -> int:
    """Follows the session until its worker has ended, and tells what came of it; returns the command's exit code.
    Interrupts as for :func:`watch`."""
    seen = watch(path, worker, (lambda line: None) if json_ else click.echo)
    if seen.timeline is None:
        return seen.interrupted or gone(path)
    info = store.info(path)
    click.echo(overview.as_json(info, seen.timeline) if json_ else "\n" + overview.as_text(info, seen.timeline))
    if seen.interrupted:
        return seen.interrupted
    if info.status in ("failed", "interrupted"):
        return failed(path)
    if info.reason:  # it ended well, but not all of it
        click.echo(f"llava-tui: {safe_text(info.reason)}", err=True)
    return 0


@dataclass(frozen=True, slots=True)
class Watched:
    """How following a session went."""

    timeline: Timeline | None
    """The session, to its worker's end; ``None`` where the run was left to itself, or its folder is gone."""
    interrupted: int
    """The exit code of a command that was interrupted; 0 where it was not."""


_asked: list[int] = []
"""Signals that came while nobody could pass them on."""


def hold() -> None:
    """From here on ctrl+c and SIGTERM wait until :func:`watch` can pass them on to the worker that is being started. A
    SIGINT that is ignored stays ignored."""
    signal.signal(signal.SIGTERM, _note)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _note)


def _note(number: int, frame: FrameType | None) -> None:
    _asked.append(number)


def watch(path: Path, worker: subprocess.Popen[bytes], say: Callable[[str], None]) -> Watched:
    """Says what happens in the session until its worker has ended.

    Ctrl+C asks the worker to stop in the middle of its run and waits for it; a second one leaves it to itself. So does
    SIGTERM, for a job that ran out of its time must not leave a worker behind. A hang-up only ends the following: the
    run outlives the terminal.
    """
    lines: Lines | None = None
    interrupted = 0
    while True:
        try:
            if lines is None:
                signal.signal(signal.SIGTERM, _terminated)
                if signal.getsignal(signal.SIGINT) is _note:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
            if _asked:
                raise Terminated if _asked.pop() == signal.SIGTERM else KeyboardInterrupt
            if lines is None:
                timeline = Timeline.open(path)
                say(f"session {path}")
                lines = Lines(timeline, say)
            ended = worker.poll() is not None
            timeline.poll()
            lines.update()
            if ended:
                break
            time.sleep(POLL_SECONDS)
        except (KeyboardInterrupt, Terminated) as asked:
            if interrupted:
                return Watched(None, interrupted)
            interrupted = 143 if isinstance(asked, Terminated) else 130
            click.echo("stopping… (ctrl+c again leaves the run to itself)", err=True)
            control.send(path, "stop-now")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return Watched(timeline if path.is_dir() else None, interrupted)


def gone(path: Path) -> int:
    """Says that the folder is not there any more; returns the exit code."""
    click.echo(f"llava-tui: the session's folder is gone: {path}; the run has nowhere to be kept", err=True)
    return 3


def failed(path: Path) -> int:
    """Says why the run did not end well; returns the exit code."""
    info = store.info(path)
    what = "its worker died" if info.status == "interrupted" else f"the run {info.status}"
    click.echo(f"llava-tui: {what}: {safe_text(info.reason) or 'see worker.log'} ({path})", err=True)
    return 3


class Terminated(Exception):
    """SIGTERM came."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def ask(source: Source, verb: str, *, case: str, rounds: int) -> int:
    """Sends one command and waits for the worker's answer; 0 if it was accepted, else 1."""
    status = source.status()
    if status not in store.LIVE:
        click.echo(f"llava-tui: {source.name} is {status}: there is no worker to {verb}", err=True)
        return 2
    timeline = Timeline.open(source.path)
    command = source.send(verb, case=case, rounds=rounds)
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        timeline.poll()
        answers = timeline.answers
        for index in range(answers.n):
            if answers["id"][index] == command.id:
                accepted = bool(answers["accepted"][index])
                text = safe_text(answers["text"][index])
                click.echo(f"{verb}: {'accepted' if accepted else 'refused'}" + (f": {text}" if text else ""))
                return 0 if accepted else 1
        state = timeline.now().state
        if state in FINAL_STATES or time.monotonic() > deadline:
            why = f"the session is {state}" if state in FINAL_STATES else "the worker has not answered yet"
            trouble = f" ({source.line()})" if source.line() else ""
            click.echo(f"llava-tui: {verb}: {why}; it was written to {source.name}/control.jsonl{trouble}", err=True)
            return 1
        time.sleep(0.02)
