"""Runs: each is begun, measured, ended on the disk, and means something for those to come."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from llava_tui.events import BrokenItem, Profile, RunEnd, RunStart, SelfTest
from llava_tui.needs import Needs
from llava_tui.pipelines.base import BrokenInput, Cancelled, Input, Pipeline, Probe, RunResult
from llava_tui.plan import Case, Plan
from llava_tui.session.reader import safe_text
from llava_tui.worker import selftest
from llava_tui.worker.control import Control
from llava_tui.worker.cooling import Cooling
from llava_tui.worker.journal import Journal
from llava_tui.worker.listener import hearing
from llava_tui.worker.memory import holding, is_out_of_memory, release, tidy
from llava_tui.worker.outcome import (
    REASON_LIMIT,
    Untrusted,
    difference,
    failure,
    footprint,
    with_footprint,
)
from llava_tui.worker.past import Past
from llava_tui.worker.ranks import Over, RankLost, Ranks, Word
from llava_tui.worker.recorder import BareProbe, Recorder, Spans
from llava_tui.worker.schedule import Planned, Schedule, run_seed
from llava_tui.worker.sink import StreamLost
from llava_tui.worker.stage_memory import meter
from llava_tui.worker.summary import Summary

log = logging.getLogger(__name__)


NAME_LIMIT = 200
RETRIES = 3
"""How often a measured run of a case is run again because it was disturbed, before the case is given up."""


class DeviceLost(Exception):
    """The device answers no more: nothing can be measured on. The message is the session's reason."""


