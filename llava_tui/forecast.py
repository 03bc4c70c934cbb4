"""What a plan takes of memory, before there is a session: from the model's config, case by case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava_tui import costs
from llava_tui.needs import Needs, mend, needs
from llava_tui.plan import Case, Plan
from llava_tui.units import size


@dataclass(frozen=True, slots=True)
class Expected:
    """A case by what it will take, bytes."""

    case: str
    weights: float
    needs: Needs | None
    """Beside the weights; ``None`` where the config does not tell."""
    problem: str = ""
    """Why it does not fit, or may not, and what to do; "" where it fits or nothing is known."""
    certain: bool = False
    """Whether it certainly does not."""

    @property
    def total(self) -> float:
        """Weights, cache and activations, as far as they are known."""
        return self.weights + (self.needs.total if self.needs is not None else 0.0)


def forecast(plan: Plan, config: dict[str, Any], dtype: str, free: int | None, where: str) -> tuple[Expected, ...]:
    """Of every case of ``plan`` on the model of ``config``, which runs in ``dtype`` where a case names none; () where
    the config does not tell the weights. ``free``: bytes that there are ``where`` the model goes to; ``None``: not
    known.

    Counted is one copy of the weights: models that do not fit together are measured one after the other.
    """
    told = []
    for case in plan.cases():
        made = costs.architecture(config, case.dtype or dtype)
        if made.missing:
            return ()
        beside = needs(plan, case, config, dtype, plan.attention.split(",")[0])
        found = Expected(case.id, weights_bytes(made), beside)
        told.append(found if free is None else _judged(found, case, free, where))
    return tuple(told)


def weights_bytes(made: costs.Architecture) -> float:
    """Of an architecture of which every part is known, quantised layers as they are."""
    whole = made.weights * made.value_bytes
    if made.quantization and made.language is not None:
        whole -= made.language.blocks * (made.value_bytes - made.weight_bytes)
    return whole


def _judged(found: Expected, case: Case, free: int, where: str) -> Expected:
    beside = found.needs
    has = f"{where} has {size(free)} free"
    if found.weights > free:
        why = f"the weights take {size(found.weights)}, {has}; use a smaller dtype, quantization or model"
        return Expected(found.case, found.weights, beside, f"does not fit: {why}", True)
    if beside is None or found.total <= free:
        return found
    left = free - found.weights
    certain = beside.certain > left
    parts = f"{size(found.weights)} of weights and {size(beside.cache)} of keys and values"
    if not certain:
        parts += f", {size(beside.activations)} of activations by estimate"
    word = "does not fit" if certain else "may not fit"
    return Expected(
        found.case, found.weights, beside, f"{word}: {parts}, {has}; {mend(case, beside.total, left)}", certain
    )
