"""Whether each case fits into the memory that is left when the model is loaded: said before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llava_tui.events import ModelFacts
from llava_tui.needs import Needs, mend, needs
from llava_tui.plan import Case, Plan
from llava_tui.units import size


@dataclass(frozen=True, slots=True)
class Room:
    """What of a sweep does not fit."""

    refused: dict[str, str] = field(default_factory=dict)
    """Cases that certainly do not, and why."""
    warnings: list[str] = field(default_factory=list)
    """Of cases that by estimate do not."""
    needs: dict[str, Needs] = field(default_factory=dict)
    """What each case takes beside the weights, as far as that is known."""


def room(plan: Plan, cases: Sequence[Case], model: ModelFacts, free: int | None) -> Room:
    """Of ``cases`` on ``model``, with ``free`` bytes left on its device (``None``: not known)."""
    found = Room()
    attention = model.attention.split(" ")[0]
    for case in cases:
        told = needs(plan, case, model.config, model.dtype, attention)
        if told is None:
            continue
        found.needs[case.id] = told
        if free is None:
            continue
        if told.certain > free:
            found.refused[case.id] = (
                f"its cache of keys and values takes at least {size(told.certain)}, {size(free)} are free beside the "
                f"weights; {mend(case, told.total, free)}"
            )
        elif told.total > free:
            found.warnings.append(
                f"{case.id} may not fit: {words(told)}, {size(free)} are free beside the weights; "
                f"{mend(case, told.total, free)}"
            )
    kept = [found.needs[case.id].cache for case in cases if case.id in found.needs and plan.cache_of(case) == "static"]
    if free is not None and len(kept) > 1 and max(kept) <= free < sum(kept):
        found.warnings.append(
            f"the static caches of {len(kept)} cases, which are kept from run to run, take {size(sum(kept))} together, "
            f"{size(free)} are free beside the weights; use fewer cases a session, or --cache dynamic"
        )
    return found


def words(told: Needs) -> str:
    """``about 5.1 GiB (3.0 GiB of keys and values, 2.1 GiB of activations by estimate)``."""
    return (
        f"about {size(told.total)} ({size(told.cache)} of keys and values, {size(told.activations)} of activations by "
        "estimate)"
    )
