"""One piece of advice, and the change that it asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One sweep axis, two values: what a verifying session runs side by side."""

    axis: str
    before: int | str
    after: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One piece of advice on one case."""

    id: str
    rule: int
    """Its number in docs/advice.md; 0: measure again."""
    case: str
    title: str
    evidence: tuple[str, ...]
    remedy: str
    gain: float | None = None
    """Share of the time that it is expected to save, of :attr:`metric`; ``None``: not known, or not about time."""
    bound: float | None = None
    """The most it can save (Amdahl): the share of the part that it touches."""
    metric: str = "wall"
    """What gain and bound are about: "wall" (one run), or "wall per sequence" (one run / batch)."""
    change: Change | None = None
    """What ``advise --verify`` runs beside the baseline; ``None`` where the worker has no axis for it."""
    command: str = ""
    """``{session}`` stands for the session."""
