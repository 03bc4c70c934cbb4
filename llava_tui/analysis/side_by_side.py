"""What a person looks at when sides are compared: groups of cases that belong together, what was measured of each side,
what differs in their plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from llava_tui.analysis.aligned import Profile, profile
from llava_tui.analysis.comparison import Comparison, Side, asked_of, compare
from llava_tui.analysis.measures import Measures, measures
from llava_tui.analysis.statistics import Floats
from llava_tui.analysis.verdict import DELTA


@dataclass(frozen=True, slots=True)
class Column:
    """One side of a group."""

    label: str
    case: str
    n: int
    """Measured runs, of all its sessions."""
    values: Mapping[str, Floats]
    """Every row's values, run by run, in the row's unit."""
    profile: Profile
    """Of its first session."""


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that are compared with the first of them."""

    title: str
    columns: tuple[Column, ...]
    comparisons: tuple[Comparison, ...]
    """One for each column after the first."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A plan's entry that is not the same on all sides."""

    name: str
    values: tuple[str, ...]
    """A text each side, in the sides' order."""


def groups(
    sides: Sequence[Side], *, delta: float = DELTA, spread: Mapping[str, float] | None = None
) -> tuple[list[Group], list[Comparison]]:
    """The sides case by case; one side alone: its cases beside each other. Also all comparisons, as
    :func:`~llava_tui.analysis.comparison.compare` gives them, which raises :class:`ValueError`."""
    found = compare(sides, delta=delta, spread=spread)
    views = {side.label: side.views for side in sides}
    known: dict[tuple[str, str], Column] = {}

    def column(label: str, case: str) -> Column:
        if (label, case) not in known:
            known[label, case] = _column(label, [measures(view, case) for view in views[label]])
        return known[label, case]

    made = []
    for case in dict.fromkeys(one.case_a for one in found):
        mine = [one for one in found if one.case_a == case]
        first = column(mine[0].a, case)
        made.append(Group(case, (first, *(column(one.b, one.case_b) for one in mine)), tuple(mine)))
    return made, found


def _column(label: str, runs: list[Measures]) -> Column:
    values = {asked.key: np.concatenate([asked.values(of) for of in runs]) for asked in asked_of(runs[0])}
    return Column(label, runs[0].case, sum(of.n for of in runs), values, profile(runs[0]))


def differences_of_plans(sides: Sequence[Side]) -> list[Difference]:
    """What the plans of the sides' first sessions do not have in common, in the plan's order. Names and tags say
    nothing of what was run and are left out."""
    plans = [_flat(side.views[0].header.plan) for side in sides]
    names = dict.fromkeys(name for plan in plans for name in plan)
    found = []
    for name in names:
        values = tuple(_text(plan.get(name)) for plan in plans)
        if len(set(values)) > 1:
            found.append(Difference(name, values))
    return found


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plan.items() if name not in ("name", "tags")}


def _text(value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "—"
    if isinstance(value, str) and "/" in value:
        return PurePath(value).name or value
    return str(value)
