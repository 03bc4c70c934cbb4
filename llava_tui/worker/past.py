"""A session that is resumed: what it had done before, and the time that it goes on at."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from llava_tui import events
from llava_tui.events import SCHEMA, BrokenItem, Ended, Header, Resumed, RunEnd, RunStart, SelfTest, StateChange
from llava_tui.plan import Plan
from llava_tui.session.control import CONTROL
from llava_tui.session.items import read_items
from llava_tui.session.reader import EVENTS, SessionError, StreamReader, safe_text, stream_paths
from llava_tui.worker.batches import Batches
from llava_tui.worker.clock import HostClock, SimulatedClock
from llava_tui.worker.facts import PACKAGES, boot_id, host_facts, versions
from llava_tui.worker.schedule import Planned
from llava_tui.worker.summary import Summary

HINTS = ("stage", "text")
STEP_NS = 1_000_000
"""Between the last event before and the first after, where the wall clock went back meanwhile."""


@dataclass(slots=True)
class Past:
    """What a session had done when its worker ended."""

    run: int = -1
    """The last run's number."""
    t: int = 0
    """The newest event's ``t``, of all streams."""
    finished: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """Items that were measured, by case and round."""
    broken: dict[int, str] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)
    """Cases whose tokens were compared with plain generate()'s, and were the same."""
    self_tested: bool = False
    state: str = ""
    rule: str = ""
    """Which ended its measuring."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each stream, by its name: what is before them is another worker's."""
    summary: Summary = field(default_factory=Summary)


def read_past(session: Path, plan: Plan) -> Past:
    """Of the session in folder ``session``. Raises :class:`SessionError` where a stream cannot be read."""
    past = Past()
    for path in (*stream_paths(session), session / CONTROL):
        with contextlib.suppress(OSError):
            past.sizes[path.name] = path.stat().st_size
    cases = {case.id: case for case in plan.cases()}
    starts: dict[int, RunStart] = {}
    for path in stream_paths(session):
        for batch in StreamReader(path, events.AnyEvent, skip=HINTS if path.name.startswith(EVENTS) else ()).batches():
            for event in batch:
                past.t = max(past.t, event.t)
                if isinstance(event, RunStart):
                    past.run = max(past.run, event.run)
                    starts[event.run] = event
                elif isinstance(event, RunEnd):
                    start = starts.pop(event.run, None)
                    if start is not None and start.case in cases:
                        _ended(past, start, event, Planned(_kind(start), cases[start.case], start.round))
                elif isinstance(event, BrokenItem):
                    past.broken[event.item] = event.reason
                elif isinstance(event, StateChange):
                    past.state = event.state
                elif isinstance(event, Ended):
                    past.rule = event.rule
                elif isinstance(event, SelfTest):
                    past.self_tested = True
    return past


def _kind(start: RunStart) -> events.RunKind:
    return start.kind  # type: ignore[return-value]


def _ended(past: Past, start: RunStart, end: RunEnd, planned: Planned) -> None:
    past.summary.add(end, planned)
    if end.outcome != "ok":
        return
    if start.kind == "cross-check":
        past.checked.add(start.case)
    elif (end.kind or start.kind) in ("measured", "partial") and start.round is not None:
        past.finished.setdefault((start.case, start.round), []).extend(start.items)


def take_up(session: Path, plan: Plan, header: Header) -> tuple[Past, Batches]:
    """What the session in folder ``session``, whose lock is held, had done, and what is left of its data set.

    Raises :class:`SessionError` where it cannot go on, saying what to do instead.
    """
    name = safe_text(session.name)
    again = f"run its plan again: llava-tui run --from {name}"
    if header.dataset is None:
        raise SessionError(f"{name} has no data set, so there is nothing to go on with; {again}")
    if tuple(header.schema) > SCHEMA:
        raise SessionError(f"{name} was written by a newer llava-tui; update this one, or {again}")
    if any(path.stem.startswith(f"{EVENTS}-") for path in stream_paths(session, EVENTS)):
        raise SessionError(f"{name} was measured by several ranks, which cannot be resumed; {again}")
    past = read_past(session, plan)
    if past.state == "closed" and past.rule != "time limit":
        raise SessionError(f"{name} is finished; {again}")
    batches = Batches(plan, read_items(session, header.dataset.digest))
    batches.restore(plan, past.finished, past.broken)
    if not any(batches.left(case) for case in plan.cases()):
        raise SessionError(f"{name} has measured every item of its data set that can be read; {again}")
    return past, batches


def shift(header: Header, past: Past, monotonic: int, wall: int, boot: str) -> int:
    """What is to be added to CLOCK_MONOTONIC (``monotonic``, ns) for the session's ``t`` to go on: nothing on the same
    start of the same kernel; else so much that it agrees with the wall clock (``wall``, Unix time in ns), and never
    goes back."""
    if boot and boot == header.host.boot_id and monotonic > past.t:
        return 0
    return max(header.t0 + wall - header.wall0, past.t + STEP_NS) - monotonic


def clock_of(plan: Plan, header: Header, past: Past) -> HostClock | SimulatedClock:
    """The clock that the session goes on with."""
    if plan.pipeline == "simulated":
        start = max(header.t0 + time.time_ns() - header.wall0, past.t + STEP_NS)
        return SimulatedClock(plan.time_scale, start)
    return HostClock().shifted(shift(header, past, time.monotonic_ns(), time.time_ns(), boot_id()))


def resumed(plan: Plan, past: Past, batches: Batches, t: int, argv: list[str], pid: int) -> Resumed:
    """The event that says so."""
    return Resumed(
        t=t,
        run=past.run,
        wall=time.time_ns(),
        left=max(batches.left(case) for case in plan.cases()),
        host=host_facts(),
        versions=versions(() if plan.pipeline == "simulated" else PACKAGES),
        argv=argv,
        pid=pid,
    )
