"""Two sides compared: the verdict of every step, stage and metric, and one sentence on top."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np

from llava_tui import units
from llava_tui.analysis.compared import Comparison, Family, Row, Side
from llava_tui.analysis.fairness import clock, differences, utilization
from llava_tui.analysis.loads import apart
from llava_tui.analysis.measures import Measures, measures, median, median_of
from llava_tui.analysis.sentence import names_of, sentence
from llava_tui.analysis.shared import comparable, counterpart
from llava_tui.analysis.statistics import RESOLVED, Floats
from llava_tui.analysis.steps import case_ids
from llava_tui.analysis.verdict import (
    DELTA,
    SESSIONS,
    Estimate,
    Method,
    decide,
    holm,
    paired,
    sessions,
    single,
)

__all__ = ["Asked", "Comparison", "Family", "Row", "Side", "asked_of", "compare", "compare_cases"]

CLOCKS_DIFFER = 0.02


def compare(
    sides: Sequence[Side], *, delta: float = DELTA, spread: Mapping[str, float] | None = None
) -> list[Comparison]:
    """Every side after the first against the first, case by case.

    ``delta`` is the relative effect worth a claim; ``spread`` the machine's stored A/A spread by row (relative), which
    decides what a single session a side may claim. Raises :class:`ValueError`, with a message for people, where a side
    has no case of that name or the sides have none in common.
    """
    first = sides[0]
    if len(sides) == 1:  # the cases of one session among themselves
        known = _cases(first)
        if len(known) < 2:
            raise ValueError(f"{first.label} has one case only: name something to compare it with")
        base = Side(first.label, first.views, known[0])
        return [
            compare_cases(base, Side(first.label, first.views, case), delta=delta, spread=spread) for case in known[1:]
        ]
    found = []
    for other in sides[1:]:
        for case_a, case_b in _matched(first, other):
            a, b = Side(first.label, first.views, case_a), Side(other.label, other.views, case_b)
            found.append(compare_cases(a, b, delta=delta, spread=spread))
    return found


def compare_cases(a: Side, b: Side, *, delta: float = DELTA, spread: Mapping[str, float] | None = None) -> Comparison:
    """One case against another; see :func:`compare`. Both sides name their case."""
    runs_a = [measures(view, a.case) for view in a.views]
    runs_b = [measures(view, b.case) for view in b.views]
    method = _method(runs_a, runs_b)
    one_session = method == "paired rounds" or _one_session(runs_a, runs_b)
    reasons, notes = differences((a.label, b.label), runs_a, runs_b, one_session)
    unpaired = "single session" if method == "single session" else ""
    if unpaired and one_session:
        unpaired = "not interleaved"
        why = "each on a model of its own" if apart(runs_a[0].view, a.case, b.case) else "no round has both"
        notes.append(f"not interleaved ({why}): what drifted in between is in the difference")
    clocks = median_of([clock(of) for of in runs_a]), median_of([clock(of) for of in runs_b])
    ratio = None
    if clocks[0] and clocks[1] and abs(math.log(clocks[1] / clocks[0])) > math.log1p(CLOCKS_DIFFER):
        ratio = clocks[1] / clocks[0]
        notes.append(
            f"SM clock {clocks[0]:.0f} against {clocks[1]:.0f} MHz ({units.change(ratio - 1)}): "
            "device stages are compared in cycles too"
        )
    shared = comparable(runs_a[0], runs_b[0], reasons)
    if shared:
        notes.append("stages that both have are compared by themselves, where they have equal tokens to work on")
    rows = _rows(runs_a, runs_b, method, bool(reasons), delta, spread or {}, ratio, shared)
    names = names_of(a, b)
    busy = [median_of([utilization(of) for of in side]) for side in (runs_a, runs_b)]
    simulated = any(of.view.header.provenance == "simulated" for of in (*runs_a, *runs_b))
    return Comparison(
        a=a.label,
        b=b.label,
        case_a=a.case,
        case_b=b.case,
        method=method,
        delta=delta,
        verdict="not comparable" if reasons else rows[0].verdict,
        sentence=sentence(names, rows, reasons, method, delta, busy, unpaired),
        rows=tuple(rows),
        reasons=tuple(reasons),
        notes=tuple(notes),
        simulated=simulated,
        spread=(spread or {}).get("wall") if method == "single session" else None,
    )


# --- which with which ------------------------------------------------------------------------------------------------


def _cases(side: Side) -> list[str]:
    return [case for case in case_ids(side.views[0]) if all(case in case_ids(view) for view in side.views[1:])]


def _matched(a: Side, b: Side) -> list[tuple[str, str]]:
    known = _cases(a), _cases(b)
    for side, cases in zip((a, b), known, strict=True):
        if side.case and side.case not in cases:
            raise ValueError(f"{side.label} has no case {side.case}: {', '.join(cases) or 'none at all'}")
        if not cases:
            raise ValueError(f"{side.label} has no case that could be compared")
    if a.case and b.case:
        return [(a.case, b.case)]
    if a.case or b.case:
        named = a.case or b.case
        others = known[1] if a.case else known[0]
        other = named if named in others else others[0] if len(others) == 1 else ""
        if not other:
            raise ValueError(f"which case is {named} to be compared with: {', '.join(others)}? Give SESSION:CASE")
        return [(named, other)] if a.case else [(other, named)]
    if common := [case for case in known[0] if case in known[1]]:
        return [(case, case) for case in common]
    if len(known[0]) == len(known[1]) == 1:
        return [(known[0][0], known[1][0])]
    raise ValueError(
        f"no case in common: {a.label} has {', '.join(known[0])}; {b.label} has {', '.join(known[1])}. "
        "Give SESSION:CASE"
    )


def _method(a: list[Measures], b: list[Measures]) -> Method:
    if len(a) == len(b) == 1:
        together = _one_session(a, b) and not apart(a[0].view, a[0].case, b[0].case)
        return "paired rounds" if together and _shared_rounds(a[0], b[0])[0].size else "single session"
    return "sessions" if min(len(a), len(b)) >= SESSIONS else "single session"


def _one_session(a: list[Measures], b: list[Measures]) -> bool:
    """Whether both sides are cases of the same session."""
    return len(a) == len(b) == 1 and a[0].view.timeline.path == b[0].view.timeline.path


def _shared_rounds(a: Measures, b: Measures) -> tuple[Any, Any]:
    """Places of the runs that are of the same round."""
    _, places_a, places_b = np.intersect1d(
        np.where(np.isfinite(a.rounds), a.rounds, -1),
        np.where(np.isfinite(b.rounds), b.rounds, -2),
        return_indices=True,
    )
    return places_a, places_b


# --- rows ------------------------------------------------------------------------------------------------------------

_METRICS: tuple[tuple[str, str, str], ...] = (
    ("ttft", "time to first token", "ns"),
    ("tpot", "time per output token", "ns"),
    ("itl", "inter-token latency", "ns"),
    ("tokens_per_second", "decode speed", "tok/s"),
    ("frames_per_second", "frame speed", "frames/s"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A row to be: which values of a run it is about."""

    key: str
    title: str
    family: Family
    unit: str
    values: Callable[[Measures], Floats]


