"""The course of a session: load, preflight, cold start, warm-up and cross-check, rounds, close.

Everything that happens becomes an event; everything that goes wrong ends a run, a case or the session with its reason,
and keeps what came before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import psutil

from llava_tui.events import RunEnd, RunStart, StageTree, StateChange
from llava_tui.pipelines.base import LOAD_STAGES, Cancelled, Pipeline, PipelineError, Probe, RunResult
from llava_tui.plan import Case, Plan
from llava_tui.session.reader import safe_text
from llava_tui.worker.clock import BlindDeviceClock, Clock
from llava_tui.worker.control import Control, LoadWatch
from llava_tui.worker.memory import allocator_peaks, is_out_of_memory, release
from llava_tui.worker.recorder import Recorder, SilentProbe, Spans
from llava_tui.worker.schedule import Planned, Schedule, inputs_of, item_name, run_seed
from llava_tui.worker.sink import EventSink, StreamLost
from llava_tui.worker.summary import Summary

log = logging.getLogger(__name__)

PAUSE_S = 0.02
STATES = {"cold": "cold", "warm-up": "warming up", "cross-check": "warming up", "measured": "measuring"}
REASON_LIMIT = 500


class Untrusted(Exception):
    """A run whose figures would not mean what they say (it encoded twice, its tokens differ from generate()'s)."""


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
    ) -> None:
        self.state = ""
        self.reason = ""
        self.summary = Summary()
        self._plan = plan
        self._open_pipeline = open_pipeline
        self._pipeline: Pipeline | None = None
        self._sink = sink
        self._clock = clock
        self._control = control
        self._schedule = schedule
        self._telemetry = telemetry
        self._end_process = end_process
        self._run = 0
        self._run_start = 0
        self._loading = False
        self._last_word = threading.Lock()
        self._device = "cpu"
        self._recorder: Recorder | None = None
        self._own_ids: dict[str, list[list[int]]] = {}
        self._untrusted: dict[str, str] = {}
        self._process = psutil.Process()

    def run(self) -> int:
        """Runs the session to its end, whatever that is. Returns 0 for closed and stopped, 3 for failed."""
        try:
            final, reason = self._course()
        except StreamLost as lost:
            final, reason = "failed", str(lost)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not look like an interruption
            traceback.print_exception(error)
            final, reason = "failed", f"a fault of llava-tui ({type(error).__name__}: {error}); see worker.log"
        with contextlib.suppress(StreamLost):
            self._enter("closing")
            self._control.finish()
        try:
            if self._pipeline is not None:
                self._pipeline.close()
        except Exception:
            log.warning("closing the model failed", exc_info=True)
        self._telemetry.end()
        if self._sink.lost and final != "failed":
            final, reason = "failed", self._sink.lost
        try:
            self._enter(final, reason)
            self._sink.sync()
        except StreamLost as lost:  # The last word itself did not fit; into the reserve it does.
            self.state, final = "", "failed"
            self._enter(final, str(lost))
        return 3 if final == "failed" else 0

    def _course(self) -> tuple[str, str]:
        """The final state and its reason."""
        self._enter("starting")
        self._write(self._schedule.event(self._now()))
        with LoadWatch(self._control, self._stop_while_loading):
            self._telemetry.start()
            try:
                self._pipeline = pipeline = self._open_pipeline()
            except (PipelineError, ImportError) as error:
                return "failed", safe_text(str(error), REASON_LIMIT)
            if problem := self._load(pipeline):
                return "failed", problem
            self._enter("preflight")
            self._preflight(pipeline)
        while not self._control.ending:
            self._telemetry.watch()
            self._sink.require()
            self._wait_while_paused()
            if self._control.ending or (planned := self._schedule.take()) is None:
                break
            self._enter(STATES[planned.kind])
            self._execute(pipeline, planned)
        return self._verdict()

    def _verdict(self) -> tuple[str, str]:
        dropped = self._schedule.dropped
        if self._control.stop_now or (self._control.stop and self._schedule.left()):
            return "stopped", self._control.stop_now or self._control.stop
        if self._untrusted:
            return "failed", _named(self._untrusted)
        if len(dropped) == len(self._schedule.cases):
            return "failed", _named(dropped)
        return (
            "closed",
            f"{len(dropped)} of {len(self._schedule.cases)} cases failed: {_named(dropped)}" if dropped else "",
        )

    # --- loading -----------------------------------------------------------------------------------------------------

    def _load(self, pipeline: Pipeline) -> str:
        """Run 0. Returns why it failed, or ""."""
        self._enter("loading")
        self._write(StageTree(t=self._now(), stages=[*LOAD_STAGES, *pipeline.stages]))
        recorder = Recorder(LOAD_STAGES, self._clock, lambda: None, self._sink.write)
        with self._last_word:
            self._write(RunStart(t=self._now(), run=0, kind="load"))
            self._run_start = self._now()
            self._loading = True
        recorder.start(0)
        try:
            facts = pipeline.load(recorder)
        except StreamLost:
            raise
        except Exception as error:  # noqa: BLE001 - a model may fail to load in any way
            outcome, reason = self._failure(error)
        else:
            outcome, reason = "ok", ""
        with self._last_word:
            self._loading = False
            self._end(outcome, reason, recorder.finish())
        if reason:
            return reason
        self._write(msgspec.structs.replace(facts, t=self._now()))
        self._device = facts.device
        self._clock = self._clock.on(facts.device)
        if isinstance(self._clock, BlindDeviceClock):
            log.warning("%s has no timed events: device stages cannot be told apart", facts.device)
        peaks = allocator_peaks(facts.device)
        write, check = self._sink.write, self._check
        self._recorder = Recorder(pipeline.stages, self._clock, check, write, pipeline.detokenize, peaks)
        return ""

    def _stop_while_loading(self) -> None:
        """Called from the watching thread. Nothing is measured yet and libraries do not let themselves be
        interrupted, so the process ends here."""
        reason = self._control.stop_now
        with self._last_word, contextlib.suppress(StreamLost):
            now = self._now()
            if self._loading:
                start = self._run_start
                self._write(RunEnd(t=now, run=0, outcome="cancelled", reason=reason, start=start, wall=now - start))
            self._write(StateChange(t=now, state="stopped", reason=reason))
            self._sink.sync()
            self._end_process(0)

    def _preflight(self, pipeline: Pipeline) -> None:
        for case in list(self._schedule.active):
            if problem := pipeline.check_case(case):
                log.error("%s is left out: %s", case.id, problem)
                self._schedule.drop(case.id, problem)
        if self._schedule.dropped:
            self._write(self._schedule.event(self._now()))
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > cores and self._plan.pipeline != "simulated":
            log.warning("load average is %.1f on %d cores: something else runs here, times will vary", load, cores)

    # --- runs --------------------------------------------------------------------------------------------------------

    def _execute(self, pipeline: Pipeline, planned: Planned) -> None:
        self._run += 1
        run, case = self._run, planned.case
        inputs = inputs_of(self._plan, planned)
        seed = run_seed(self._plan, run)
        self._control.current = case.id
        self._write(
            RunStart(
                t=self._now(),
                run=run,
                kind=planned.kind,
                case=case.id,
                round=planned.round,
                seed=seed,
                item=item_name(inputs),
            )
        )
        if planned.kind == "cross-check":
            self._measure(planned, lambda probe: self._cross_check(pipeline, case, inputs, seed), timed=False)
        else:
            self._measure(planned, lambda probe: pipeline.run(case, inputs, seed, probe))

    def _measure(self, planned: Planned, run: Callable[[Probe], RunResult], timed: bool = True) -> None:
        """One run: its spans where it is timed, its outcome, and what follows from that for its case."""
        recorder, case, result = self._recorder, planned.case, None
        assert recorder is not None
        recorder.start(self._run)
        self._run_start = self._now()
        try:
            result = run(recorder)
            self._trust(case, result)
            outcome, reason = "ok", ""
        except StreamLost as lost:
            self._end("failed", str(lost))
            raise
        except Exception as error:  # noqa: BLE001 - libraries raise what they like; each ends its run, none the session
            outcome, reason = self._failure(error)
        try:
            spans = recorder.finish()
        except Exception as error:  # noqa: BLE001 - the device itself may be lost
            spans = None
            outcome, reason = self._failure(error)
        if spans is not None and not timed:
            spans = Spans(spans.start, spans.wall, [], [], [], [])
        self._end(outcome, reason, spans, result, planned)
        if outcome == "ok":
            if planned.kind == "cold":
                self._schedule.cold_started()
            if result is not None and case.id not in self._own_ids:
                self._own_ids[case.id] = result.token_ids
        elif outcome != "cancelled":
            log.error("%s takes no further part: %s", case.id, reason)
            self._schedule.drop(case.id, reason)
            self._write(self._schedule.event(self._now()))
            release(self._device)

    def _trust(self, case: Case, result: RunResult) -> None:
        if result.vision_calls not in (None, 1):
            reason = f"the vision tower ran {result.vision_calls} times in one run: step 3 would contain step 2 again"
            self._untrusted[case.id] = reason
            raise Untrusted(reason)

    def _cross_check(self, pipeline: Pipeline, case: Case, inputs: tuple[str, ...], seed: int) -> RunResult:
        """Compares the case's own tokens with those of the library's plain generate(). The result carries the
        reference's tokens. Raises :class:`Untrusted` where they differ."""
        probe = SilentProbe(self._check)
        own = self._own_ids.get(case.id)
        if own is None:
            result = pipeline.run(case, inputs, seed, probe)
            self._trust(case, result)
            own = self._own_ids[case.id] = result.token_ids
        reference = pipeline.reference(case, inputs, probe)
        if reference is None:
            return RunResult([], [], facts={"cross_check": "nothing to check against"})
        if reference != own:
            self._untrusted[case.id] = reason = _difference(own, reference)
            raise Untrusted(reason)
        return RunResult(reference, [], facts={"cross_check": "equal", "tokens": sum(map(len, reference))})

    def _failure(self, error: Exception) -> tuple[str, str]:
        """Outcome and reason of a run that raised. The traceback goes to worker.log: for a user it is noise."""
        if isinstance(error, Cancelled):
            return "cancelled", self._control.stop_now or "cancelled"
        text = safe_text(str(error), REASON_LIMIT).strip()
        if isinstance(error, (PipelineError, Untrusted)):
            return "failed", text or type(error).__name__
        traceback.print_exception(error)
        # The frames hold the run's tensors; without this they would outlive it.
        traceback.clear_frames(error.__traceback__)
        if is_out_of_memory(error):
            return "out-of-memory", "out of memory" + (f": {text}" if text else "")
        return "failed", f"{type(error).__name__}: {text}" if text else type(error).__name__

    def _end(
        self,
        outcome: str,
        reason: str,
        spans: Spans | None = None,
        result: RunResult | None = None,
        planned: Planned | None = None,
    ) -> None:
        """The run's closing event, on the disk before anything else begins."""
        now = self._now()
        result = result or RunResult([], [])
        fields: dict[str, Any] = {"start": self._run_start, "wall": now - self._run_start}
        if spans is not None:
            fields = {name: getattr(spans, name) for name in Spans.__slots__}
        end = RunEnd(
            t=now,
            run=self._run,
            outcome=outcome,
            reason=reason,
            rss=self._process.memory_info().rss,
            token_ids=result.token_ids,
            text=result.text,
            frames=result.frames,
            prompt_tokens=result.prompt_tokens,
            image_tokens=result.image_tokens,
            facts=result.facts,
            **fields,
        )
        try:
            self._write(end)
            self._sink.sync()
        except StreamLost as lost:  # The spans did not fit; that the run ended does, into the reserve.
            self._write(
                RunEnd(t=now, run=self._run, outcome="failed", reason=str(lost), start=end.start, wall=end.wall)
            )
            raise
        self.summary.add(end, planned)

    # --- small things ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """What the probe's check does: hears control, and cuts the run short if that is asked."""
        self._control.poll()
        if self._control.stop_now:
            raise Cancelled(self._control.stop_now)

    def _wait_while_paused(self) -> None:
        """Between runs: hears control, and stays while the session is paused."""
        self._control.poll()
        while self._control.paused and not self._control.ending:
            self._enter("paused")
            self._clock.wait(PAUSE_S)
            self._control.poll()

    def _enter(self, state: str, reason: str = "") -> None:
        if state != self.state:
            self.state, self.reason = state, reason
            self._write(StateChange(t=self._now(), state=state, reason=safe_text(reason, 2 * REASON_LIMIT)))

    def _write(self, event: Any) -> None:
        self._sink.write(event)

    def _now(self) -> int:
        return self._clock.now()


def _named(reasons: dict[str, str]) -> str:
    """Why cases failed, in one line: all of them where there are few reasons."""
    return "; ".join(f"{case}: {reason}" for case, reason in list(reasons.items())[:3]) + (
        f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    )


def _difference(own: list[list[int]], reference: list[list[int]]) -> str:
    """Where two runs' tokens part, in words."""
    start = "cross-check failed: split run and plain generate() disagree: "
    if len(own) != len(reference):
        return f"{start}{len(own)} sequences against {len(reference)}"
    for sequence, (ours, theirs) in enumerate(zip(own, reference, strict=True)):
        for place, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b:
                return f"{start}token {place + 1} of sequence {sequence + 1} is {a} against {b}"
        if len(ours) != len(theirs):
            return f"{start}sequence {sequence + 1} has {len(ours)} tokens against {len(theirs)}"
    return start + "unknown difference"
