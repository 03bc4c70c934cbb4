"""What a comparison is of, and what it finds: its sides, rows, and the verdict over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llava_tui.analysis.verdict import Method, Verdict
from llava_tui.session.timeline import View

Family = Literal["run", "step", "stage", "metric"]


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared: a case of one session, or the same case of several sessions that belong together."""

    label: str
    views: tuple[View, ...]
    case: str = ""
    """Empty: every case that both sides have."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step, stage or metric of both sides."""

    key: str
    """A stage's path; ``wall``; or a metric's name."""
    title: str
    family: Family
    """Rows of one family were asked together: Holm's adjustment is over them."""
    unit: str
    """``ns``, ``tok/s`` or ``frames/s``."""
    a: float | None
    """Median."""
    b: float | None
    effect: float | None
    """Relative change of the value from A to B: +0.18 is 18 % more."""
    low: float | None
    """95 % interval of the effect."""
    high: float | None
    p: float | None
    """Adjusted."""
    n: int
    """Pairs of rounds; sessions a side; with a single session, runs of the smaller side."""
    verdict: Verdict
    reason: str = ""
    needed: int | None = None
    """INCONCLUSIVE: rounds, or sessions a side, that would decide; ``None``: more than is sensible, or not known."""
    cycles: float | None = None
    """The effect in clock cycles, of device stages, where the two sides' clocks differ."""

    @property
    def change(self) -> float | None:
        """B's median less A's."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def depth(self) -> int:
        return self.key.count(".") if self.family == "stage" else 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """B beside A. ``rows`` begin with the whole run, then steps with their stages, then metrics."""

    a: str
    b: str
    case_a: str
    case_b: str
    method: Method
    delta: float
    verdict: Verdict
    """The whole run's."""
    sentence: str
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    """Why the two are NOT COMPARABLE."""
    notes: tuple[str, ...]
    """What else differs, and what to read with care."""
    simulated: bool
    spread: float | None
    """The stored A/A spread that was used, of the whole run."""

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)

    @property
    def slower(self) -> bool:
        """Whether the whole run, a step or a metric got slower. Stages are told, and do not count here."""
        return any(row.verdict == "slower" for row in self.rows if row.family != "stage")
