"""The steps table: what each step and stage of a case took, of the runs that count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llava_tui.analysis.statistics import Floats, Summary, summarize
from llava_tui.session.timeline import TableView, View

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


@dataclass(frozen=True, slots=True)
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
    itl: Summary
    """Inter-token latency, ns, over all tokens of all measured runs."""
    itl_p95: float | None
    """95th percentile of the inter-token latency, ns; from 20 values on."""
    tokens_per_second: Summary
    """Of the decode stage, all sequences of the batch together."""
    frames_per_second: Summary
    """Frames decoded a second of step 1."""

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
    """The table of ``case`` from the runs that had ended by ``view.t``."""
    runs = view.runs
    measured = runs.where(case=case, kind="measured", outcome="ok")
    ids = np.asarray(runs["run"])[measured]
    walls = np.asarray(runs["wall"])[measured].astype(np.float64)
    newest = _newest_timed(runs, case)

    stages = view.stages
    durations = np.asarray(stages["duration"], dtype=np.float64)
    stage_runs = np.asarray(stages["run"])
    counted = stages.where(case=case, kind="measured", outcome="ok")
    columns: dict[str, Floats] = {}
    lasts: dict[str, float | None] = {}
    for info in view.tree:
        if info.path.split(".")[0] == "load":
            continue
        here = stages.where(stage=info.path)
        column = np.full(ids.size, np.nan)
        mask = here & counted
        if ids.size:
            # Runs end in the order of their numbers, so the ids are sorted.
            column[np.searchsorted(ids, stage_runs[mask])] = durations[mask]
        columns[info.path] = column
        lasts[info.path] = None
        if newest is not None:
            value = durations[here & (stage_runs == newest[0])]
            lasts[info.path] = float(value[-1]) if value.size and np.isfinite(value[-1]) else None

    rows: list[StepRow] = []
    paths = [info.path for info in view.tree if info.path in columns]
    titles = {info.path: info.title for info in view.tree}
    for index, path in enumerate(paths):
        depth = path.count(".")
        rows.append(_row(path, titles[path], depth, columns[path], walls, lasts[path]))
        step = path.split(".")[0]
        if index + 1 == len(paths) or paths[index + 1].split(".")[0] != step:
            children = [p for p in paths if p.count(".") == 1 and p.startswith(step + ".")]
            if children:
                rest = columns[step] - _sum([columns[p] for p in children], ids.size)
                last = _remainder(lasts[step], [lasts[p] for p in children])
                rows.append(_row(f"{step}.rest", "rest", 1, rest, walls, last))
    steps = [path for path in paths if "." not in path]
    last_wall = newest[1] if newest is not None else None
    unaccounted = walls - _sum([columns[path] for path in steps], ids.size)
    rows.append(
        _row(UNACCOUNTED, UNACCOUNTED, 0, unaccounted, walls, _remainder(last_wall, [lasts[path] for path in steps]))
    )

    first, final, count, gaps = _token_times(view, ids, case)
    starts = np.asarray(runs["start"])[measured].astype(np.int64)
    decode = np.where(count > 1, (final - first).astype(np.float64), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = decode / (count - 1)
        throughput = (count - 1) * _batch(view, case) / (decode / 1e9)
        fps = np.asarray(runs["frames"], dtype=np.float64)[measured] / (columns[steps[0]] / 1e9) if steps else walls[:0]
    return StepTable(
        case=case,
        rows=tuple(rows),
        wall=_row("wall", "whole run", 0, walls, walls, last_wall),
        n=int(ids.size),
        ttft=summarize(np.where(count > 0, (first - starts).astype(np.float64), np.nan)),
        tpot=summarize(tpot),
        itl=summarize(gaps),
        itl_p95=float(np.percentile(gaps, 95)) if gaps.size >= 20 else None,
        tokens_per_second=summarize(throughput),
        frames_per_second=summarize(fps),
    )


def _newest_timed(runs: TableView, case: str) -> tuple[int, float] | None:
    """Run number and wall of the newest timed run of the case that went well."""
    mask = runs.where(case=case, outcome="ok") & ~runs.where(kind="cross-check") & ~runs.where(kind="load")
    indices = np.flatnonzero(mask)
    if indices.size == 0:
        return None
    return int(runs["run"][indices[-1]]), float(runs["wall"][indices[-1]])


def _row(path: str, title: str, depth: int, values: Floats, walls: Floats, last: float | None) -> StepRow:
    shares = values / walls
    finite = shares[np.isfinite(shares)]
    share = float(np.median(finite)) if finite.size else None
    return StepRow(path, title, depth, summarize(values), last, share, values)


def _sum(columns: list[Floats], size: int) -> Floats:
    """What is known of them, added; a stage that could not be told apart stays in the remainder."""
    total = np.zeros(size)
    for column in columns:
        total += np.nan_to_num(column)
    return total


def _remainder(whole: float | None, parts: list[float | None]) -> float | None:
    if whole is None:
        return None
    return whole - sum(part for part in parts if part is not None)


def _token_times(view: View, ids: np.ndarray, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Floats]:
    """Of each run: when its first and last token was there (ns), how many there were; and all gaps between (ns)."""
    tokens = view.tokens
    mask = tokens.where(case=case, kind="measured")
    run = np.asarray(tokens["run"])[mask]
    at = np.asarray(tokens["at"])[mask]
    left = np.searchsorted(run, ids, "left")
    right = np.searchsorted(run, ids, "right")
    count = right - left
    some = count > 0
    first = np.zeros(ids.size, np.int64)
    final = np.zeros(ids.size, np.int64)
    first[some] = at[left[some]]
    final[some] = at[right[some] - 1]
    counted = np.isin(run, ids)
    gaps = np.diff(at)[(run[1:] == run[:-1]) & counted[1:]] if run.size > 1 else np.zeros(0)
    return first, final, count, gaps.astype(np.float64)


def _batch(view: View, case: str) -> float:
    schedule = view.schedule
    if schedule is not None:
        for known in schedule.cases:
            if known.id == case:
                return float(known.values.get("batch", 1))
    return 1.0
