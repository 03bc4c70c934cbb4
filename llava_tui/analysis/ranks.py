"""Several ranks side by side: what each took for the runs that all made in step, and what they come to together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llava_tui.analysis.measures import case_values, measures
from llava_tui.analysis.statistics import Floats, Summary
from llava_tui.session.timeline import View


@dataclass(frozen=True, slots=True)
class RankRow:
    """One rank's measured runs of a case."""

    rank: int
    device: str
    n: int
    wall: Summary
    """ns."""
    steps: tuple[float | None, ...]
    """Median of each step, ns."""
    items_per_second: float | None
    """Median: a run's items by its wall time."""
    waits: float | None
    """Median share, 0…1, of the time until the slowest rank was through that this one had nothing to do."""


@dataclass(frozen=True, slots=True)
class RankTable:
    """A case of several ranks."""

    case: str
    titles: tuple[str, ...]
    """Of the steps."""
    rows: tuple[RankRow, ...]
    together: int
    """Runs that count on every rank: by these they are compared."""
    items_per_second: float | None
    """Of all ranks: the median over those runs of all their items by the slowest one's wall time."""
    imbalance: float | None
    """Median wall time of the slowest rank by that of the fastest, 1 where all take the same."""


def rank_table(view: View, case: str) -> RankTable | None:
    """The ranks of ``view``'s session at its moment; ``None`` where there is one."""
    ranks = view.timeline.ranks
    if len(ranks) < 2:
        return None
    views = [view.timeline.of(rank).at(view.t) for rank in ranks]
    found = [measures(one, case) for one in views]
    steps = found[0].steps
    titles = {info.path: info.title for info in view.tree}
    # In step: a run has the same number on every rank.
    numbers = found[0].runs
    for of in found[1:]:
        numbers = np.intersect1d(numbers, of.runs)
    places = [np.flatnonzero(np.isin(of.runs, numbers)) for of in found]
    walls = np.array([of.wall[place] for of, place in zip(found, places, strict=True)])
    items = np.array([_items(of.view, case, of.rows[place]) for of, place in zip(found, places, strict=True)])
    slowest: Floats = walls.max(axis=0) if numbers.size else np.empty(0)
    medians = [median for of in found if (median := of.summary("wall").median) is not None]
    rows = tuple(
        RankRow(
            rank=rank,
            device=one.model.device if one.model is not None else "",
            n=of.n,
            wall=of.summary("wall"),
            steps=tuple(of.median(path) for path in steps),
            items_per_second=_median(_items(one, case, of.rows) / of.wall * 1e9),
            waits=_median(1 - wall / slowest),
        )
        for rank, one, of, wall in zip(ranks, views, found, walls, strict=True)
    )
    return RankTable(
        case=case,
        titles=tuple(titles[path] for path in steps),
        rows=rows,
        together=int(numbers.size),
        items_per_second=_median(items.sum(axis=0) / slowest * 1e9),
        imbalance=max(medians) / min(medians) if len(medians) == len(ranks) and min(medians) > 0 else None,
    )


def _items(view: View, case: str, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    """How many items each of these runs took: those of its data set, else its batch."""
    batch = case_values(view, case).get("batch")
    size = float(batch) if isinstance(batch, (int, float)) else float("nan")
    if "items" not in view.runs.kinds:
        return np.full(rows.size, size)
    return np.array([len(view.runs.value("items", int(row))) or size for row in rows], dtype=np.float64)


def _median(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None
