"""Several ranks side by side: what each took for the runs that all made in step, and what they come to together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llava_tui.analysis.measures import case_values, measures
from llava_tui.analysis.statistics import Floats, Summary
from llava_tui.session.timeline import View

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RankRow:
    """One rank's measured runs of a case."""

    rank: int
    device: str
    n: int
    """Runs that count."""
    items: int
    """That they and smaller batches took."""
    wall: Summary
    """ns."""
    steps: tuple[float | None, ...]
    """Median of each step, ns."""
    items_per_second: float | None
    """A run's items by its wall time."""
    waits: float | None
    """The share, 0…1, of the time until the slowest rank was through in which this one had nothing to do."""


@dataclass(frozen=True, slots=True)
class RankTable:
    """A case of several ranks."""

    case: str
    titles: tuple[str, ...]
    """Of the steps."""
    rows: tuple[RankRow, ...]
    together: int
    """Runs that all ranks made in step, or of a data set any: by these they are compared."""
    items_per_second: float | None
    """Of all ranks: all their items of such a run by the slowest one's wall time."""
    imbalance: float | None
    """Median wall time of the slowest rank by that of the fastest, 1 where all take the same; of a data set, by how
    long each was busy."""


def rank_table(view: View, case: str) -> RankTable | None:
    """The ranks of ``view``'s session at its moment; ``None`` where there is one."""
    ranks = view.timeline.ranks
    if len(ranks) < 2:
        return None
    views = [view.timeline.of(rank).at(view.t) for rank in ranks]
    told = [_runs(one, case) for one in views]
    is_shared = any(one.is_shared for one in told)
    # In step: a run has the same number on every rank. Of a data set some have nothing left before the others.
    numbers = told[0].numbers
    for one in told[1:]:
        numbers = np.union1d(numbers, one.numbers) if is_shared else np.intersect1d(numbers, one.numbers)
    walls = np.array([one.walls[place] for one, place in _placed(told, numbers)])
    items = np.array([one.items[place] for one, place in _placed(told, numbers)])
    slowest: Floats = walls.max(axis=0) if numbers.size else np.empty(0)
    rows = []
    for rank, seen, runs, wall in zip(ranks, views, told, walls, strict=True):
        of = measures(seen, case)
        rows.append(
            RankRow(
                rank=rank,
                device=seen.model.device if seen.model is not None else "",
                n=of.n,
                items=int(runs.items[runs.items > 0].sum()),
                wall=of.summary("wall"),
                steps=tuple(of.median(path) for path in of.steps),
                items_per_second=_rate(runs.items[:-1], runs.walls[:-1], is_shared),
                waits=_waits(wall, slowest, is_shared),
            )
        )
    # Of a data set each rank is as slow as all its items together, and else as its median run.
    busy = [float(wall.sum()) if is_shared else (row.wall.median or 0.0) for row, wall in zip(rows, walls, strict=True)]
    titles = {info.path: info.title for info in view.tree}
    return RankTable(
        case=case,
        titles=tuple(titles[path] for path in measures(views[0], case).steps),
        rows=tuple(rows),
        together=int(numbers.size),
        items_per_second=_rate(items.sum(axis=0), slowest, is_shared),
        imbalance=max(busy) / min(busy) if min(busy) > 0 else None,
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Measured runs of a rank that went well, in order; behind the last of them one of no items that took no time, for
    those that this rank had no part in."""

    numbers: Ints
    walls: Floats
    items: Floats
    is_shared: bool
    """Whether the ranks share a data set's items out."""


def _runs(view: View, case: str) -> _Runs:
    runs = view.runs
    rows = np.flatnonzero(runs.where(case=case, outcome="ok", kind=("measured", "partial")))
    batch = case_values(view, case).get("batch")
    size = float(batch) if isinstance(batch, (int, float)) else float("nan")
    shared = np.array([len(runs.value("items", int(row))) for row in rows], np.float64)
    return _Runs(
        numbers=np.asarray(runs["run"])[rows],
        walls=np.append(np.asarray(runs["wall"], np.float64)[rows], 0.0),
        items=np.append(np.where(shared > 0, shared, size), 0.0),
        is_shared=view.header.dataset is not None,
    )


def _placed(told: list[_Runs], numbers: Ints) -> Iterator[tuple[_Runs, Ints]]:
    """Where each rank's runs of these numbers are; the last place for those that it does not have."""
    for one in told:
        place = np.searchsorted(one.numbers, numbers)
        known = np.append(one.numbers, -1)[place] == numbers
        yield one, np.where(known, place, one.numbers.size)


def _rate(items: Floats, times: Floats, is_shared: bool) -> float | None:
    """Items a second: of a data set, whose items differ, all by all the time; else the median."""
    if not times.size or not times.all():
        return None
    value = float(items.sum() / times.sum() if is_shared else np.median(items / times)) * 1e9
    return value if np.isfinite(value) else None


def _waits(own: Floats, slowest: Floats, is_shared: bool) -> float | None:
    if not slowest.size or not slowest.all():
        return None
    return float(1 - own.sum() / slowest.sum() if is_shared else np.median(1 - own / slowest))
