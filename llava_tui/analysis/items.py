"""What each item of many took in a case, and all of them together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from llava_tui.analysis.measures import median
from llava_tui.analysis.statistics import Summary, summarize
from llava_tui.events import BrokenItem
from llava_tui.session.timeline import View


@dataclass(frozen=True, slots=True)
class Batch:
    """One run's items."""

    run: int
    items: tuple[int, ...]
    """By their places in the data set."""
    wall: int
    """ns, of the whole run."""
    partial: bool
    """Whether it had fewer items than the case's batch: its times are in no statistic of the case."""

    @property
    def each(self) -> float:
        """Wall time an item, ns."""
        return self.wall / len(self.items)


@dataclass(frozen=True, slots=True)
class ItemTable:
    """The items of a case, as far as they are measured."""

    case: str
    batches: tuple[Batch, ...]
    """Every run that counted, in order."""
    done: int
    """Items measured, each time that one was."""
    per_second: float | None
    """Items a second of the runs' own time; what is between two runs is not in it."""
    each: Summary
    """Wall time of a full batch by its items, ns."""
    times: dict[int, float] = field(default_factory=dict)
    """What each item took, ns: its run's wall time by the run's items, the median where it was run more than once."""
    broken: tuple[BrokenItem, ...] = ()

    def slowest(self, most: int) -> list[tuple[int, float]]:
        """The items that took longest, and how long (ns)."""
        return sorted(self.times.items(), key=lambda item: -item[1])[:most]


def item_table(view: View, case: str) -> ItemTable | None:
    """Of ``case`` at the moment of ``view``; ``None`` where the session has no more than one input."""
    runs = view.runs
    rows = np.flatnonzero(runs.where(case=case, outcome="ok", kind=("measured", "partial")))
    partial = set(np.flatnonzero(runs.where(kind="partial")).tolist())
    found = []
    for row in rows.tolist():
        if items := runs.value("items", row):
            run, wall = int(runs["run"][row]), int(runs["wall"][row])
            found.append(Batch(run, tuple(items), wall, row in partial))
    broken = tuple(event for event in view.facts["event"] if isinstance(event, BrokenItem))
    if not found and not broken:
        return None
    times: defaultdict[int, list[float]] = defaultdict(list)
    for batch in found:
        for item in batch.items:
            times[item].append(batch.each)
    done, wall = sum(len(batch.items) for batch in found), sum(batch.wall for batch in found)
    return ItemTable(
        case,
        tuple(found),
        done,
        done / wall * 1e9 if wall else None,
        summarize(np.array([batch.each for batch in found if not batch.partial])),
        {item: median(np.array(values)) or 0.0 for item, values in times.items()},
        broken,
    )
