"""What is still to be run, in order, and how a viewer's wishes change it."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from pathlib import PurePath

from llava_tui import events
from llava_tui.plan import Case, Plan


@dataclass(frozen=True, slots=True)
class Planned:
    """One run to come."""

    kind: events.RunKind
    case: Case
    round: int | None = None


class Schedule:
    """The runs of a session after loading: one cold start, then each case warmed up and cross-checked, then rounds,
    every case once a round in the plan's order for that round."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cases: dict[str, Case] = {case.id: case for case in plan.cases()}
        self.dropped: dict[str, str] = {}
        """Cases that take no further part, and why."""
        self.skipped: set[str] = set()
        self.done = 0
        self.rounds = plan.rounds
        self._repeats = 0
        self._next_round = plan.rounds
        self._cold_started = False
        self._cold_taken = False
        self._pending: deque[Planned] = deque()
        for case in self.cases.values():
            self._pending.extend(Planned("warm-up", case) for _ in range(plan.warmup))
            self._pending.append(Planned("cross-check", case))
        self._ahead = deque(range(plan.rounds))
        """Rounds whose order is not drawn yet."""

    @property
    def active(self) -> list[Case]:
        """Cases that still take part."""
        return [case for case in self.cases.values() if case.id not in self.dropped]

    def take(self) -> Planned | None:
        """The next run, counted as done; ``None`` at the end. Before anything else, and until one has succeeded
        (:meth:`cold_started`), a cold start of the first case."""
        while not self._pending and self._ahead:
            round_ = self._ahead.popleft()
            taking_part = self._taking_part()
            order = self.plan.round_order(round_)
            self._pending.extend(Planned("measured", case, round_) for case in order if case.id in taking_part)
        if not self._pending:
            return None
        self.done += 1
        if self._cold_started:
            return self._pending.popleft()
        self._cold_taken = True
        return Planned("cold", self._pending[0].case)

    def cold_started(self) -> None:
        """The model has run once."""
        self._cold_started = True

    def drop(self, case: str, why: str) -> None:
        """The case can take no further part (refused, failed)."""
        self._cold_taken = False
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
        self._repeats += 1
        first = next((i for i, planned in enumerate(self._pending) if planned.kind == "measured"), len(self._pending))
        self._pending.insert(first, Planned("measured", self.cases[case], self._next_round))
        self._next_round += 1

    def extend(self, rounds: int) -> None:
        """That many more rounds of every case that takes part."""
        self.rounds += rounds
        self._ahead.extend(range(self._next_round, self._next_round + rounds))
        self._next_round += rounds

    def left(self) -> int:
        """Runs that are still to come."""
        return len(self._pending) + len(self._ahead) * len(self._taking_part())

    def event(self, t: int) -> events.Schedule:
        """The schedule as it stands."""
        rule = _count(self.rounds, "round") + (f" and {_count(self._repeats, 'repeat')}" if self._repeats else "")
        left = self.left()
        cold = 1 if left and not self._cold_started and not self._cold_taken else 0
        return events.Schedule(
            t=t,
            cases=[events.Case(case.id, case.values()) for case in self.active],
            rounds=self._next_round,
            runs=self.done + cold + left,
            rule=rule,
        )

    def _taking_part(self) -> set[str]:
        return self.cases.keys() - self.dropped.keys() - self.skipped

    def _remove(self, case: str) -> None:
        self._pending = deque(planned for planned in self._pending if planned.case.id != case)


def inputs_of(plan: Plan, planned: Planned) -> tuple[str, ...]:
    """The batch's inputs, round-robin: a round goes on where the one before it stopped, so that every input is used;
    cold, warm-up and cross-check runs take the first."""
    size = planned.case.batch
    offset = (planned.round or 0) * size
    return tuple(plan.inputs[(offset + place) % len(plan.inputs)] for place in range(size))


def item_name(inputs: tuple[str, ...]) -> str:
    """A short name of a run's inputs: "clip.mp4", "clip.mp4 +3"."""
    distinct = list(dict.fromkeys(inputs))
    name = PurePath(distinct[0]).name or distinct[0]
    return name if len(distinct) == 1 else f"{name} +{len(distinct) - 1}"


def run_seed(plan: Plan, run: int) -> int:
    """The seed of a run: the plan's seed and the run's number decide it."""
    return random.Random(f"{plan.seed}/{run}").getrandbits(31)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
