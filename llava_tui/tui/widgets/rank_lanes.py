"""Several ranks beneath each other: the same time axis, a lane each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava_tui.tui.widgets import figures
from llava_tui.tui.widgets.cells import left
from llava_tui.tui.widgets.course import median_wall, running_stage
from llava_tui.tui.widgets.look import Look

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

_TABLES = ("started", "runs", "stages", "stage_hints")
_ROOMY = 16
"""Cells from which on there is room for both what a rank does and what its runs take."""


def others(view: View) -> list[tuple[int, View]]:
    """The ranks beside the first, each as it was at the view's moment."""
    timeline = view.timeline
    return [(rank, timeline.of(rank).at(view.t)) for rank in timeline.ranks[1:]]


def key(view: View) -> tuple[int, ...]:
    """How much of the other ranks has been told."""
    return tuple(getattr(one, name).n for _, one in others(view) for name in _TABLES)


def label(rank: int) -> str:
    """Six cells at most."""
    return f"rank {rank}" if rank < 10 else f"r {rank}"


def figure(view: View, look: Look, rank: int, width: int) -> str:
    """What the rank does now, where runs are long enough to see it, and what its newest runs took."""
    took = look.once(f"wall of rank {rank}", view.runs.n, lambda: median_wall(view))
    usual = figures.duration(took) if took is not None else ""
    doing = ""
    if not look.brisk(view) and not look.over(view):
        stage = running_stage(view)
        titles = {info.path: info.title for info in view.tree}
        doing = titles.get(stage, stage) if stage else "waits" if view.current is None else "begins"
    room = width - 1
    if not doing or not usual:
        return left(doing or usual, room).strip()
    if width < _ROOMY:
        return left(doing, room).strip()
    return f"{left(doing, room - 1 - len(usual)).strip()} {usual}"