class Runs:
    """Executes what the schedule says, one run at a time."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        control: Control,
        schedule: Schedule,
        cooling: Cooling | None,
        folder: Path | None,
        ranks: Ranks | None = None,
        past: Past | None = None,
    ) -> None:
        self.summary = past.summary if past is not None else Summary()
        self.untrusted: dict[str, str] = {}
        """Cases whose figures would not mean what they say, and why."""
        self.needs: dict[str, Needs] = {}
        """What cases take of memory beside the weights, by their ids, as far as that is known."""
        self._plan = plan
        self._journal = journal
        self._control = control
        self._schedule = schedule
        self._cooling = cooling
        self._folder = folder
        self._ranks = ranks or Ranks()
        self._run = past.run if past is not None else 0
        self._ended = 0
        """The last run that has its closing event."""
        self._run_start = journal.now()
        self._device = "cpu"
        self._recorder: Recorder | None = None
        self._batches = schedule.batches
        self._taken: tuple[int, ...] = ()
        """The inputs of the run that goes on, or was the last."""
        self._own: dict[str, tuple[tuple[int, ...], list[list[int]]]] = {}
        """The inputs and the tokens of each case's first run, by its id at its real size."""
        self._pairs: tuple[str, list[int], list[int]] | None = None
        self._disturbed: Counter[str] = Counter()
        """Measured runs that something disturbed, by case."""
        self._process = psutil.Process()
        self._held: dict[str, int] = {}
        """What was held when memory was too little."""

    def loaded(self, pipeline: Pipeline, device: str) -> None:
        """The pipeline's model is on that torch device, and the journal's clock is the device's."""
        self._device = device
        write, clock = self._journal.write, self._journal.clock
        memory = meter(device, pipeline)
        self._recorder = Recorder(pipeline.stages, clock, self._check, write, pipeline.detokenize, memory)

    def loading(self) -> int:
        """The number of a run that loads another model."""
        self._run += 1
        return self._run

    def self_test(self) -> SelfTest | None:
        """What the self-test's runs since the last call say; ``None`` where there were none."""
        if self._pairs is None:
            return None
        case, bare, instrumented = self._pairs
        self._pairs = None
        return selftest.result(self._journal.now(), case, bare, instrumented)

    def execute(self, pipeline: Pipeline, planned: Planned) -> None:
        """One run, whatever comes of it. Raises :class:`~llava_tui.worker.sink.StreamLost`, :class:`DeviceLost`, and as
        :class:`~llava_tui.worker.ranks.Ranks` does."""
        assert self._recorder is not None, "no model is loaded"
        self._run += 1
        run, case, kind = self._run, planned.case, planned.kind
        taken = self._batches.of(case, planned.round)
        self._taken = taken
        if not taken:
            self._stand_by(planned)
            return
        # Within the self-test everything is the same but the measuring.
        seed = run_seed(self._plan, 0 if kind == "self-test" else run)
        self._control.current = case.id
        self._journal.write(
            RunStart(
                t=self._journal.now(),
                run=run,
                kind="partial" if self._is_partial(planned) else kind,
                case=case.id,
                round=planned.round,
                seed=seed,
                item=self._batches.name(taken),
                items=list(taken) if self._batches.several else [],
            )
        )
        self._run_start = self._journal.now()
        outcome, reason = "ok", ""
        try:
            pipeline.prepare(case)
        except Exception as error:  # noqa: BLE001 - what a case asks for may be too much, or not be there
            outcome, reason = self._failure(error)
        # Here the ranks wait for each other: each is measured while all run.
        ready = self._agree(outcome, reason, planned=planned)
        if ready.outcome != "ok":
            self.end(ready.outcome, ready.reason, planned=planned)
            self._give_up(planned, ready.outcome, ready.reason)
            return
        # Compiling takes up to minutes and never looks up; the run that it happens in counts nowhere.
        first = self._plan.compile_of(case) != "off" and self._sized(planned).id not in self._own
        with hearing(self._control) if first else contextlib.nullcontext():
            self._run_as(pipeline, planned, self._batches.given(taken), seed)

    def _stand_by(self, planned: Planned) -> None:
        """Of several ranks, one that has nothing left of that round, while others have."""
        told = self._ranks.agree("ok", "")  # that all are ready
        if told.outcome == "ok":
            told = self._ranks.agree("ok", "")
        if told.outcome != "ok":
            self._give_up(planned, told.outcome, told.reason)
        elif self._ranks.leads:
            self._schedule.ran(planned, 0, {}, self._journal.now())

    def _is_partial(self, planned: Planned) -> bool:
        return planned.kind == "measured" and len(self._taken) < planned.case.batch

    def _sized(self, planned: Planned) -> Case:
        """The case as it runs: a batch that items are too few for is run at its real size."""
        return msgspec.structs.replace(planned.case, batch=len(self._taken))

    def _run_as(self, pipeline: Pipeline, planned: Planned, inputs: tuple[Input, ...], seed: int) -> None:
        """By its kind."""
        assert self._recorder is not None
        case, bare = self._sized(planned), BareProbe(self._journal.clock, self._check)
        if planned.kind == "cross-check":
            self._measure(planned, bare, lambda probe: self._cross_check(pipeline, case, inputs, seed, probe))
        elif planned.kind == "profile" and self._ranks.leads:
            self._profile(pipeline, planned, inputs, seed)
        else:
            probe = bare if planned.bare else self._recorder
            self._measure(planned, probe, lambda probe: pipeline.run(case, inputs, seed, probe))

    def _measure(
        self, planned: Planned, recorder: Recorder | BareProbe, run: Callable[[Probe], RunResult]
    ) -> Spans | None:
        """One run: its spans, its outcome, and what follows from that for its case. Returns its spans if it went
        well."""
        case, result, begun = planned.case, None, False
        self._run_start = self._journal.now()
        try:
            recorder.start(self._run)
            self._run_start, begun = self._journal.now(), True
            result = run(recorder)
            self._trust(case, result)
            outcome, reason = "ok", ""
        except StreamLost as lost:
            self.end("failed", str(lost))
            raise
        except BrokenInput as broken:
            outcome, reason = self._broken(broken)
        except Exception as error:  # noqa: BLE001 - libraries raise what they like; each ends its run, none the session
            outcome, reason = self._failure(error)
        spans = None
        try:
            if begun:
                spans = recorder.finish()
        except Exception as error:  # noqa: BLE001 - the device itself may be lost
            if outcome in ("ok", "cancelled"):  # Else this is no news.
                outcome, reason = self._failure(error)
        if outcome == "out-of-memory":
            reason = with_footprint(reason, self._footprint(planned, spans))
        taken_back = hot = ""
        if outcome == "ok" and spans is not None and planned.kind == "measured" and not self._is_partial(planned):
            hot = self._cooling.why(spans.start, planned.round) if self._cooling is not None else ""
            taken_back = (result.disturbed if result is not None else "") or hot
        told = self._agree(outcome, reason, taken_back, planned, spans, result)
        taken_back = told.taken_back if outcome == "ok" else ""
        kind = "discarded" if taken_back else "partial" if self._is_partial(planned) else ""
        self.end(outcome, reason or taken_back, spans, result, planned, kind)
        if outcome == "ok" and not taken_back:
            self._batches.finished(planned.case, planned.round, self._taken)
        if told.outcome != "ok" or spans is None:
            self._give_up(planned, told.outcome, told.reason)
            return None
        if planned.kind == "cold":
            self._schedule.cold_started()
        if result is not None and (sized := self._sized(planned).id) not in self._own:
            self._own[sized] = (self._taken, result.token_ids)
        if not self._ranks.leads:
            return spans
        if hot:
            self._cool_down(planned, hot)
        elif taken_back:
            self._again(planned, taken_back)
        else:
            self._follow_up(planned, spans)
        return spans

    def _agree(
        self,
        outcome: str,
        reason: str,
        taken_back: str = "",
        planned: Planned | None = None,
        spans: Spans | None = None,
        result: RunResult | None = None,
    ) -> Word:
        """What all ranks together make of the run. If they go on no more it ends here, and counts nowhere: the others
        did not run to its end beside it."""
        case = planned.case.id if planned is not None else ""
        try:
            told = self._ranks.agree(outcome, reason, taken_back, self.untrusted.get(case, ""))
        except (RankLost, Over) as lost:
            kind = "discarded" if outcome == "ok" and spans is not None else ""
            ended = "cancelled" if outcome == "ok" and spans is None else outcome
            self.end(ended, reason or str(lost), spans, result, planned, kind)
            raise
        if told.untrusted:
            self.untrusted.setdefault(case, told.untrusted)
        if told.outcome == "cancelled":
            self._control.look()
            if not self._control.ending:
                self._control.interrupt(told.reason)  # A signal that came to another rank alone.
        return told

    def _give_up(self, planned: Planned, outcome: str, reason: str) -> None:
        """A run did not go well: its case takes no further part, unless somebody cut it short, it was an extra, or
        one of many inputs is to blame."""
        if outcome == "cancelled" or planned.kind == "profile":
            return
        if outcome == "broken-input":
            if self._ranks.leads:
                self._schedule.broken(planned)
                self._journal.tell_schedule()
            return
        if self._ranks.leads:
            log.error("%s takes no further part: %s", planned.case.id, reason)
            self._schedule.drop(planned.case.id, reason)
            self._journal.tell_schedule()
        try:
            self._journal.clock.finish_run()
        except Exception:  # noqa: BLE001 - a context that an illegal access has poisoned fails whatever is asked of it
            raise DeviceLost(f"the device was lost in run {self._run}: {reason.splitlines()[0]}") from None
        release(self._device)

    def _follow_up(self, planned: Planned, spans: Spans) -> None:
        """What a run that went well means for those to come."""
        steps = {path: time for path, time in zip(spans.stages, spans.durations, strict=True) if "." not in path}
        if warm := self._schedule.ran(planned, spans.wall, steps, self._journal.now()):
            self._journal.write(warm)
            self._journal.tell_schedule()
        if planned.kind == "self-test":
            _, bare, instrumented = self._pairs = self._pairs or (planned.case.id, [], [])
            (bare if planned.bare else instrumented).append(spans.wall)

    def _cool_down(self, planned: Planned, why: str) -> None:
        assert self._cooling is not None
        self._journal.enter("cooling down")
        log.warning("run %d is taken back: %s", self._run, why)

        def give_up() -> bool:
            self._control.poll()
            return self._control.ending or self._control.paused

        self._journal.write(self._cooling.rest(self._run, why, give_up))
        self._schedule.retry(planned)
        self._journal.tell_schedule()

    def _again(self, planned: Planned, why: str) -> None:
        case = planned.case.id
        self._disturbed[case] += 1
        if self._disturbed[case] > RETRIES:
            self._give_up(planned, "failed", f"{why}, in {self._disturbed[case]} measured runs")
            return
        log.warning("run %d is taken back: %s", self._run, why)
        self._schedule.retry(planned)
        self._journal.tell_schedule()

    def _broken(self, broken: BrokenInput) -> tuple[str, str]:
        """Outcome and reason of a run, an input of which cannot be read: it is left out from here on."""
        reason = safe_text(str(broken), REASON_LIMIT)
        if not self._batches.several:
            return "failed", reason
        known = broken.sequence is not None
        for place in {self._taken[(broken.sequence or 0) % len(self._taken)]} if known else set(self._taken):
            self._batches.leave_out(place, reason)
            name = safe_text(self._batches.name([place]), NAME_LIMIT)
            self._journal.write(BrokenItem(t=self._journal.now(), item=place, name=name, reason=reason, run=self._run))
        return "broken-input", reason

    def _profile(self, pipeline: Pipeline, planned: Planned, inputs: tuple[Input, ...], seed: int) -> None:
        """One run under the profiler. Whatever goes wrong with that is said, and harms nothing else."""
        from llava_tui.worker.microscope import Microscope

        run, case = self._run, planned.case
        # No hints: writing them would be time that the profiler sees and our marks do not.
        recorder = Recorder(pipeline.stages, self._journal.clock, self._check)
        problem, spans = "the run did not come to its end", None
        try:
            scope = Microscope(self._device)
            with contextlib.ExitStack() as heard:
                with scope:
                    spans = self._measure(
                        planned,
                        recorder,
                        lambda probe: pipeline.run(case, inputs, seed, scope.probe(probe, pipeline.stages)),
                    )
                    # The run is over; making something of what the profiler saw takes seconds.
                    heard.enter_context(hearing(self._control))
                if spans is not None:
                    self._journal.write(scope.report(self._journal.now(), run, case.id, spans, self._folder))
                    return
        except (StreamLost, RankLost, Over):
            raise
        except Exception as error:  # noqa: BLE001 - the profiler is not ours, and the session is complete without it
            outcome, problem = self._failure(error)
            if self._ended != run:  # It could not even begin.
                self.end(outcome, problem, planned=planned)
        log.warning("no profile: %s", problem)
        self._journal.write(Profile(t=self._journal.now(), run=run, case=case.id, problem=problem))

    def _trust(self, case: Case, result: RunResult) -> None:
        encoded = 0 if result.frames == 0 else 1  # text alone: never
        if result.vision_calls not in (None, encoded):
            reason = f"the vision tower ran {result.vision_calls} times in one run: step 3 would contain step 2 again"
            self.untrusted[case.id] = reason
            raise Untrusted(reason)

    def _cross_check(
        self, pipeline: Pipeline, case: Case, inputs: tuple[Input, ...], seed: int, probe: Probe
    ) -> RunResult:
        """Compares the case's own tokens with those of the library's plain generate(). The result carries the
        reference's tokens. Raises :class:`Untrusted` where they differ."""
        taken, own = self._own.get(case.id, ((), []))
        if taken != self._taken:
            result = pipeline.run(case, inputs, seed, probe)
            self._trust(case, result)
            own = result.token_ids
            self._own[case.id] = (self._taken, own)
        with hearing(self._control):  # The first token takes a whole prefill, and nothing of ours is on the model.
            reference = pipeline.reference(case, inputs, probe)
        if reference is None:
            return RunResult([], [], facts={"cross_check": "nothing to check against"})
        if reference != own:
            self.untrusted[case.id] = reason = difference(own, reference)
            raise Untrusted(reason)
        return RunResult(reference, [], facts={"cross_check": "equal", "tokens": sum(map(len, reference))})

    def _failure(self, error: Exception) -> tuple[str, str]:
        if is_out_of_memory(error):  # before what the run holds is let go of
            self._held = holding(self._device)
        return failure(error, self._control.stop_now)

    def _footprint(self, planned: Planned, spans: Spans | None) -> dict[str, Any]:
        return footprint(self._held, spans, self.needs.get(planned.case.id))

    def end(
        self,
        outcome: str,
        reason: str,
        spans: Spans | None = None,
        result: RunResult | None = None,
        planned: Planned | None = None,
        kind: str = "",
    ) -> None:
        """The run's closing event, on the disk before anything else begins."""
        now = self._journal.now()
        result = result or RunResult([], [])
        fields: dict[str, Any] = {"start": self._run_start, "wall": now - self._run_start}
        if spans is not None:
            fields = spans.fields()
        facts = result.facts
        if planned is not None and outcome == "out-of-memory":
            facts = {**facts, "footprint": self._footprint(planned, spans)}
        if planned is not None and planned.kind == "self-test":
            facts = {**facts, "self_test": "bare" if planned.bare else "instrumented"}
        end = RunEnd(
            t=now,
            run=self._run,
            outcome=outcome,
            kind=kind,
            reason=reason,
            rss=self._process.memory_info().rss,
            token_ids=result.token_ids,
            text=result.text,
            frames=result.frames,
            prompt_tokens=result.prompt_tokens,
            image_tokens=result.image_tokens,
            facts=facts,
            **fields,
        )
        try:
            self._journal.write(end)
        except StreamLost as lost:  # The spans did not fit; that the run ended does, into the reserve.
            self._journal.write(
                RunEnd(t=now, run=self._run, outcome="failed", reason=str(lost), start=end.start, wall=end.wall)
            )
            raise
        self._ended = self._run
        self.summary.add(end, planned)
        self._journal.sink.sync()
        tidy(self._run)

    def _check(self) -> None:
        """What the probe's check does: hears control, and cuts the run short if that is asked."""
        self._control.poll()
        if self._control.stop_now:
            raise Cancelled(self._control.stop_now)
