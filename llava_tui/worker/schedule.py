"""What is still to be run, in order, and how a viewer's wishes change it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava_tui import events
from llava_tui.plan import Case, Plan
from llava_tui.worker import selftest
from llava_tui.worker.batches import Batches
from llava_tui.worker.rules import WARM_UP_LEAST, WARM_UP_MOST, spread, warmed_up
from llava_tui.worker.stopping import Stopping

if TYPE_CHECKING:
    from llava_tui.worker.past import Past


@dataclass(frozen=True, slots=True)
class Planned:
    """One run to come."""

    kind: events.RunKind
    case: Case
    round: int | None = None
    bare: bool = False
    """Of a self-test: with a probe that measures nothing."""


class Schedule:
    """The runs of a session after loading: one cold start, then each case warmed up and cross-checked, the self-test,
    then rounds, every case once a round in the plan's order for that round; a profiled run at the end.

    Where the plan says ``auto``, what comes next depends on what was measured: :meth:`ran` is told of every run.
    """

    def __init__(self, plan: Plan, batches: Batches | None = None, past: Past | None = None) -> None:
        """``past``: what another worker did before: rounds go on from the first with anything left, the model starts
        cold and is warmed up again, and what was found out about it holds."""
        self.plan = plan
        self.batches = batches or Batches(plan)
        self.cases: dict[str, Case] = {case.id: case for case in plan.cases()}
        self.dropped: dict[str, str] = {}
        """Cases that take no further part, and why."""
        self.skipped: set[str] = set()
        self.done = 0
        self._stopping = Stopping(plan, self.batches)
        self.rounds = plan.max_rounds if self._stopping.auto else self._rounds_planned()
        """Rounds asked for in all; with ``auto`` the most there can be."""
        self._planned_rounds = self.rounds
        self.untold = False
        """Whether runs were left out since the schedule was told."""
        self.over = False
        """The profiled run has begun: nothing is measured after it."""
        self._repeated: set[int] = set()
        """Numbers of single runs that a viewer asked for, which are rounds of their own."""
        self._next_round = self.rounds
        self._begun = 0
        self._went_well: set[int] = set()
        """Rounds in which a run went well."""
        self._running: Planned | None = None
        """The run that was taken last, until it is known what came of it; one that is cut short stays."""
        self._extra = 0
        """Rounds that a viewer asked for: no rule takes them back."""
        self._cold_started = False
        self._cold_taken = False
        self._warming: dict[str, list[int]] = {}
        """Wall times of the adaptive warm-ups that go on."""
        self._taken_warm: dict[str, int] = {}
        self._since: int | None = None
        self._waiting: deque[tuple[set[str], list[Planned]]] = deque()
        """Groups of cases whose models are loaded later, and what is to be run of them before their rounds."""
        self._away: set[str] = set()
        """Cases whose models are not in memory."""
        self._profiled = not plan.profile
        self._pending: deque[Planned] = deque()
        least = WARM_UP_LEAST if plan.warmup == "auto" else plan.warmup
        for case in self.cases.values():
            self._pending.extend(Planned("warm-up", case) for _ in range(least))
            self._pending.append(Planned("cross-check", case))
            if plan.warmup == "auto":
                self._warming[case.id] = []
        self._self_test = plan.self_test and plan.pipeline != "simulated"
        self._plan_self_test()
        self._ahead = deque(range(self.rounds))
        """Rounds whose order is not drawn yet."""
        if past is not None:
            self._go_on(past)

    def group(self, groups: Sequence[Sequence[str]]) -> None:
        """Cases by what is in memory together, in the order in which it is loaded: those of a group interleave, and a
        group's rounds are over before the next is loaded. Told once, before anything has run."""
        first, *others = (set(group) for group in groups)
        self._stopping.groups = len(groups)
        for group in others:
            self._waiting.append((group, [planned for planned in self._pending if planned.case.id in group]))
        self._pending = deque(planned for planned in self._pending if planned.case.id in first)
        self._away = self.cases.keys() - first
        self._plan_self_test_again()

    def is_away(self, case: str) -> bool:
        """Whether the case's model is not in memory now: it comes later, or was given up for another."""
        return case in self._away

    @property
    def active(self) -> list[Case]:
        """Cases that still take part."""
        return [case for case in self.cases.values() if case.id not in self.dropped]

    @property
    def self_testing(self) -> bool:
        """Whether runs of the self-test are still to come."""
        return any(planned.kind == "self-test" for planned in self._pending)

    def take(self, now: int = 0) -> Planned | None:
        """The next run, counted as done; ``None`` at the end. Before anything else, and until one has succeeded
        (:meth:`cold_started`), a cold start of the first case. ``now`` (ns) is what a time limit is held against."""
        self._leave_out_finished()
        while not self._pending and self._ahead and not self._enough(now):
            round_ = self._ahead.popleft()
            taking_part = self._taking_part()
            order = self.plan.round_order(round_)
            self._pending.extend(Planned("measured", case, round_) for case in order if case.id in taking_part)
            self._begun += bool(self._pending)
            self._since = now if self._since is None else self._since
            self._leave_out_finished()
        if not self._pending and self._next_group():
            self.done += 1
            return Planned("load", self._pending[0].case)
        if not self._pending and not self._profiled and (case := self._first_case()) is not None:
            self._profiled = self.over = True
            self._pending.append(Planned("profile", case))
        if not self._pending:
            return None
        self.done += 1
        if self._cold_started:
            planned = self._pending.popleft()
            if planned.kind == "warm-up":
                self._taken_warm[planned.case.id] = self._taken_warm.get(planned.case.id, 0) + 1
            elif planned.kind == "self-test":
                self._self_test = False  # Begun: it is not moved to another case any more.
            self._running = planned
            return planned
        self._cold_taken = True
        return Planned("cold", self._pending[0].case)

    def cold_started(self) -> None:
        """The model has run once."""
        self._cold_started = True

    def ran(self, planned: Planned, wall: int, steps: Mapping[str, int | None], t: int = 0) -> events.WarmUp | None:
        """A run went well and took ``wall`` ns, each step what ``steps`` says. Returns the fact, told at ``t``, where
        an adaptive warm-up is over."""
        case = planned.case.id
        self._running = None
        if planned.round is not None:
            self._stopping.ran(case, planned.round, wall, steps)
            if planned.round not in self._repeated:
                self._went_well.add(planned.round)
        if planned.kind != "warm-up" or case not in self._warming:
            return None
        walls = self._warming[case]
        walls.append(wall)
        if rule := warmed_up(walls):
            del self._warming[case]
            return events.WarmUp(t=t, case=case, runs=len(walls), rule=rule, spread=spread(walls))
        if not any(one.kind == "warm-up" and one.case.id == case for one in self._pending):
            self._pending.appendleft(Planned("warm-up", planned.case))
        return None

    def retry(self, planned: Planned) -> None:
        """The run was taken back: once more, next; unless its case takes no part any more."""
        self._running = None
        if planned.case.id in self._taking_part():
            self._pending.appendleft(planned)

    def broken(self, planned: Planned) -> None:
        """An input of the run cannot be read: once more without it, next, as far as anything of it is left."""
        if self.batches.all_broken:
            self._running = None
            self._pending.clear()
            self._ahead.clear()
        elif planned.kind == "cold":  # It comes again by itself.
            self._cold_taken = False
            self._running = None
        else:
            self.retry(planned)

    def drop(self, case: str, why: str) -> None:
        """The case can take no further part (refused, failed)."""
        self._cold_taken = False
        self._running = None
        self.dropped[case] = why
        self._remove(case)

    def skip(self, case: str) -> int:
        """Leaves out what remains of a case; returns how many runs that were."""
        before = self.left()
        self.skipped.add(case)
        self._remove(case)
        return before - self.left()

    def repeat(self, case: str) -> None:
        """One more measured run of the case, as soon as measuring is on, as a round of its own: within a round every
        case runs once, which is what pairs cases."""
        self._repeated.add(self._next_round)
        first = next((i for i, planned in enumerate(self._pending) if planned.kind == "measured"), len(self._pending))
        self._pending.insert(first, Planned("measured", self.cases[case], self._next_round))
        self._next_round += 1

    def extend(self, rounds: int) -> None:
        """That many more rounds of every case that takes part, whatever rule ends the others."""
        self.rounds += rounds
        self._extra += rounds
        self._ahead.extend(range(self._next_round, self._next_round + rounds))
        self._next_round += rounds

    def left(self) -> int:
        """Runs that are still to come; the most there can be where a rule may end them earlier."""
        taking_part = self._taking_part()
        profile = 0 if self._profiled or self._first_case() is None else 1
        ahead = self._measured_ahead(taking_part) + self._left_of_groups()
        return len(self._pending) + self._warm_ups_left() + ahead + profile

    def event(self, t: int) -> events.Schedule:
        """The schedule as it stands."""
        self.untold = False
        left = self.left()
        cold = 1 if left and not self._cold_started and not self._cold_taken else 0
        return events.Schedule(
            t=t,
            cases=[events.Case(case.id, case.values()) for case in self.active],
            rounds=self._next_round,
            runs=self.done + cold + left,
            rule=self.rule,
            open=bool(self._warm_ups_left()) or self.open_ended,
        )

    @property
    def open_ended(self) -> bool:
        """Whether a rule may end the rounds before all of them were run."""
        return self._stopping.may_end and bool(self._ahead)

    @property
    def rule(self) -> str:
        """Which rule ends the rounds, in words."""
        return self._stopping.rule(self.rounds, self.rounds - self._planned_rounds, len(self._repeated))

    def ended(self, t: int, stopped: str = "") -> events.Ended:
        """Which rule ended measuring; ``stopped`` says who, where it was none."""
        return self._stopping.ended(
            t,
            stopped,
            rounds=self.rounds,
            begun=self._begun,
            complete=self._complete(),
            compared=self._compared(),
        )

    # --- rules -------------------------------------------------------------------------------------------------------

    def _enough(self, now: int) -> bool:
        """Whether a rule ends the rounds here, between two of them; those that a viewer asked for are kept."""
        elapsed = now - self._since if self._since is not None else None
        if rule := self._stopping.reached(elapsed, self._begun, self._compared()):
            keep = 0 if rule == "time limit" else self._extra
            while len(self._ahead) > keep:
                self._ahead.pop()
            self.rounds = self._begun + len(self._ahead)
            if not self._repeated:  # Their numbers are taken; else the rounds to come go on where these end.
                self._next_round = self.rounds
        return not self._ahead

    def _complete(self) -> int:
        """Rounds of which nothing is missing; a case that takes no part any more is not missing."""
        cut = {planned.round for planned in (*self._pending, self._running) if planned is not None}
        return len(self._went_well - cut)

    def _compared(self) -> list[str]:
        taking_part = self._taking_part()
        return [case for case in self.cases if case in taking_part]

    def _warm_ups_left(self) -> int:
        """Warm-up runs that may still be needed beyond those that are planned."""
        everything = [*self._pending, *(planned for _, waiting in self._waiting for planned in waiting)]
        planned = Counter(one.case.id for one in everything if one.kind == "warm-up")
        if self.batches.all_broken:
            return 0
        return sum(max(0, WARM_UP_MOST - self._taken_warm.get(case, 0) - planned[case]) for case in self._warming)

    def _go_on(self, past: Past) -> None:
        self.done = past.run + 1  # the load that comes first is one of them
        self._went_well = {round_ for _, round_ in past.finished}
        self._begun = min(self.batches.next_round(case) for case in self.cases.values())
        self._ahead = deque(range(self._begun, self.rounds))
        self._self_test = self._self_test and not past.self_tested
        known = {"self-test"} if past.self_tested else set()
        self._pending = deque(
            one
            for one in self._pending
            if one.kind not in known and not (one.kind == "cross-check" and one.case.id in past.checked)
        )
        for case in self.cases.values():
            if not self.batches.left(case):
                self._remove(case.id)
                self.skipped.add(case.id)

    # --- a data set --------------------------------------------------------------------------------------------------

    def _rounds_planned(self) -> int:
        """Of a data set as many as the case with the smallest batch needs for its passes."""
        if self.batches.is_dataset:
            return max(self.batches.rounds(case) for case in self.cases.values())
        assert isinstance(self.plan.rounds, int)
        return self.plan.rounds

    def _leave_out_finished(self) -> None:
        """Runs to come of which every item is done or broken, and those beyond their case's passes."""
        while self._pending and (planned := self._pending[0]).kind == "measured" and self._is_over(planned):
            self._pending.popleft()
            self.untold = True

    def _is_over(self, planned: Planned) -> bool:
        round_ = planned.round
        if round_ is None or not self.batches.is_dataset:
            return False
        if self.batches.rounds(planned.case) <= round_ < self._planned_rounds:
            return True
        return self.batches.alone and self.batches.is_over(planned.case, round_)

    def _measured_ahead(self, taking_part: set[str]) -> int:
        if not self.batches.is_dataset:
            return len(self._ahead) * len(taking_part)
        cases = [case for case in self.cases.values() if case.id in taking_part]
        asked_for = sum(round_ >= self._planned_rounds for round_ in self._ahead) if self._extra else 0
        first = self._ahead[0] if self._ahead else self._planned_rounds
        left = asked_for * len(cases)
        if first < self._planned_rounds:  # Those that are planned follow each other, from the first to the last.
            left += sum(max(0, self.batches.rounds(case) - max(first, self.batches.next_round(case))) for case in cases)
        return left

    # --- groups ------------------------------------------------------------------------------------------------------

    def _next_group(self) -> bool:
        """Whether there is another group with anything to run; what follows is then of that one."""
        while self._waiting:
            group, waiting = self._waiting.popleft()
            here = group - self.dropped.keys() - self.skipped
            if not here or self.batches.all_broken:
                continue
            self._stopping.next_group(self.rounds)
            self._away = self.cases.keys() - group
            self._pending.extend(waiting)
            self._cold_started = self._cold_taken = False
            self._since = None
            self._begun = self._extra = 0
            self.rounds = self._next_round = self._planned_rounds
            self._ahead = deque(range(self.rounds))
            if self._self_test:  # Nothing before this could be tested on.
                self._plan_self_test_again()
            return True
        return False

    def _left_of_groups(self) -> int:
        left = 0
        for group, waiting in self._waiting:
            if here := group - self.dropped.keys() - self.skipped:
                rounds = sum(self._rounds_of(self.cases[case]) for case in here)
                left += 2 + len(waiting) + rounds  # its load, and its cold start
        return left

    def _rounds_of(self, case: Case) -> int:
        return self.batches.rounds(case) if self.batches.is_dataset else self._planned_rounds

    # --- small things ------------------------------------------------------------------------------------------------

    def _plan_self_test(self) -> None:
        """Before the first round, on the first case that takes part."""
        case = self._first_case()
        if self._self_test and case is not None:
            runs = [Planned("self-test", case, bare=bare) for bare in selftest.order()]
            first = next((i for i, one in enumerate(self._pending) if one.kind == "measured"), len(self._pending))
            for place, planned in enumerate(runs):
                self._pending.insert(first + place, planned)

    def _plan_self_test_again(self) -> None:
        self._pending = deque(planned for planned in self._pending if planned.kind != "self-test")
        self._plan_self_test()

    def _first_case(self) -> Case | None:
        if self.batches.all_broken:
            return None
        return next((case for case in self.cases.values() if case.id in self._taking_part()), None)

    def _taking_part(self) -> set[str]:
        return self.cases.keys() - self.dropped.keys() - self.skipped - self._away

    def _remove(self, case: str) -> None:
        for _, waiting in self._waiting:
            waiting[:] = [planned for planned in waiting if planned.case.id != case]
        self._warming.pop(case, None)
        testing = self.self_testing
        self._pending = deque(planned for planned in self._pending if planned.case.id != case)
        if testing and not self.self_testing:
            self._plan_self_test()


def run_seed(plan: Plan, run: int) -> int:
    """The seed of a run: the plan's seed and the run's number decide it."""
    return random.Random(f"{plan.seed}/{run}").getrandbits(31)
