"""What a session says as a whole: its runs, each case's steps and extremes, what frames and batch do to them.

Small values that a screen can draw and a report can write; nothing here formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava_tui.analysis import references
from llava_tui.analysis.measures import case_values, measures
from llava_tui.analysis.peaks import Peaks, peaks_of
from llava_tui.analysis.roofline import Roofline, case_value, device_of, roofline
from llava_tui.analysis.statistics import Floats, median_interval
from llava_tui.analysis.steps import StepTable, case_ids, step_table
from llava_tui.session.timeline import View

FITTED = ("encode", "encode.vision_tower", "generate.prefill")
"""Paths whose time is fitted against frames."""


@dataclass(frozen=True, slots=True)
class RunCount:
    """Runs of one kind and outcome."""

    kind: str
    outcome: str
    runs: int


@dataclass(frozen=True, slots=True)
class Extreme:
    """A step that stands out, and its figure: ns for slowest and lightest, MAD / median for stability."""

    path: str
    title: str
    value: float


@dataclass(frozen=True, slots=True)
class Extremes:
    """Among the steps of a case (depth 0). ``None``: not known."""

    slowest: Extreme | None
    lightest: Extreme | None
    most_stable: Extreme | None
    least_stable: Extreme | None
    unresolved: tuple[str, ...]
    """Titles of steps too short for the timer to tell how stable they are; they take no part."""


@dataclass(frozen=True, slots=True)
class Fit:
    """T = a + b F over cases that differ in frames alone, ns.

    One line a round through all its cases, which pairs them; told are the medians over rounds and their 95 % intervals
    (``None``: fewer than six rounds).
    """

    path: str
    alike: str
    """What the cases share: "b1 n64", with their settings where they have any."""
    cases: tuple[str, ...]
    frames: tuple[int, ...]
    batch: int
    new_tokens: int
    rounds: int
    a: float
    a_low: float | None
    a_high: float | None
    b: float
    b_low: float | None
    b_high: float | None
    misfit: float | None
    """Largest distance of a case's median from the line, relative to the median; from three frame counts on."""


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """A case beside the case of the smallest batch that is otherwise alike."""

    case: str
    batch: int
    wall: float
    """Median, ns."""
    per_sequence: float
    """Median wall / batch, ns."""
    tokens_per_second: float | None
    efficiency: float
    """How much of the smallest batch's time a sequence takes is saved: (per-sequence time there) / (per-sequence time
    here), 1 at the smallest batch."""


@dataclass(frozen=True, slots=True)
class BatchImpact:
    """Cases that differ in batch alone."""

    alike: str
    """What they share: "f4 n64", with their settings where they have any."""
    frames: int
    new_tokens: int
    points: tuple[BatchPoint, ...]


@dataclass(frozen=True, slots=True)
class CaseInsight:
    """One case: its table, what stands out, its roofline."""

    case: str
    table: StepTable
    extremes: Extremes
    roofline: Roofline


@dataclass(frozen=True, slots=True)
class BesideStep:
    title: str
    share: float | None
    ns: float | None


@dataclass(frozen=True, slots=True)
class Beside:
    """Another model's steps to look at beside this session's. Not a comparison: nothing is claimed of them."""

    model: str
    label: str
    """What kind of figures they are; shown wherever they are."""
    steps: tuple[BesideStep, ...]


@dataclass(frozen=True, slots=True)
class Insights:
    """Everything that ``analyze`` tells, but for trust and advice."""

    runs: tuple[RunCount, ...]
    total_runs: int
    measured_runs: int
    device: str
    peaks: Peaks | None
    cases: tuple[CaseInsight, ...]
    fits: tuple[Fit, ...]
    batches: tuple[BatchImpact, ...]
    beside: tuple[Beside, ...]


