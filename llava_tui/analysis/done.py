"""How far a session is through its data set."""

from __future__ import annotations

from dataclasses import dataclass

from llava_tui.analysis.measures import case_values
from llava_tui.events import BrokenItem
from llava_tui.session.timeline import View


@dataclass(frozen=True, slots=True)
class ItemsDone:
    """Items of one case, over all of the plan's passes."""

    done: int
    """Measured, on all ranks."""
    of: int
    broken: int
    """Items that could not be read, each once."""
    first_broken: str = ""
    """Which of them was found first, and why it could not."""


def items_done(view: View, case: str) -> ItemsDone | None:
    """Of ``case`` at the moment of ``view``; ``None`` where the session has no data set."""
    dataset = view.header.dataset
    if dataset is None:
        return None
    rounds, batch = view.header.plan.get("rounds"), case_values(view, case).get("batch")
    of = dataset.count * (rounds if isinstance(rounds, int) else 1)
    ranks = view.timeline.ranks
    views = [view.timeline.of(rank).at(view.t) for rank in ranks] if len(ranks) > 1 else [view]
    done = 0
    broken: list[BrokenItem] = []
    for one in views:
        runs = one.runs
        ended = runs.where(case=case, outcome="ok")
        done += int((ended & runs.where(kind="measured")).sum()) * (batch if isinstance(batch, int) else 1)
        partial = (ended & runs.where(kind="partial")).nonzero()[0]
        done += sum(len(runs.value("items", int(row)) or ()) for row in partial)
        facts = one.facts
        found = facts.where(name="item").nonzero()[0] if facts.n else ()
        broken += [event for row in found if isinstance(event := facts.value("event", int(row)), BrokenItem)]
    names = {event.item: event for event in sorted(broken, key=lambda event: event.t, reverse=True)}
    first = min(names.values(), key=lambda event: event.t, default=None)
    told = f"{first.name}: {first.reason}" if first is not None else ""
    return ItemsDone(min(done, of), of, len(names), told)
