"""The course of a session: load, preflight, cold start, warm-up and cross-check, self-test, rounds, close.

Everything that happens becomes an event; everything that goes wrong ends a run, a case or the session with its reason,
and keeps what came before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from llava_tui.events import ModelFacts, RunEnd, RunStart, SelfTest, StageTree, StateChange
from llava_tui.pipelines.base import LOAD_STAGES, Pipeline, PipelineError
from llava_tui.plan import Plan
from llava_tui.session.reader import safe_text
from llava_tui.units import counted
from llava_tui.worker import preflight, selftest
from llava_tui.worker.clock import BlindDeviceClock, Clock
from llava_tui.worker.control import Control
from llava_tui.worker.cooling import Cooling
from llava_tui.worker.journal import Journal
from llava_tui.worker.listener import Listener, hearing
from llava_tui.worker.memory import free
from llava_tui.worker.outcome import REASON_LIMIT, failure, named
from llava_tui.worker.past import Past
from llava_tui.worker.porter import Porter
from llava_tui.worker.ranks import Over, RankLost, Ranks
from llava_tui.worker.recorder import Recorder
from llava_tui.worker.room import Room, room
from llava_tui.worker.runs import DeviceLost, Runs
from llava_tui.worker.schedule import Planned, Schedule
from llava_tui.worker.sink import EventSink, StreamLost
from llava_tui.worker.stage_memory import host_meter
from llava_tui.worker.summary import Summary
from llava_tui.worker.vitals import Vitals

log = logging.getLogger(__name__)

PAUSE_S = 0.02
TELEMETRY_WAIT_S = 1.0
"""How long preflight waits for the first reading; loading a model takes longer by far."""
STATES = {
    "cold": "cold",
    "warm-up": "warming up",
    "cross-check": "warming up",
    "self-test": "self-test",
    "measured": "measuring",
    "profile": "profiling",
}


class Telemetry(Protocol):
    """Whoever watches the machine meanwhile."""

    def start(self) -> None:
        """Begins; says in the log why not, where it cannot."""

    def watch(self) -> None:
        """Called between runs: says once if it ended before its time."""

    def end(self) -> None:
        """What it has is written when this returns."""


class Course:
    """One session, from the lock to its closing event. :meth:`run` does it all and returns the exit code.

    ``open_pipeline`` is called when control is heard already; it may raise :class:`PipelineError` or ``ImportError``.
    ``vitals`` are the readings of whoever watches the machine, ``folder`` takes what does not go into a stream.
    ``call_porter`` forks whoever answers while the model loads; without it a thread does. ``ranks``: who measures this
    session too, if this is not the only one; ``past``: what another worker of this session did before.
    """

    def __init__(
        self,
        plan: Plan,
        open_pipeline: Callable[[], Pipeline],
        sink: EventSink,
        clock: Clock,
        control: Control,
        schedule: Schedule,
        telemetry: Telemetry,
        end_process: Callable[[int], None] = os._exit,
        vitals: Vitals | None = None,
        folder: Path | None = None,
        call_porter: Callable[[], Porter] | None = None,
        ranks: Ranks | None = None,
        past: Past | None = None,
    ) -> None:
        self._journal = journal = Journal(sink, clock, schedule)
        cooling = Cooling(vitals, clock) if vitals is not None and plan.cool_down else None
        self._ranks = ranks or Ranks()
        self._runs = Runs(plan, journal, control, schedule, cooling, folder, self._ranks, past)
        self._plan = plan
        self._open_pipeline = open_pipeline
        self._pipeline: Pipeline | None = None
        self._sink = sink
        self._control = control
        self._schedule = schedule
        self._telemetry = telemetry
        self._end_process = end_process
        self._vitals = vitals
        self._folder = folder
        self._call_porter = call_porter
        self._model: ModelFacts | None = None
        self._loading = 0
        self._load_run = 0
        self._past = past
        self._loaded = 0
        """The group of models that is in memory."""
        self._loaded_from = 0
        self._load_before = 0.0
        """Load average before anything of ours ran."""
        self._last_word = threading.Lock()
        self._ended = False
        self._enter, self._write, self._now = journal.enter, journal.write, journal.now

    @property
    def state(self) -> str:
        """The state that the session is in."""
        return self._journal.state

    @property
    def reason(self) -> str:
        """Why it is in that state."""
        return self._journal.reason

    @property
    def summary(self) -> Summary:
        """Of the runs so far."""
        return self._runs.summary

    def run(self) -> int:
        """Runs the session to its end, whatever that is. Returns 0 for closed and stopped, 3 for failed."""
        try:
            final, reason = self._course()
        except (StreamLost, DeviceLost, RankLost) as lost:
            final, reason = "failed", str(lost)
        except Over as over:
            final, reason = over.state, over.reason
        except Exception as error:  # noqa: BLE001 - a fault of ours must not look like an interruption
            traceback.print_exception(error)
            final, reason = "failed", f"a fault of llava-tui ({type(error).__name__}: {error}); see worker.log"
        with contextlib.suppress(StreamLost):
            self._enter("closing")
            self._control.finish()
        with hearing(self._control):
            final, reason = self._ranks.leave(final, reason)
            try:
                if self._pipeline is not None:
                    self._pipeline.close()
            except Exception:
                log.warning("closing the model failed", exc_info=True)
            self._telemetry.end()
            if self._ranks.leads:
                self._ranks.part()
        if self._sink.lost and final != "failed":
            final, reason = "failed", self._sink.lost
        try:
            self._control.look()
            self._enter(final, reason)
            self._sink.sync()
        except StreamLost as lost:  # The last word itself did not fit; into the reserve it does.
            self._journal.state, final = "", "failed"
            self._enter(final, str(lost))
        if not self._ranks.leads:
            self._ranks.part()
        return 3 if final == "failed" else 0

    def _course(self) -> tuple[str, str]:
        """The final state and its reason."""
        self._enter("starting")
        self._load_before = os.getloadavg()[0]
        self._write(self._schedule.event(self._now()))
        with Listener(self._control, self._stop_while_loading, self._call_porter) as listener:
            self._telemetry.start()
            try:
                self._ranks.meet(str(self._folder))
                self._pipeline = pipeline = self._open_pipeline()
            except (PipelineError, ImportError) as error:
                return "failed", safe_text(str(error), REASON_LIMIT)
            problem = self._load(pipeline)
            if problem := self._ranks.agree("failed" if problem else "ok", problem).reason:
                return "failed", problem
            self._enter("preflight")
            refused = self._ranks.refuse(self._preflight(pipeline))
        if listener.lost:
            raise StreamLost(listener.lost)
        self._ranks.listen = self._control.poll
        self._ranks.ending = lambda: bool(self._control.stop_now)
        self._leave_out(refused)
        self._group(pipeline)
        while True:
            self._telemetry.watch()
            self._sink.require()
            self._wait_while_paused()
            planned = None if self._control.ending else self._schedule.take(self._now())
            self._conclude(planned)
            if planned is None:
                return self._verdict()
            self._ranks.begin(planned)
            if planned.kind == "load":
                self._load_next(pipeline, planned)
                continue
            self._enter(STATES[planned.kind])
            self._runs.execute(pipeline, planned)

    def _conclude(self, planned: Planned | None) -> None:
        """Says what is over when that run comes next."""
        self._journal.tell_rule()
        kind = planned.kind if planned is not None else ""
        if kind != "self-test" and (test := self._runs.self_test()) is not None:
            self._write(test)
            if warning := selftest.words(test):
                log.warning("%s", warning)
        if kind in ("", "profile") and not self._ended:
            self._ended = True
            self._write(self._schedule.ended(self._now(), self._stopped()))

    def _stopped(self) -> str:
        """Why the session ends before its time; "" where it does not."""
        return self._control.stop_now or (self._control.stop if self._schedule.left() else "")

    def _verdict(self) -> tuple[str, str]:
        dropped = self._schedule.dropped
        if stopped := self._stopped():
            return "stopped", stopped
        if self._runs.untrusted:
            return "failed", named(self._runs.untrusted)
        batches = self._schedule.batches
        if batches.all_broken:
            return "failed", batches.why_all()
        if len(dropped) == len(self._schedule.cases):
            return "failed", named(dropped)
        cases = counted(len(self._schedule.cases), "case")
        failed = f"{len(dropped)} of {cases} failed: {named(dropped)}" if dropped else ""
        return "closed", "; ".join(filter(None, (failed, batches.why_some())))

    # --- loading -----------------------------------------------------------------------------------------------------

    def _group(self, pipeline: Pipeline) -> None:
        """Where memory does not hold all models together, their cases run one group after the other, and that is
        said."""
        groups = _groups(pipeline)
        if len(groups) > 1:
            self._schedule.group(groups)
            log.warning(
                "the models of %d cases do not fit into memory together: they are loaded in %d groups, one after the "
                "other; cases of different groups do not interleave",
                *(len(self._schedule.cases), len(groups)),
            )
            self._journal.tell_schedule()

    def _load_next(self, pipeline: Pipeline, planned: Planned) -> None:
        """The models of the group that ``planned`` is of. A group that cannot be loaded takes no part."""
        number = next(place for place, cases in enumerate(_groups(pipeline)) if planned.case.id in cases)
        with Listener(self._control, self._stop_while_loading):
            problem = self._load(pipeline, number)
        problem = self._ranks.agree("failed" if problem else "ok", problem).reason
        refused = self._ranks.refuse({} if problem else self._refused(pipeline).refused)
        here = [case.id for case in self._schedule.active if not self._schedule.is_away(case.id)]
        self._leave_out(dict.fromkeys(here, problem) if problem else refused)

    def _load(self, pipeline: Pipeline, group: int = 0) -> str:
        """A run of its own; the first is run 0. Returns why it failed, or ""."""
        self._load_run = run = self._runs.loading() if group or self._past is not None else 0
        # Pipelines with one group, all but those of real models, know of no others.
        load: Callable[..., ModelFacts] = partial(cast(Any, pipeline).load, group=group) if group else pipeline.load
        memory = None if self._plan.pipeline == "simulated" else host_meter()
        recorder = Recorder(LOAD_STAGES, self._journal.clock, lambda: None, self._write, meter=memory)
        with self._last_word:  # Who stops it from here on finds a run to end.
            self._enter("loading")
            if not group:
                self._write(StageTree(t=self._now(), stages=[*LOAD_STAGES, *pipeline.stages]))
            self._write(RunStart(t=self._now(), run=run, kind="load"))
            self._loading = self._now()
        recorder.start(run)
        try:
            facts = load(recorder)
        except StreamLost:
            raise
        except Exception as error:  # noqa: BLE001 - a model may fail to load in any way
            outcome, reason = failure(error, self._control.stop_now)
        else:
            outcome, reason = "ok", ""
        with self._last_word:
            self._loading = 0
            spans = recorder.finish()
            self._runs.end(outcome, reason, spans)
        if reason:
            return reason
        onto_device = spans.starts[spans.stages.index("load.device")]
        self._loaded_from = spans.start + (spans.wall if onto_device is None else onto_device)
        if (place := self._ranks.place).world > 1:
            own = {"rank": place.rank, "ranks": place.world, "pid": os.getpid()}
            facts = msgspec.structs.replace(facts, extra=facts.extra | own)
        self._write(msgspec.structs.replace(facts, t=self._now()))
        if self._vitals is not None:
            self._vitals.model_on(facts.device, str(facts.extra.get("gpu_uuid", "")))
        if not group:
            self._journal.clock = self._journal.clock.on(",".join(facts.extra.get("devices") or [facts.device]))
        if isinstance(self._journal.clock, BlindDeviceClock):
            log.warning("%s has no timed events: device stages cannot be told apart", facts.device)
        self._runs.loaded(pipeline, facts.device)
        self._model, self._loaded = facts, group
        return ""

    def _stop_while_loading(self) -> None:
        """Called from the listening thread. Nothing is measured yet and libraries do not let themselves be
        interrupted, so the process ends here."""
        reason = self._control.stop_now
        with contextlib.suppress(StreamLost):
            self._control.finish()
        with self._last_word, contextlib.suppress(StreamLost):
            now = self._now()
            if start := self._loading:
                run = self._load_run
                self._write(RunEnd(t=now, run=run, outcome="cancelled", reason=reason, start=start, wall=now - start))
            self._write(StateChange(t=now, state="stopped", reason=reason))
            self._sink.sync()
            self._ranks.dismiss()
            self._end_process(0)

    def _preflight(self, pipeline: Pipeline) -> dict[str, str]:
        """What the machine is like, and which cases cannot run, and why."""
        fits = self._refused(pipeline)
        if self._vitals is not None:
            deadline = time.monotonic() + TELEMETRY_WAIT_S
            self._vitals.read()
            while not self._vitals.begun and time.monotonic() < deadline:
                time.sleep(PAUSE_S)
                self._vitals.read()
        simulated = self._plan.pipeline == "simulated"
        seen = (self._vitals, self._loaded_from, self._load_before)
        found = preflight.inspect(self._now(), *seen, simulated, fits.warnings)
        self._write(found)
        for warning in found.warnings:
            log.warning("%s", warning)
        if simulated or not self._plan.self_test:
            why = "simulated: measuring takes no simulated time" if simulated else "the plan leaves it out"
            self._write(SelfTest(t=self._now(), reason=why))
        return fits.refused

    def _refused(self, pipeline: Pipeline) -> Room:
        """Which cases cannot run, of those whose models are in memory: what is against them, and what does not fit."""
        groups = _groups(pipeline)
        here = set(groups[self._loaded]) if groups else set(self._schedule.cases)
        active = [case for case in self._schedule.active if case.id in here]
        refused = {case.id: problem for case in active if (problem := pipeline.check_case(case))}
        if (model := self._model) is None:
            return Room(refused)
        cases = [case for case in active if case.id not in refused]
        found = room(self._plan, cases, model, free(model.device, pipeline))
        self._runs.needs = {**self._runs.needs, **found.needs}
        return Room(refused | found.refused, found.warnings)

    def _leave_out(self, refused: dict[str, str]) -> None:
        """Once the porter is relieved: until then the schedule here is to stay as it was where they parted."""
        for case, problem in refused.items():
            log.error("%s is left out: %s", case, problem)
            self._schedule.drop(case, problem)
        if refused:
            self._journal.tell_schedule()

    def _wait_while_paused(self) -> None:
        """Between runs: hears control, and stays while the session is paused."""
        self._control.poll()
        while self._control.paused and not self._control.ending:
            self._enter("paused")
            self._sink.require()
            self._journal.clock.wait(PAUSE_S)
            self._control.poll()


def _groups(pipeline: Pipeline) -> Sequence[Sequence[str]]:
    """Cases by the models that are in memory together; empty where the pipeline has one model."""
    return getattr(pipeline, "groups", ())