def insights(
    view: View,
    measured_peaks: Mapping[str, Peaks] | None = None,
    case: str | None = None,
    beside: View | None = None,
) -> Insights:
    """All of a session as it was at ``view.t``: of every case, or of ``case`` alone.

    ``measured_peaks`` are those kept on this machine; ``beside`` a session of EventGPT, where there is one.
    """
    peaks = peaks_of(device_of(view), measured_peaks)
    known = case_ids(view)
    cases = []
    for id_ in [case] if case else known:
        table = step_table(view, id_)
        cases.append(CaseInsight(id_, table, extremes(table), roofline(view, table, peaks)))
    counts = run_counts(view)
    return Insights(
        runs=counts,
        total_runs=sum(count.runs for count in counts if count.kind != "load"),
        measured_runs=sum(count.runs for count in counts if count.kind == "measured" and count.outcome == "ok"),
        device=device_of(view),
        peaks=peaks,
        cases=tuple(cases),
        fits=frame_fits(view, known),
        batches=batch_impacts(view, [each.table for each in cases]),
        beside=_beside(view, beside),
    )


def run_counts(view: View) -> tuple[RunCount, ...]:
    """How many runs of each kind ended how, in the order the kinds came up."""
    runs = view.runs
    kinds, outcomes = runs.names("kind"), runs.names("outcome")
    pairs = np.asarray(runs["kind"]).astype(np.int64) * max(len(outcomes), 1) + np.asarray(runs["outcome"])
    codes, numbers = np.unique(pairs, return_counts=True)
    return tuple(
        RunCount(kinds[int(code) // len(outcomes)], outcomes[int(code) % len(outcomes)], int(number))
        for code, number in zip(codes, numbers, strict=True)
    )


def extremes(table: StepTable) -> Extremes:
    """What stands out among a case's steps; what no step has is not among them."""
    steps = [row for row in table.rows if row.depth == 0 and row.path != "unaccounted"]
    timed = [Extreme(row.path, row.title, row.summary.median) for row in steps if row.summary.median is not None]
    stable = [
        Extreme(row.path, row.title, row.summary.stability)
        for row in steps
        if row.summary.stability is not None and row.summary.n > 1
    ]
    return Extremes(
        slowest=max(timed, key=lambda step: step.value, default=None),
        lightest=min(timed, key=lambda step: step.value, default=None),
        most_stable=min(stable, key=lambda step: step.value, default=None),
        least_stable=max(stable, key=lambda step: step.value, default=None),
        unresolved=tuple(row.title for row in steps if row.summary.state == "below timer resolution"),
    )


# --- what frames do -----------------------------------------------------------------------------------------------


def frame_fits(view: View, cases: Sequence[str]) -> tuple[Fit, ...]:
    """Fits of :data:`FITTED` over every group of cases that differ in frames alone, two or more frame counts each."""
    fits = []
    for group in _groups(view, cases, "frames"):
        for path in FITTED:
            fit = frame_fit(view, path, group)
            if fit is not None:
                fits.append(fit)
    return tuple(fits)


def frame_fit(view: View, path: str, group: Mapping[int, str]) -> Fit | None:
    """The line through ``group`` (case by frames of one sequence); ``None`` with fewer than two that have times."""
    columns = {}
    for count, case in group.items():
        of = measures(view, case)
        times = of.stage(path)
        known = np.isfinite(times) & np.isfinite(of.rounds)
        if known.any():
            columns[count] = (of.rounds[known].astype(np.int64), times[known])
    if len(columns) < 2:
        return None
    frames = np.array(sorted(columns), dtype=np.float64)
    rounds = np.unique(np.concatenate([rounds for rounds, _ in columns.values()]))
    table = np.full((rounds.size, frames.size), np.nan)
    for place, count in enumerate(sorted(columns)):
        rounds_of, times = columns[count]
        table[np.searchsorted(rounds, rounds_of), place] = times
    whole = table[np.isfinite(table).all(axis=1)]
    if not whole.size:
        return None
    centred = frames - frames.mean()
    slopes: Floats = (whole * centred).sum(axis=1) / float((centred**2).sum())
    intercepts: Floats = whole.mean(axis=1) - slopes * frames.mean()
    a, b = float(np.median(intercepts)), float(np.median(slopes))
    a_low, a_high = median_interval(intercepts) or (None, None)
    b_low, b_high = median_interval(slopes) or (None, None)
    misfit = None
    if frames.size > 2:
        medians = np.median(whole, axis=0)
        misfit = float(np.max(np.abs(medians - (a + b * frames)) / medians))
    any_case = next(iter(group.values()))
    return Fit(
        path=path,
        alike=_alike(view, any_case, "frames"),
        cases=tuple(group.values()),
        frames=tuple(int(count) for count in frames),
        batch=_whole(view, any_case, "batch"),
        new_tokens=_whole(view, any_case, "new_tokens"),
        rounds=int(whole.shape[0]),
        a=a,
        a_low=a_low,
        a_high=a_high,
        b=b,
        b_low=b_low,
        b_high=b_high,
        misfit=misfit,
    )


def batch_impacts(view: View, tables: Sequence[StepTable]) -> tuple[BatchImpact, ...]:
    """What larger batches give, for every group of cases that differ in batch alone, two or more batches each."""
    by_case = {table.case: table for table in tables}
    impacts = []
    for group in _groups(view, list(by_case), "batch"):
        points: list[BatchPoint] = []
        for batch, case in group.items():
            table = by_case[case]
            wall = table.wall.summary.median
            if not wall:
                continue
            each = wall / batch
            first = points[0].per_sequence if points else each
            throughput = table.tokens_per_second.median
            points.append(BatchPoint(case, batch, wall, each, throughput, first / each))
        if len(points) > 1:
            any_case = points[0].case
            frames, new_tokens = (_whole(view, any_case, axis) for axis in ("frames", "new_tokens"))
            impacts.append(BatchImpact(_alike(view, any_case, "batch"), frames, new_tokens, tuple(points)))
    return tuple(impacts)


def _groups(view: View, cases: Sequence[str], axis: str) -> list[dict[int, str]]:
    """Cases that are alike but for their value on ``axis``, by that value; groups of one left out."""
    values = {case: case_values(view, case) for case in cases}
    groups: dict[str, dict[int, str]] = {}
    for case in cases:
        value = values[case].get(axis)
        if isinstance(value, int):
            rest = sorted((name, each) for name, each in values[case].items() if name != axis)
            groups.setdefault(repr(rest), {})[value] = case
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def _alike(view: View, case: str, axis: str) -> str:
    letters = {"frames": "f", "batch": "b", "new_tokens": "n", "threads": "t", "compile": "compile "}
    values = case_values(view, case).items()
    return " ".join(f"{letters.get(name, '')}{value}" for name, value in values if name != axis)


def _whole(view: View, case: str, axis: str) -> int:
    value = case_value(view, case, axis)
    return value if isinstance(value, int) else 1


# --- another model beside it --------------------------------------------------------------------------------------


def _beside(view: View, other: View | None) -> tuple[Beside, ...]:
    """LLaVA's published steps are of use beside nothing that was measured; EventGPT's are all there is without a
    session of it."""
    if "eventgpt" in view.header.pipeline.lower() or "eventgpt" in view.header.model.lower():
        return (_published(references.LLAVA),)
    if other is None:
        return (_published(references.EVENTGPT),)
    tables = [step_table(other, case) for case in case_ids(other)]
    table = max(tables, key=lambda each: each.n, default=None)
    if table is None or not table.n:
        return (_published(references.EVENTGPT),)
    header = other.header
    label = f"session {header.id}, case {table.case}, n {table.n}"
    if header.provenance != "pretrained":
        label += f", {header.provenance}"
    steps = [BesideStep(row.title, row.share, row.summary.median) for row in table.rows if row.depth == 0]
    return (Beside(header.model, label, tuple(steps)),)


def _published(reference: references.Reference) -> Beside:
    steps = tuple(BesideStep(step.title, step.share, step.ns) for step in reference.steps)
    return Beside(reference.model, f"{reference.label}: {reference.source}", steps)
