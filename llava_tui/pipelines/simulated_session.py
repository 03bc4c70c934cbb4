"""A whole simulated session in this process: the worker's own course on a clock that never sleeps, in milliseconds.

For whatever needs many sessions whose truth is known: tests of the statistics, of the verdicts, of the trust badge.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from llava_tui.pipelines.simulated import HANG_STEP_NS, SimulatedPipeline
from llava_tui.plan import Plan
from llava_tui.session.control import CommandReader
from llava_tui.session.reader import HEADER
from llava_tui.session.timeline import Timeline
from llava_tui.session.writer import StreamWriter, write_atomically
from llava_tui.worker.batches import take_in
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.control import Control
from llava_tui.worker.course import Course
from llava_tui.worker.facts import header
from llava_tui.worker.main import SimulatedStream
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink, LogEvents
from llava_tui.worker.vitals import Vitals

MEMORY_FOLDER = Path("/dev/shm")
"""Where sessions are written if it is there: a disk is synchronised after every run."""
LOG = "llava_tui"


class Killed(BaseException):
    """The end of a worker that is killed, where there is no process to kill."""


def simulated_session(
    plan: Plan,
    folder: Path | None = None,
    hang_s: float = 60.0,
    pipeline: type[SimulatedPipeline] = SimulatedPipeline,
) -> Timeline:
    """The session of a plan of the simulated pipeline, run here and now, whatever the plan's time scale.

    Its streams stay in ``folder`` (which must not exist) where one is given. A crash ends the session as a killed
    worker does; one that hangs for good is killed after ``hang_s`` simulated seconds. Not for several threads at once:
    the package's log goes to the session meanwhile.
    """
    if folder is not None:
        folder.mkdir(parents=True)
        return _recorded(plan, folder, hang_s, pipeline)
    parent = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    temporary = Path(tempfile.mkdtemp(prefix="llava-tui-", dir=parent))
    try:
        return _recorded(plan, temporary, hang_s, pipeline)
    finally:
        shutil.rmtree(temporary)


def _recorded(plan: Plan, folder: Path, hang_s: float, pipeline: type[SimulatedPipeline]) -> Timeline:
    clock = SimulatedClock(0, start=10**12)
    events = StreamWriter(folder / "events.jsonl")
    commands = CommandReader(folder)
    try:
        sink = EventSink(events)
        batches, dataset = take_in(folder, plan)
        schedule = Schedule(plan, batches)
        control = Control(commands, sink.write, clock, schedule)
        write_atomically(folder / HEADER, header(folder, plan, [], clock.now(), time.time_ns(), dataset))
        telemetry = SimulatedStream(folder)
        hung = iter(range(round(hang_s * 1e9 / HANG_STEP_NS)))

        def die(signal: int) -> None:
            raise Killed

        def stall() -> None:
            if next(hung, None) is None:
                raise Killed

        course = Course(
            plan,
            lambda: pipeline(plan, clock, telemetry.write, die, stall),
            sink,
            clock,
            control,
            schedule,
            telemetry,
            end_process=die,
            vitals=Vitals(folder / "telemetry.jsonl"),
            folder=folder,
        )
        with _log_to(sink, clock), contextlib.suppress(Killed), contextlib.redirect_stderr(io.StringIO()):
            course.run()
    finally:
        events.close()
        commands.close()
    return Timeline.open(folder)


@contextlib.contextmanager
def _log_to(sink: EventSink, clock: SimulatedClock) -> Iterator[None]:
    """Our own records become events of this session, and nothing else."""
    ours = logging.getLogger(LOG)
    handler = LogEvents(sink, clock)
    level, propagate = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagate
