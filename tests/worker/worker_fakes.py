"""Pipelines and streams that fail to order, for courses run inside the test's own process."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava_tui.events import Event, ModelFacts
from llava_tui.pipelines.base import LLAVA_STAGES, BrokenInput, RunResult, of_sequence
from llava_tui.plan import Plan
from llava_tui.session.control import CommandReader
from llava_tui.session_files import Item
from llava_tui.worker.batches import Batches, name_of
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.control import Control
from llava_tui.worker.course import Course
from llava_tui.worker.past import Past
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink
from llava_tui.worker.vitals import Vitals


class Death(BaseException):
    """The end of a worker that is killed."""


class FakePipeline:
    """Five tokens, 10 ms a stage; ``faults`` maps (case, nth run of it) to what happens instead."""

    stages = LLAVA_STAGES

    def __init__(self, clock: SimulatedClock, faults: dict[tuple[str, int], Any] | None = None) -> None:
        self.clock = clock
        self.faults = faults or {}
        self.counts: dict[str, int] = {}
        self.reference_ids: list[list[int]] | None = [[1, 2, 3, 4, 5]]
        self.vision_calls: int | None = 1
        self.load_error: Exception | None = None
        self.refuse: dict[str, str] = {}
        self.unprepared: dict[str, Exception] = {}
        self.disturbed: set[tuple[str, int]] = set()
        """Runs (case, nth run of it) in which something is compiled."""
        self.closed = False
        self.used: list[tuple[Any, ...]] = []
        self.dies_in = 0
        """The run, counted from 1, in which the worker is killed."""
        self.broken: dict[str, str] = {}
        """Inputs that cannot be read, by their names, and why."""

    def load(self, probe):
        if self.load_error is not None:
            raise self.load_error
        return ModelFacts(t=0, name="fake", model_type="fake", parameters=1, dtype="float32", device="simulated")

    def check_case(self, case):
        return self.refuse.get(case.id, "")

    def prepare(self, case):
        if case.id in self.unprepared:
            raise self.unprepared[case.id]

    def run(self, case, inputs, seed, probe):
        self.used.append(inputs)
        if len(self.used) == self.dies_in:
            raise Death
        for sequence in range(case.batch):
            with of_sequence(sequence):
                given = inputs[sequence % len(inputs)]
                if name_of(given) in self.broken:
                    raise BrokenInput(name_of(given), self.broken[name_of(given)])
        count = self.counts[case.id] = self.counts.get(case.id, 0) + 1
        probe.begin("generate")
        probe.begin("generate.decode")
        for token in range(1, 6):
            fault = self.faults.get((case.id, count))
            if token == 3 and fault is not None:
                if isinstance(fault, BaseException):
                    raise fault
                fault()
            self.clock.advance(10_000_000, probe.check)
            probe.token([token] * case.batch)
        probe.end("generate.decode")
        probe.end("generate")
        disturbed = "compiled in it" if (case.id, count) in self.disturbed else ""
        return RunResult([[1, 2, 3, 4, 5]], ["abcde"], vision_calls=self.vision_calls, disturbed=disturbed)

    def reference(self, case, inputs, probe):
        return self.reference_ids

    def detokenize(self, ids):
        return "".join(chr(96 + token) for token in ids)

    def close(self):
        self.closed = True


class NoTelemetry:
    """Nobody watches the machine."""

    def start(self) -> None:
        pass

    def watch(self) -> None:
        pass

    def end(self) -> None:
        pass


class MemoryStream:
    """A stream in memory; from the ``full_at``-th write on the disk is full once."""

    def __init__(self, full_at: int = -1) -> None:
        self.events: list[Event] = []
        self.synced = 0
        self.full_at = full_at

    def write(self, event: Event) -> None:
        if self.full_at >= 0 and len(self.events) >= self.full_at:
            self.full_at = -1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.events.append(event)

    def is_in_place(self) -> bool:
        return True

    def sync(self) -> None:
        self.synced = len(self.events)

    def close(self) -> None:
        pass

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def make_course(
    folder: Path,
    plan: Plan,
    stream: MemoryStream,
    vitals: Vitals | None = None,
    items: Sequence[Item] = (),
    past: Past | None = None,
    **faults: Any,
) -> tuple[Course, FakePipeline, Control]:
    """A course over a fake pipeline on a clock that never sleeps."""
    clock = SimulatedClock(0)
    sink = EventSink(stream)  # type: ignore[arg-type]
    batches = Batches(plan, items)
    if past is not None:
        batches.restore(plan, past.finished, past.broken)
    schedule = Schedule(plan, batches, past)
    control = Control(CommandReader(folder), sink.write, clock, schedule)
    pipeline = FakePipeline(clock, **faults)

    def no_exit(code: int) -> None:
        raise AssertionError("the test's own process")

    course = Course(
        plan, lambda: pipeline, sink, clock, control, schedule, NoTelemetry(), no_exit, vitals, folder, past=past
    )
    return course, pipeline, control
