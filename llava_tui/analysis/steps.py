"""The steps table: what each step and stage of a case took, of the runs that count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from llava_tui.analysis.measures import ALL_CASES, Measures, Values, known_sum, measures
from llava_tui.analysis.statistics import TAIL_FROM, Floats, Summary, summarize
from llava_tui.session.timeline import View

TIMED_KINDS = ("cold", "warm-up", "measured")
"""Runs that are timed. Of these, ``measured`` alone enters the statistics."""

UNACCOUNTED = "unaccounted"
"""Path of the row that the steps leave of a run's wall time."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step (depth 0) or stage (depth 1 and more), times in ns."""

    path: str
    title: str
    depth: int
    summary: Summary
    """Of the measured runs."""
    last: float | None
    """Of the newest timed run, measured or not."""
    share: float | None
    """Median over measured runs of this row's share of the wall time, 0…1."""
    durations: Floats
    """Every measured run's, in order, NaN where it could not be told apart."""


@dataclass(frozen=True)
class StepTable:
    """A case at one moment. ``rows`` are in the tree's order, the rest of each step under it, unaccounted last."""

    case: str
    rows: tuple[StepRow, ...]
    wall: StepRow
    n: int
    """Measured runs that count."""
    ttft: Summary
    """Time to first token, ns from the run's start."""
    tpot: Summary
    """Time per output token after the first, ns: (t_last − t_first) / (n − 1)."""
    gaps: Floats
    """Every gap between neighbouring tokens of a measured run, ns."""
    itl_p95: float | None
    """95th percentile of the inter-token latency, ns; from 20 values on."""
    tokens_per_second: Summary
    """Of the decode stage, all sequences of the batch together."""
    frames_per_second: Summary
    """Frames decoded a second of step 1."""

    @cached_property
    def itl(self) -> Summary:
        """Inter-token latency, ns, over all tokens of all measured runs. Worked out when it is asked for: there may be
        millions."""
        return summarize(self.gaps)

    def row(self, path: str) -> StepRow | None:
        return next((row for row in self.rows if row.path == path), None)


def current_case(view: View) -> str:
    """The case of the newest run that has one; of the plan's first case before that; "" where nothing is known."""
    if view.started.n:
        names = view.started.names("case")
        for code in view.started["case"][-1:-257:-1]:
            if names[int(code)]:
                return names[int(code)]
    schedule = view.schedule
    return schedule.cases[0].id if schedule is not None and schedule.cases else ""


def case_ids(view: View) -> list[str]:
    """Every case known at this moment, in the plan's order."""
    schedule = view.schedule
    known = [case.id for case in schedule.cases] if schedule is not None else []
    seen = [name for name in view.started.names("case") if name and name not in known]
    return known + seen


def step_table(view: View, case: str) -> StepTable:
    """The table of ``case`` (:data:`~llava_tui.analysis.measures.ALL_CASES`: of all together) from the runs that had
    ended by ``view.t``."""
    of = measures(view, case)
    lasts = _lasts(view, case, of.paths)
    last_wall = lasts.pop("wall", None)

    rows: list[StepRow] = []
    paths = of.paths
    titles = {info.path: info.title for info in view.tree}
    for index, path in enumerate(paths):
        summary = of.summary(path, of.tick(path))
        rows.append(
            StepRow(path, titles[path], path.count("."), summary, lasts.get(path), of.share(path), of.stages[path])
        )
        step = path.split(".")[0]
        if index + 1 == len(paths) or paths[index + 1].split(".")[0] != step:
            children = [p for p in paths if p.count(".") == 1 and p.startswith(step + ".")]
            if children:
                last = _remainder(lasts.get(step), [lasts.get(p) for p in children])
                rows.append(_rest_row(of, f"{step}.rest", "rest", partial(_rest, step, children), last))
    known = all(path in lasts for path in of.steps)
    last = _remainder(last_wall, [lasts.get(path) for path in of.steps]) if known else None
    rows.append(_rest_row(of, UNACCOUNTED, UNACCOUNTED, lambda of: of.unaccounted, last))
    gaps = of.gaps
    return StepTable(
        case=case,
        rows=tuple(rows),
        wall=StepRow("wall", "whole run", 0, of.summary("wall", of.tick("wall")), last_wall, of.share("wall"), of.wall),
        n=of.n,
        ttft=of.summarized("ttft", lambda of: of.ttft),
        tpot=of.summarized("tpot", lambda of: of.tpot),
        gaps=gaps,
        itl_p95=float(np.percentile(gaps, 95)) if gaps.size >= TAIL_FROM else None,
        tokens_per_second=summarize(of.tokens_per_second),
        frames_per_second=of.summarized("frames per second", lambda of: of.frames_per_second),
    )


def _lasts(view: View, case: str, paths: list[str]) -> dict[str, float]:
    """The newest timed run that went well, measured or not: its wall time under "wall", its stages by path."""
    runs, stages = view.runs, view.stages
    mask = runs.where(kind=TIMED_KINDS, outcome="ok")
    if case != ALL_CASES:
        mask &= runs.where(case=case)
    indices = np.flatnonzero(mask)
    if indices.size == 0:
        return {}
    newest = int(runs["run"][indices[-1]])
    here = np.flatnonzero(stages["run"] == newest)
    names = stages.names("stage")
    found = {names[int(stages["stage"][row])]: float(stages["duration"][row]) for row in here}
    lasts = {path: found[path] for path in paths if np.isfinite(found.get(path, np.nan))}
    return lasts | {"wall": float(runs["wall"][indices[-1]])}


def _rest_row(of: Measures, path: str, title: str, values: Values, last: float | None) -> StepRow:
    """What others leave."""
    summary, share = of.summarized(path, values), of.shared(path, values)
    return StepRow(path, title, path.count("."), summary, last, share, of.values(path, values))


def _rest(step: str, children: list[str], of: Measures) -> Floats:
    return of.stage(step) - known_sum([of.stage(path) for path in children], of.n)


def _remainder(whole: float | None, parts: list[float | None]) -> float | None:
    if whole is None:
        return None
    return whole - sum(part for part in parts if part is not None)
