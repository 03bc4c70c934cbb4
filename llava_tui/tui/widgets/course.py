"""What was running when, stage by stage: from spans where a run has ended, from hints where it has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llava_tui.session.timeline import View


def step_paths(view: View) -> list[str]:
    """The steps of the tree, in order; a step's index here is its number less one, and its colour."""
    return [info.path for info in view.tree if "." not in info.path and info.path != "load"]


def hinted_segments(view: View) -> list[tuple[str, int, int]]:
    """(stage, start, end) of the run in progress, hint to hint, the last until ``view.t``; none between runs."""
    current = view.current
    return [] if current is None else hints_of(view, int(current["run"]), int(current["t"]), view.t)


def hints_of(view: View, run: int, start: int, end: int) -> list[tuple[str, int, int]]:
    """(stage, start, end) of ``run``, which began at ``start``: hint to hint, the last until ``end``."""
    hints = view.stage_hints
    first = int(np.searchsorted(hints["t"], start))
    last = int(np.searchsorted(hints["t"], end, "right"))
    mine = np.flatnonzero(np.asarray(hints["run"])[first:last] == run) + first
    if mine.size == 0:
        return []
    names = hints.names("stage")
    times = np.asarray(hints["t"])[mine].tolist()
    paths = [names[code] for code in np.asarray(hints["stage"])[mine].tolist()]
    return list(zip(paths, times, [*times[1:], max(end, times[-1])], strict=True))


def running_stage(view: View) -> str:
    """The stage that the newest hint of the run in progress names; "" between runs."""
    current = view.current
    if current is None:
        return ""
    hints = view.stage_hints
    if hints.n == 0 or int(hints["run"][hints.n - 1]) != current["run"]:
        return ""
    return hints.names("stage")[int(hints["stage"][hints.n - 1])]


@dataclass(frozen=True, slots=True)
class RunCourse:
    """One run, for its bar: leaves in the order they ran."""

    run: int
    kind: str
    case: str
    start: int
    end: int
    """``view.t`` while it is going."""
    ended: bool
    outcome: str
    segments: tuple[tuple[str, int, int], ...]
    """(stage, start, end)."""
    tokens: tuple[int, ...]
    """When tokens were there."""


def run_course(view: View, *, ended: bool = False) -> RunCourse | None:
    """The run in progress, else (or if ``ended``) the newest that ended; ``None`` before the first."""
    current = view.current
    if current is not None and not (ended and view.runs.n):
        texts = view.text_hints
        first = int(np.searchsorted(texts["t"], current["t"]))
        mine = np.asarray(texts["run"])[first:] == current["run"]
        tokens = np.asarray(texts["t"])[first:][mine].tolist()
        segments = tuple(hinted_segments(view))
        return RunCourse(
            run=int(current["run"]),
            kind=str(current["kind"]),
            case=str(current["case"]),
            start=int(current["t"]),
            end=max(view.t, int(current["t"])),
            ended=False,
            outcome="",
            segments=segments,
            tokens=tuple(tokens),
        )
    runs = view.runs
    if runs.n == 0:
        return None
    row = runs.row(runs.n - 1)
    run = int(row["run"])
    return RunCourse(
        run=run,
        kind=str(row["kind"]),
        case=str(row["case"]),
        start=int(row["start"]),
        end=int(row["start"]) + int(row["wall"]),
        ended=True,
        outcome=str(row["outcome"]),
        segments=_leaf_spans(view, run),
        tokens=_token_times(view, run),
    )


def _leaf_spans(view: View, run: int) -> tuple[tuple[str, int, int], ...]:
    stages = view.stages
    numbers = np.asarray(stages["run"])
    # The newest run's rows are the last; a session of a million events is not scanned for them.
    first = stages.n
    while first and numbers[first - 1] == run:
        first -= 1
    names = stages.names("stage")
    rows = [
        (names[code], start, duration)
        for code, start, duration in zip(
            np.asarray(stages["stage"])[first:].tolist(),
            np.asarray(stages["start"])[first:].tolist(),
            np.asarray(stages["duration"], dtype=np.float64)[first:].tolist(),
            strict=True,
        )
    ]
    parents = {path.rpartition(".")[0] for path, _, duration in rows if duration == duration}
    leaves = [
        (path, int(start), int(start + duration))
        for path, start, duration in rows
        if duration == duration and path not in parents
    ]
    return tuple(sorted(leaves, key=lambda leaf: leaf[1]))


def _token_times(view: View, run: int) -> tuple[int, ...]:
    tokens = view.tokens
    numbers = np.asarray(tokens["run"])
    first = tokens.n
    while first and numbers[first - 1] == run:
        first -= 1
    return tuple(np.asarray(tokens["at"])[first:].tolist())


def median_wall(view: View, case: str = "", *, newest: int = 16) -> float | None:
    """Median wall time in ns of the newest timed runs (of ``case``, or of any) that went well."""
    runs = view.runs
    mask = runs.where(outcome="ok") & ~runs.where(kind=("load", "cross-check", "profile"))
    if case:
        mask &= runs.where(case=case)
    walls = np.asarray(runs["wall"])[mask][-newest:]
    return float(np.median(walls)) if walls.size else None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the session is."""

    done: int
    planned: int | None
    round: int | None
    """From 0, of the newest run that has one."""
    rounds: int | None
    eta: float | None
    """ns; ``None`` where nothing can be said."""
    open: bool = False
    """Whether a rule may end it earlier: ``planned``, ``rounds`` and ``eta`` are then the most there can be."""


def progress(view: View) -> Progress:
    """Runs done of all planned, and what the rest will take at the pace of the newest runs."""
    runs = view.runs
    counted = ~runs.where(kind="load")
    done = int(np.count_nonzero(counted))
    schedule = view.schedule
    planned = schedule.runs if schedule is not None else None
    started = view.started
    round_: int | None = None
    if started.n:
        rounds = np.asarray(started["round"], dtype=np.float64)[-64:]
        finite = rounds[np.isfinite(rounds)]
        round_ = int(finite[-1]) if finite.size else None
    eta: float | None = None
    if planned is not None and done and view.state not in ("paused", "closing", "closed", "stopped", "failed"):
        ends = np.asarray(runs["t"])[counted][-33:]
        begun = int(np.asarray(runs["start"])[counted][-33:][0])
        pace = (int(ends[-1]) - begun) / ends.size
        # By whole seconds, as it is shown: between two of them the heading stays as it is.
        now = view.t - view.t % 1_000_000_000
        eta = max(0.0, (planned - done) * pace - (now - int(ends[-1])))
    if schedule is None:
        return Progress(done, planned, round_, None, eta)
    return Progress(done, planned, round_, schedule.rounds, eta, schedule.open)
