"""The worker's entry: take the lock, say what is to be run, then measure it.

Until the header is written and whoever launched us knows it, only light modules are imported; torch comes with loading.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llava_tui.events import TelemetryEvent
from llava_tui.pipelines.base import Pipeline
from llava_tui.plan import Plan, PlanError, from_dict, from_json
from llava_tui.session.control import CONTROL, CommandReader
from llava_tui.session.items import read_items
from llava_tui.session.reader import HEADER, SessionError, read_header
from llava_tui.session.writer import StreamWriter, lock, set_aside, write_atomically
from llava_tui.worker.batches import Batches, take_in
from llava_tui.worker.clock import Clock, HostClock, SimulatedClock
from llava_tui.worker.control import Control
from llava_tui.worker.course import Course, Telemetry
from llava_tui.worker.facts import header
from llava_tui.worker.past import Past, clock_of, resumed, take_up
from llava_tui.worker.porter import Porter
from llava_tui.worker.ranks import Place, Ranks
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink, LogEvents, StreamLost, loss
from llava_tui.worker.vitals import Vitals

SAMPLER_GRACE_S = 3.0
STALL_S = 0.02
TELEMETRY = "telemetry.jsonl"

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """``python -m llava_tui.worker FOLDER --ready-fd N -- ARGV…``, the plan as JSON on standard input. Returns the exit
    code: 0 closed or stopped, 2 never begun, 3 failed. With ``--plan`` instead: :mod:`llava_tui.worker.by_hand`."""
    parser = argparse.ArgumentParser(
        prog="python -m llava_tui.worker",
        description="Record one session: by itself, or as one of several ranks under torchrun or accelerate launch.",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="the session's folder, which exists")
    parser.add_argument("--plan", type=Path, metavar="PLAN.toml", help="what to run, instead of a folder")
    parser.add_argument("--sessions", metavar="DIR", help="with --plan: the folder of sessions")
    parser.add_argument("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help="go on with the session in the folder")
    parser.add_argument("--rank", metavar="RANK/RANKS", help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if arguments is None else arguments
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:cut])
    argv = arguments[cut + 1 :]  # The user's command line, for the header.
    # A closed terminal is no reason to stop measuring.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if options.plan is not None:
        from llava_tui.worker import by_hand

        return by_hand.main(options.plan, options.sessions, sys.argv)
    if options.folder is None:
        parser.error("give --plan PLAN.toml (or let llava-tui run start it)")
    folder = options.folder.absolute()
    if options.rank is not None:
        from llava_tui.worker import children

        return children.attend(folder, options.rank)

    def ready(problem: str = "") -> None:
        _tell(options.ready_fd, f"error: {problem}" if problem else "ready")

    try:
        plan = from_json(sys.stdin.buffer.read())
    except PlanError as error:
        ready(str(error))
        return 2
    ranks = Ranks()
    if plan.processes > 1:
        from llava_tui.worker import children

        ranks = children.Parent(folder, plan.processes)
    return lead(folder, plan, argv, ready, ranks, options.resume)


def lead(
    folder: Path, plan: Plan, argv: list[str], ready: Callable[..., None], ranks: Ranks, resume: bool = False
) -> int:
    """The session of ``plan`` in the empty ``folder``, as its only rank or as the first of ``ranks``; ``resume``: what
    is left of the one that is there. ``ready`` is told when the session can be watched, or why there is none. Returns
    the exit code."""
    past: Past | None = None
    with contextlib.ExitStack() as held:
        try:
            held.callback(lock(folder).release)
            if resume:
                known = read_header(folder)
                past, batches = take_up(folder, plan, known)
                set_aside(folder)
                clock: Clock = clock_of(plan, known, past)
            else:
                clock = SimulatedClock(plan.time_scale) if plan.pipeline == "simulated" else HostClock()
            sink = EventSink(StreamWriter(folder / "events.jsonl"))
            if past is None:
                batches, dataset = take_in(folder, plan, ranks.place.rank, ranks.place.world)
            schedule = Schedule(plan, batches, past)
            commands = CommandReader(folder, past.sizes.get(CONTROL, 0) if past is not None else 0)
            control = Control(commands, sink.write, clock, schedule)
            if past is None:
                write_atomically(folder / HEADER, header(folder, plan, argv, clock.now(), time.time_ns(), dataset))
            else:
                sink.write(resumed(plan, past, batches, clock.now(), argv, os.getpid()))
        except (PlanError, SessionError, StreamLost) as error:
            ready(str(error))
            return 2
        except OSError as error:
            ready(f"cannot write in {folder}: {error.strerror}")
            return 2
        _on_signals(control, ranks)
        ready()
        _log_to(sink, clock)
        return record(folder, plan, clock, sink, control, schedule, ranks, past)


def follow(folder: Path, ranks: Ranks) -> int:
    """The part of a rank above 0 in the session in ``folder``, whose header rank 0 has written; the ranks have met.
    Returns the exit code."""
    from llava_tui.worker.follower import Echo, Follower

    place = ranks.place
    try:
        plan = from_dict(read_header(folder).plan)
        sink = EventSink(StreamWriter(folder / f"events-{place.rank}.jsonl"), place.rank)
        batches = Batches(plan, read_items(folder), place.rank, place.world)
        clock, schedule = HostClock(), Schedule(plan, batches)
        control = Echo(CommandReader(folder), sink.write, clock, schedule)
    except (PlanError, SessionError, OSError) as error:
        ranks.leave("failed", str(error))
        print(f"{place}: {error}", file=sys.stderr)  # noqa: T201 - into worker.log
        return 3
    _on_signals(control, ranks)
    _log_to(sink, clock)
    return Follower(
        plan,
        lambda: _real(_on_its_device(plan, place)),
        sink,
        clock,
        control,
        schedule,
        NoTelemetry(),
        folder=folder,
        ranks=ranks,
    ).run()


def _on_signals(control: Control, ranks: Ranks) -> None:
    def heed(number: int, frame: object) -> None:
        control.interrupt(f"stopped by {signal.Signals(number).name}")
        ranks.interrupt()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heed)


def record(
    folder: Path,
    plan: Plan,
    clock: Clock,
    sink: EventSink,
    control: Control,
    schedule: Schedule,
    ranks: Ranks | None = None,
    past: Past | None = None,
) -> int:
    """The session itself, in a folder whose lock is held and whose header is written. Returns the exit code."""
    ranks = ranks or Ranks()
    before = past.sizes if past is not None else {}
    open_pipeline: Callable[[], Pipeline]
    telemetry: Telemetry
    call_porter: Callable[[], Porter] | None = None
    if isinstance(clock, SimulatedClock):
        telemetry, open_pipeline = _simulated(folder, plan, clock)
    else:
        telemetry = Sampler(folder, plan.sample_hz, clock.shift if isinstance(clock, HostClock) else 0)

        def open_pipeline() -> Pipeline:  # where it is called: which device that is only torch knows
            return _real(_on_its_device(plan, ranks.place))

        call_porter = functools.partial(Porter, folder, clock, schedule, before.get(CONTROL, 0))
    vitals = Vitals(folder / TELEMETRY, before.get(TELEMETRY, 0))
    course = Course(
        plan,
        open_pipeline,
        sink,
        clock,
        control,
        schedule,
        telemetry,
        vitals=vitals,
        folder=folder,
        call_porter=call_porter,
        ranks=ranks,
        past=past,
    )
    code = course.run()
    try:
        write_atomically(folder / "summary.json", course.summary.document(course.state, course.reason))
    except OSError as error:
        log.warning("summary.json was not written: %s", error.strerror)
    return code


def _on_its_device(plan: Plan, place: Place) -> Plan:
    return plan if place.world == 1 else msgspec.structs.replace(plan, device=place.device(plan.device))


def _real(plan: Plan) -> Pipeline:
    if plan.pipeline == "eventgpt":
        from llava_tui.pipelines.eventgpt import EventGptPipeline

        return EventGptPipeline(plan)
    from llava_tui.pipelines.llava import LlavaPipeline

    return LlavaPipeline(plan)


def _simulated(folder: Path, plan: Plan, clock: SimulatedClock) -> tuple[Telemetry, Callable[[], Pipeline]]:
    telemetry = SimulatedStream(folder)

    def open_pipeline() -> Pipeline:
        from llava_tui.pipelines.simulated import SimulatedPipeline

        return SimulatedPipeline(plan, clock, telemetry.write, stall=telemetry.stall)

    return telemetry, open_pipeline


class NoTelemetry:
    """Of a rank above 0: the machine is watched for rank 0."""

    def start(self) -> None: ...

    def watch(self) -> None: ...

    def end(self) -> None: ...


class SimulatedStream:
    """The simulated GPU's samples, which the simulation itself writes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TELEMETRY
        self._sink: EventSink | None = None

    def start(self) -> None:
        """Opens the stream. Raises :class:`StreamLost`."""
        try:
            self._sink = EventSink(StreamWriter(self._path))
        except OSError as error:
            raise StreamLost(loss(error)) from None

    def write(self, event: TelemetryEvent) -> None:
        """One sample. Raises :class:`StreamLost`."""
        if self._sink is not None:
            self._sink.write(event)

    def stall(self) -> None:
        """A moment of a run that hangs for good and hears nothing. Raises :class:`StreamLost` where the session is
        gone: nobody could end it any more."""
        if self._sink is not None:
            self._sink.require()
        time.sleep(STALL_S)

    def watch(self) -> None:
        """Nothing can end it."""

    def end(self) -> None:
        """On the disk."""
        if self._sink is not None:
            with contextlib.suppress(StreamLost):
                self._sink.sync()