def asked_of(of: Measures) -> list[Asked]:
    """What is compared of a session like this one: the whole run, steps with their stages, metrics."""
    rows = [Asked("wall", "whole run", "run", "ns", lambda of: of.wall)]
    titles = {info.path: info.title for info in of.view.tree}
    for path in of.paths:
        family: Family = "stage" if "." in path else "step"
        rows.append(Asked(path, titles[path], family, "ns", _of_stage(of, path)))
    return rows + [Asked(name, title, "metric", unit, _of_metric(of, name)) for name, title, unit in _METRICS]


def _of_stage(base: Measures, path: str) -> Callable[[Measures], Floats]:
    def values(of: Measures) -> Floats:
        found = counterpart(base, path, of)
        return of.stages[found] if found is not None else np.full(of.n, np.nan)

    return values


def _of_metric(base: Measures, name: str) -> Callable[[Measures], Floats]:
    known: Callable[[Measures], Floats] = attrgetter(name)
    if name != "frames_per_second" or not base.steps:
        return known
    # It is step 1's: another thing where that step holds other stages.
    first = base.steps[0]
    return lambda of: known(of) if first not in of.stages or counterpart(base, first, of) else np.full(of.n, np.nan)


def _rows(
    a: list[Measures],
    b: list[Measures],
    method: Method,
    refused: bool,
    delta: float,
    spread: Mapping[str, float],
    clocks: float | None,
    shared: Set[str] = frozenset(),
) -> list[Row]:
    """``shared``: stages that are compared although the two sides are ``refused`` as a whole."""
    on_device = {info.path for info in a[0].view.tree if info.side == "device"}
    pairs = _shared_rounds(a[0], b[0]) if method == "paired rounds" else None
    rows: list[Row] = []
    estimates: dict[str, Estimate] = {}
    for asked in asked_of(a[0]):
        x, y = [asked.values(of) for of in a], [asked.values(of) for of in b]
        before, after = median_of(map(median, x)), median_of(map(median, y))
        if before is None and after is None and asked.family != "run":
            continue
        blind = asked.unit == "ns" and 0 < max(before or 0.0, after or 0.0) < RESOLVED * a[0].tick(asked.key)
        closed = refused and asked.key not in shared
        estimate = None if closed or blind else _estimate(x, y, method, pairs, asked.unit != "ns")
        row = Row(
            asked.key, asked.title, asked.family, asked.unit, before, after,
            effect=after / before - 1 if before and after and not blind else None,
            low=None, high=None, p=None, n=0,
            verdict="not comparable" if closed else "inconclusive",
            reason="" if closed else "below timer resolution" if blind else "not known on both sides",
        )  # fmt: skip
        if estimate is not None:
            estimates[row.key] = estimate
        rows.append(row)
    adjusted: dict[str, tuple[float, int]] = {}
    for family in ("run", "step", "stage", "metric"):
        keys = [row.key for row in rows if row.family == family and row.key in estimates]
        for key, p in zip(keys, holm([estimates[key].p for key in keys]), strict=True):
            adjusted[key] = p, len(keys)
    for place, row in enumerate(rows):
        if (estimate := estimates.get(row.key)) is None:
            continue
        p, size = adjusted[row.key]
        decision = decide(estimate, p, size, delta, spread.get(row.key, spread.get("wall")))
        low, high = _relative(row.unit, estimate.low), _relative(row.unit, estimate.high)
        rows[place] = replace(
            row,
            effect=_relative(row.unit, estimate.effect),
            low=low if row.unit == "ns" else high,
            high=high if row.unit == "ns" else low,
            p=p,
            n=estimate.n,
            verdict=decision.verdict,
            reason=decision.reason,
            needed=decision.needed,
            cycles=math.exp(estimate.effect) * clocks - 1 if clocks is not None and row.key in on_device else None,
        )
    return rows


def _estimate(x: list[Floats], y: list[Floats], method: Method, pairs: Any, rate: bool) -> Estimate | None:
    """Of times; a rate is the time of one token or frame, turned over."""
    if rate:
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = [1 / one for one in x], [1 / one for one in y]
    if pairs is not None:
        return paired(x[0][pairs[0]], y[0][pairs[1]])
    if method == "sessions":
        logs = [[math.log(middle) for one in side if (middle := median(one)) and middle > 0] for side in (x, y)]
        return sessions(*logs) if min(map(len, logs)) >= SESSIONS else None
    return single(np.concatenate(x), np.concatenate(y))


def _relative(unit: str, log: float | None) -> float | None:
    """The relative change of a row's value, from the logarithm of the ratio of times."""
    return None if log is None else math.expm1(log if unit == "ns" else -log)
