"""The stopping rule of a session: when its rounds are enough, and what is said about it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from llava_tui import events
from llava_tui.plan import Plan
from llava_tui.units import counted
from llava_tui.worker.batches import Batches
from llava_tui.worker.rules import ROUNDS_LEAST, Width, undecided, widest

Rule = Literal["interval", "cap", "time limit", "rounds", "stopped", "no case left"]


class Stopping:
    """What measured rounds said so far, held against what the plan asks for.

    ``compared``, in all that follows: the ids of the cases that take part, in the plan's order; verdicts stand beside
    the first.
    """

    def __init__(self, plan: Plan, batches: Batches) -> None:
        self.auto = plan.rounds == "auto" and not batches.is_dataset
        """Whether what was measured decides when it is enough."""
        self.groups = 1
        """Groups of cases that are loaded one after the other."""
        self._plan = plan
        self._batches = batches
        self._steps: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        """``auto``: durations of the steps of measured runs, by case and step, of each round."""
        self._walls: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._rule: tuple[Rule, str] | None = None
        """What ended the rounds before all of them were run."""
        self._told: list[str] = []
        """What ended the rounds of the groups before this one."""

    def ran(self, case: str, round_: int, wall: int, steps: Mapping[str, int | None]) -> None:
        """A measured run went well and took ``wall`` ns, each step what ``steps`` says."""
        if self.auto and self._rule is None:
            self._walls[case][round_] = wall
            for step, duration in steps.items():
                if duration is not None:
                    self._steps[case, step][round_] = duration

    def next_group(self, rounds: int) -> None:
        """The rounds of a group are over, ``rounds`` of them unless a rule ended them; those of another begin."""
        self._told.append(self._rule[1] if self._rule is not None else counted(rounds, "round"))
        self._rule = None

    def reached(self, elapsed: int | None, begun: int, compared: Sequence[str]) -> Rule | None:
        """Which rule ends the rounds here, between two of them: ``elapsed`` ns after the first began, ``None`` before
        it, and with ``begun`` of them begun."""
        limit = self._plan.time_limit_s
        limit = limit / self.groups if limit is not None else None  # of each group alike
        rule: Rule
        if limit is not None and elapsed is not None and elapsed >= limit * 1e9:
            rule, text = "time limit", f"the time limit of {limit:g} s was reached"
        elif self.auto and self._rule is None and begun >= ROUNDS_LEAST and self._settled(compared):
            rule, text = "interval", self._settled_text(begun, compared)
        else:
            return None
        self._rule = (rule, text)
        return rule

    @property
    def may_end(self) -> bool:
        """Whether a rule may end the rounds before all of them were run."""
        return self._plan.time_limit_s is not None or (self.auto and self._rule is None)

    def rule(self, rounds: int, more: int, repeats: int) -> str:
        """Which rule ends the rounds, in words: of ``rounds`` in all, ``more`` than were planned, and ``repeats``."""
        limit = self._plan.time_limit_s
        if self._rule is not None:
            told = self._rule[1]
        elif self.auto:
            within = f"±{self._plan.delta * 100:.3g} %"
            told = f"auto: until every step's interval is within {within}, at most {counted(rounds, 'round')}"
        elif self._batches.is_dataset:
            told = self._batches.told() + (f" and {counted(more, 'round')} more" if more > 0 else "")
        else:
            told = counted(rounds, "round")
        told += f" and {counted(repeats, 'repeat')}" if repeats else ""
        return told + (f", {limit:g} s at most" if limit is not None and self._rule is None else "")

    def ended(
        self, t: int, stopped: str, *, rounds: int, begun: int, complete: int, compared: Sequence[str]
    ) -> events.Ended:
        """Which rule ended measuring; ``stopped`` says who, where it was none. Of ``rounds`` asked for, that many were
        begun, and nothing is missing of those that are ``complete``."""
        worst = self._widest(compared) if self.auto else None
        rule: Rule
        if stopped:
            rule, text = "stopped", stopped
        elif self._rule is not None:
            rule, text = self._rule
        elif not compared:
            rule, text = "no case left", "every case failed or was left out"
        elif self._batches.all_broken:
            rule, text = "no case left", "no input can be read"
        elif self._batches.is_dataset:
            rule, text = "rounds", f"{self._batches.told()}, as planned"
        elif not self.auto:
            rule, text = "rounds", f"{counted(rounds, 'round')}, as planned"
        elif self._settled(compared):  # By the last round that there may be.
            rule, text = "interval", self._settled_text(begun, compared)
        else:
            rule, text = "cap", f"{counted(rounds, 'round')}, the most there may be{self._open_text(compared)}"
        if self._told:
            text = f"in {self.groups} groups, one after the other: {'; '.join([*self._told, text])}"
        if worst is None or not math.isfinite(worst.width):
            return events.Ended(t=t, rule=rule, text=text, rounds=complete)
        where = f"{worst.step} of {worst.case}, ±{worst.width * 100:.2g} %"
        text += f"; the widest is {where}" if worst.settled else f"; {where}, is wider than asked for"
        return events.Ended(
            t=t, rule=rule, text=text, rounds=complete, case=worst.case, step=worst.step, width=worst.width
        )

    def _settled_text(self, begun: int, compared: Sequence[str]) -> str:
        within = f"±{self._plan.delta * 100:.3g} %"
        verdicts = " and every case has its verdict beside the first" if len(compared) > 1 else ""
        return f"every step's 95 % interval is within {within}{verdicts} after {counted(begun, 'round')}"

    def _open_text(self, compared: Sequence[str]) -> str:
        if (undecided := self._undecided(compared)) is None:
            return ""
        case, step = undecided
        return f"; {case} has no verdict beside {compared[0]}" + (f" in {step}" if step else "")

    def _settled(self, compared: Sequence[str]) -> bool:
        worst = self._widest(compared)
        return (worst is None or worst.settled) and self._undecided(compared) is None

    def _widest(self, compared: Sequence[str]) -> Width | None:
        return widest({key: values for key, values in self._steps.items() if key[0] in compared}, self._plan.delta)

    def _undecided(self, compared: Sequence[str]) -> tuple[str, str] | None:
        return undecided({case: self._walls[case] for case in compared}, self._steps, self._plan.delta)