class Sampler:
    """The process that watches the machine. It ends with this one: its standard input is a pipe that we hold."""

    def __init__(self, folder: Path, hz: float, shift: int = 0) -> None:
        """``shift`` (ns) is what the session is ahead of CLOCK_MONOTONIC."""
        self._command = ["-m", "llava_tui.telemetry.sampler", str(folder), "--hz", f"{hz:g}", "--pid", str(os.getpid())]
        self._command += ["--shift", str(shift)] if shift else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; the runs go on without telemetry where that fails."""
        try:
            self._process = subprocess.Popen([sys.executable, "-P", *self._command], stdin=subprocess.PIPE)
        except OSError as error:
            log.warning("no telemetry: the sampler cannot be started: %s", error.strerror)

    def watch(self) -> None:
        """Says once if it ended before its time."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            log.warning("telemetry ended (exit code %d, see worker.log): the runs go on without it", code)

    def end(self) -> None:
        """Lets it write what it has, then makes sure."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(SAMPLER_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _log_to(sink: EventSink, clock: Clock) -> None:
    """Our own records become events; libraries' go to worker.log, and so do tracebacks."""
    logging.captureWarnings(True)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s: %(message)s"
    )
    ours = logging.getLogger("llava_tui")
    ours.setLevel(logging.INFO)
    ours.addHandler(LogEvents(sink, clock))


def _tell(fd: int, line: str) -> None:
    """One line to whoever launched us, then never again."""
    if fd < 0:
        print(line, file=sys.stderr)  # noqa: T201 - started by hand
        return
    with contextlib.suppress(OSError):  # the launcher may be gone, or have been told already
        os.write(fd, line.replace("\n", " ").encode() + b"\n")
        os.close(fd)
