"""Where a key jumps to: the next or the last event, step or run before or after a time.

Functions of a timeline's columns, which are ordered by time. What has to be gathered from several columns first is
gathered once and kept until they have grown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llava_tui.session.timeline import Timeline
    from llava_tui.tui.widgets.look import Look

Ints = NDArray[np.int64]

_COME_WITH_THEIR_RUN = ("stages", "tokens")


def next_event(timeline: Timeline, t: int) -> int | None:
    """``t`` of the first event of any stream after ``t``."""
    found = [at for name in _tables(timeline) if (at := after(timeline.tables[name]["t"], t)) is not None]
    return min(found, default=None)


def event_before(timeline: Timeline, t: int) -> int | None:
    """``t`` of the last event of any stream before ``t``."""
    found = [at for name in _tables(timeline) if (at := before(timeline.tables[name]["t"], t)) is not None]
    return max(found, default=None)


def _tables(timeline: Timeline) -> list[str]:
    return [name for name in timeline.tables if name not in _COME_WITH_THEIR_RUN]


def after(times: Ints, t: int) -> int | None:
    """The first of ``times`` (in order) after ``t``."""
    at = int(np.searchsorted(times, t, "right"))
    return int(times[at]) if at < len(times) else None


def before(times: Ints, t: int) -> int | None:
    """The last of ``times`` (in order) before ``t``."""
    at = int(np.searchsorted(times, t, "left"))
    return int(times[at - 1]) if at else None


def run_starts(timeline: Timeline) -> Ints:
    """When each run began, loading included; of several ranks, on the first: they begin together."""
    return np.asarray(timeline.of(0).started["t"])


def run_around(timeline: Timeline, t: int, edge: int) -> tuple[int, int] | None:
    """From when to when the run goes that is in progress at ``t``, else the last before; until ``edge`` where it has
    not ended. ``None`` before the first."""
    timeline = timeline.of(0)
    started, runs = timeline.started, timeline.runs
    at = int(np.searchsorted(started["t"], t, "right")) - 1
    if at < 0:
        return None
    first = int(started["t"][at])
    since = int(np.searchsorted(runs["t"], first))
    ended = np.flatnonzero(runs["run"][since:] == started["run"][at])
    return first, int(runs["t"][since + int(ended[0])]) if ended.size else edge


def step_starts(timeline: Timeline, look: Look) -> Ints:
    """When each step began: by its hints, as a run is drawn while it goes on, and by its spans where a run has none."""
    timeline = timeline.of(0)
    stamp = (timeline.stage_hints.n, timeline.stages.n)
    return look.once("step starts", stamp, lambda: _step_starts(timeline))


def _step_starts(timeline: Timeline) -> Ints:
    hints, stages = timeline.stage_hints, timeline.stages
    hinted = _of_steps(hints.names("stage"), hints["stage"])
    spans = _of_steps(stages.names("stage"), stages["stage"])
    spans &= np.isfinite(stages["duration"])
    spans &= ~np.isin(stages["run"], np.unique(hints["run"][hinted]))
    starts: Ints = np.concatenate([hints["t"][hinted], stages["start"][spans]]).astype(np.int64)
    return np.unique(starts)


def _of_steps(names: list[str], codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which rows are of a step, not of a stage within one."""
    steps = np.array([bool(name) and "." not in name for name in names], np.bool_)
    return steps[codes] if len(names) else np.zeros(len(codes), np.bool_)
