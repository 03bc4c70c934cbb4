"""What a drawing depends on beside the view: who looks, at which case, at a session in which condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llava_tui.analysis.steps import StepTable, current_case, step_table
from llava_tui.tui.transport import Playback
from llava_tui.tui.widgets.course import median_wall

if TYPE_CHECKING:
    from llava_tui.analysis.incidents import Incidents
    from llava_tui.session.timeline import View

DWELL_NS = 10_000_000_000
BRISK_NS = 2_000_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Notice:
    """What this viewer says in its own log: a question sent, a worker that does not answer."""

    t: int
    text: str
    level: str = "info"


@dataclass(slots=True)
class Look:
    """Handed to every drawing function with the view."""

    status: str = "running"
    case: str = ""
    """The case chosen; "": whichever is running."""
    page: float = 0.25
    """By how much of its width the time axis moves on at a time."""
    zoom: int = 0
    """How far the time axis is zoomed in, in halvings of what it spans; 0: as the runs ask for."""
    gpu: int | None = None
    """The GPU whose strips are shown; ``None``: as many as there is room for."""
    line: str = ""
    """What hinders the session's way to here; "" while nothing does."""
    notices: list[Notice] = field(default_factory=list)
    playback: Playback | None = None
    """Where in the session's time the viewer is; ``None``: a live session is followed, another one stands."""
    _kept: dict[str, tuple[object, Any]] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether a worker is there."""
        return self.status in ("running", "paused")

    def play(self, view: View) -> Playback:
        """Where in the session's time the viewer is."""
        edge = max(view.timeline.end, view.t)
        return self.playback or Playback(t=view.t, live=self.live, following=self.live, edge=edge)

    def following(self, view: View) -> bool:
        """Whether the view is of what is happening now."""
        return self.play(view).following

    def behind(self, view: View) -> int | None:
        """Whole seconds behind what is happening now; ``None`` where that is followed, or over."""
        ns = self.play(view).behind
        return None if ns is None else round(ns / 1_000_000_000)

    def over(self, view: View) -> bool:
        """Whether the view is of a session's end."""
        return not self.live and view.t >= view.timeline.end

    def case_of(self, view: View) -> str:
        """The case whose figures are shown: the one chosen, else the one that is running. Where runs are short, it is
        looked up every :data:`DWELL_NS` only: a table that turns to another case twice a second cannot be read."""
        if self.case:
            return self.case
        wall = self.wall(view)
        if wall is None or wall > DWELL_NS / 2:
            return current_case(view)
        origin = view.timeline.start
        then = view.t - (view.t - origin) % DWELL_NS
        earlier = view.timeline.at(then)
        case = self.once("case", (then, earlier.started.n), lambda: current_case(earlier))
        return case or current_case(view)

    def wall(self, view: View) -> float | None:
        """What the newest runs took, ns."""
        return self.once("wall", view.runs.n, lambda: median_wall(view))

    def brisk(self, view: View) -> bool:
        """Whether runs are too short to be watched one by one: then the newest that ended is shown, not the one that
        goes on."""
        wall = self.wall(view)
        return wall is not None and wall < BRISK_NS

    def table(self, view: View) -> StepTable:
        """The steps table of that case: worked out again only when a run has ended or the tree changed."""
        case = self.case_of(view)
        return self.once("table", (*self.counted(view), case), lambda: step_table(view, case))

    def counted(self, view: View) -> tuple[int, ...]:
        """What the figures of a case are made of, by how much of it there is."""
        return view.runs.n, view.trees.n, view.models.n, view.schedules.n

    def incidents(self, view: View) -> Incidents:
        """Of the whole session as far as it has been read, whatever ``view`` is of: some are jumped on to."""
        from llava_tui.analysis.incidents import incidents

        tables = view.timeline.tables
        names = ("runs", "samples", "host", "log", "states", "facts", "absences", "devices", "models")
        stamp = tuple(tables[name].n for name in names)
        return self.once("all incidents", stamp, lambda: incidents(view.timeline.now()))

    def once(self, name: str, stamp: object, make: Callable[[], T]) -> T:
        """What ``make`` returns, made again only when ``stamp`` is another than last time."""
        kept = self._kept.get(name)
        if kept is None or kept[0] != stamp:
            kept = self._kept[name] = (stamp, make())
        return cast("T", kept[1])
