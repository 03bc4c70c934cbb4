"""What a drawing depends on beside the view: who looks, at which case, at a session in which condition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llava_tui.analysis.steps import StepTable, current_case, step_table

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

MARKS = {
    "running": ("●", "LIVE", "live"),
    "paused": ("‖", "PAUSED", "warn"),
    "finished": ("■", "FINISHED", "strong"),
    "stopped": ("■", "STOPPED", "strong"),
    "failed": ("✗", "FAILED", "bad"),
    "interrupted": ("▲", "INTERRUPTED", "bad"),
}
"""A session's status: glyph, word, style."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What this viewer says in its own log: a question sent, a worker that does not answer."""

    t: int
    text: str
    level: str = "info"


@dataclass(slots=True)
class Look:
    """Handed to every drawing function with the view."""

    name: str = ""
    """The session's id."""
    status: str = "running"
    case: str = ""
    """The case chosen; "": whichever is running."""
    page: float = 0.25
    """By how much of its width the time axis moves on at a time."""
    notices: list[Notice] = field(default_factory=list)
    _tables: dict[str, tuple[tuple[int, int, int], StepTable]] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether a worker is there."""
        return self.status in ("running", "paused")

    def case_of(self, view: View) -> str:
        """The case whose figures are shown."""
        return self.case or current_case(view)

    def table(self, view: View) -> StepTable:
        """The steps table of that case: worked out again only when a run has ended or the tree changed."""
        case = self.case_of(view)
        key = (view.runs.n, view.trees.n, id(view.timeline))
        kept = self._tables.get(case)
        if kept is None or kept[0] != key:
            kept = self._tables[case] = (key, step_table(view, case))
        return kept[1]
