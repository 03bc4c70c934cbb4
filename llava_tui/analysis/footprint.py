"""What each step and stage takes beside time: memory by the allocator's peaks or the resident set, energy by the
board's counter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llava_tui.analysis.machine import gpus_of
from llava_tui.analysis.measures import ALL_CASES, Measures, measures
from llava_tui.analysis.statistics import Floats, Summary, summarize
from llava_tui.events import ModelFacts
from llava_tui.session.reader import safe_text
from llava_tui.session.timeline import View

WINDOWS = 8
"""Telemetry samples a step, at least, before energy is told apart."""
SHORTEST_NS = 100e6
"""Steps below this get no energy: the driver renews its counter every 20 to 100 ms and its power lags behind the load,
so that what a short step is given is its neighbours'."""
TELLING = 0.2
"""Standard error of a step's energy, relative, above which it is not told."""


@dataclass(frozen=True, slots=True)
class StageFootprint:
    """One step or stage of a case, over its measured runs."""

    path: str
    title: str
    allocated: Summary
    """Peak of what tensors held, bytes."""
    reserved: Summary
    """Peak of what the allocator held, bytes."""
    energy: float | None
    """Of the model's whole boards, J a run; of steps only. ``None`` where it cannot be told: no counter, too few
    samples, a step shorter than :data:`SHORTEST_NS` or than the time between two samples."""
    energy_error: float | None
    """Standard error of it, J."""
    resident: Summary
    """On the CPU: the worker's resident set when the stage was left, bytes."""
    resident_peak: Summary
    """Its peak within the stage, where the kernel tells it."""

    @property
    def peak(self) -> float | None:
        """The most memory in the stage, bytes: allocated on an accelerator, resident on the CPU."""
        return next((s.maximum for s in (self.allocated, self.resident_peak, self.resident) if s.n), None)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory and energy of a case's measured runs."""

    case: str
    rows: tuple[StageFootprint, ...]
    rss: Summary
    """The worker's resident memory at each run's end, bytes."""
    energy: float | None
    """Of the model's whole boards, J a run: a mean."""
    cache: float | None = None
    """Of keys and values at the end of the newest run, bytes."""
    cache_predicted: float | None = None
    """What the model's config says that it takes."""
    short: dict[str, Any] = field(default_factory=dict)
    """What was held when the case ran out of memory, bytes, and the ``stage`` in which it did; empty if it did not."""

    weights: tuple[tuple[str, float], ...] = ()
    """What each part of the model weighs, bytes, the largest first; empty where the session does not say."""

    @property
    def peak(self) -> float | None:
        """The most memory in any stage, bytes: allocated on an accelerator, resident on the CPU."""
        return max((row.peak for row in self.rows if row.peak is not None), default=None)

    @property
    def is_resident(self) -> bool:
        """Whether the peak is of the worker's resident set, not of an allocator."""
        return any(row.resident.n for row in self.rows) and not any(row.allocated.n for row in self.rows)

    @property
    def cache_difference(self) -> float | None:
        """How much more the cache took than was predicted, relative to that."""
        if self.cache is None or not self.cache_predicted:
            return None
        return self.cache / self.cache_predicted - 1


def footprint(view: View, case: str) -> Footprint:
    """Of ``case`` (or :data:`~llava_tui.analysis.measures.ALL_CASES`)."""
    of = measures(view, case)
    energies = step_energies(of)
    titles = {info.path: info.title for info in view.tree}
    rows = []
    for path in of.paths:
        energy, error = energies.get(path, (None, None))
        allocated, reserved, resident, peak = (
            summarize(of.stage(path, column)) for column in ("allocated", "reserved", "rss", "rss_peak")
        )
        rows.append(StageFootprint(path, titles[path], allocated, reserved, energy, error, resident, peak))
    told = view.runs.value("facts", int(of.rows[-1])) if of.n else {}
    return Footprint(
        case,
        tuple(rows),
        summarize(of.column("rss")),
        run_energy(of),
        _bytes(told, "kv_cache_bytes"),
        _bytes(told, "kv_cache_predicted"),
        _short(view, case),
        weights_of(view.model),
    )


def weights_of(model: ModelFacts | None) -> tuple[tuple[str, float], ...]:
    """The parts of a model and their bytes, as far as they are well formed: a session is read, not trusted."""
    told = model.extra.get("modules") if model is not None else None
    parts = [part for part in told if isinstance(part, dict)] if isinstance(told, list) else []
    known = [(safe_text(str(part.get("name"))), _bytes(part, "bytes")) for part in parts]
    return tuple((name, size) for name, size in known if size)


def _short(view: View, case: str) -> dict[str, Any]:
    """The footprint of the case's last run that had too little memory; {} where none had."""
    of_case = {} if case == ALL_CASES else {"case": case}
    rows = np.flatnonzero(view.runs.where(outcome="out-of-memory", **of_case))
    told = view.runs.value("facts", int(rows[-1])) if rows.size else {}
    found = told.get("footprint") if isinstance(told, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if name == "stage" or _bytes(found, name) is not None}


def _bytes(told: Any, name: str) -> float | None:
    value = told.get(name) if isinstance(told, dict) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None


def _counter(of: Measures) -> tuple[Floats, Floats]:
    """Times (ns) and the energy counters' readings (J) at them, of the model's GPUs together; empty
    without a counter."""
    samples = of.view.samples
    joules = np.asarray(samples["energy_mj"], dtype=np.float64) / 1e3
    t, gpu = np.asarray(samples["t"], dtype=np.float64), np.asarray(samples["gpu"])
    gpus = [index for index in gpus_of(of.view) if np.isfinite(joules[gpu == index]).any()]
    if not gpus:
        return np.empty(0), np.empty(0)
    times = t[(gpu == gpus[0]) & np.isfinite(joules)]
    total = np.zeros(times.size)
    for index in gpus:
        own = (gpu == index) & np.isfinite(joules)
        total += np.interp(times, t[own], joules[own])
    return times, total


def run_energy(of: Measures) -> float | None:
    """Mean energy a run, J: the counter's rise over all runs together, read between its samples in a straight line.
    ``None`` for runs shorter than a sample, or too few of them to even that out."""
    times, joules = _counter(of)
    ends = of.starts + of.wall
    inside = (of.starts >= times[0]) & (ends <= times[-1]) if times.size > 1 else np.zeros(of.n, np.bool_)
    if not inside.any():
        return None
    between = float(np.median(np.diff(times)))
    wall = of.wall[inside]
    if float(np.median(wall)) < max(SHORTEST_NS, between) or float(wall.sum()) < 10 * WINDOWS * between:
        return None
    return float(np.mean(np.interp(ends[inside], times, joules) - np.interp(of.starts[inside], times, joules)))


def step_energies(of: Measures) -> dict[str, tuple[float, float]]:
    """Energy a run and its standard error, J, by step, as far as it can be told.

    Over many runs the samples fall on the steps differently each time: what the counter rose by between two samples is
    the sum, over steps, of the step's power times the time that was spent in it. Least squares over all of them gives
    each step's power, without attributing a whole reading to any.
    """
    times, joules = _counter(of)
    if not of.n or times.size < WINDOWS * (len(of.steps) + 1):
        return {}
    spent, steps = [], []
    for step in of.steps:
        begun, took = of.stage(step, "start"), of.stages[step]
        known = np.isfinite(begun) & np.isfinite(took) & (took > 0)
        if known.any():
            steps.append(step)
            spent.append(np.diff(_time_in(begun[known], took[known], times)) / 1e9)
    between = np.diff(times) / 1e9
    inside = np.diff(_time_in(of.starts.astype(np.float64), of.wall, times)) / 1e9 > 0.5 * between
    spent.append(between - sum(spent, np.zeros(between.size)))  # in none of them
    matrix = np.stack(spent, axis=1)[inside]
    rose = np.diff(joules)[inside]
    if not steps or len(rose) < WINDOWS * matrix.shape[1] or np.linalg.matrix_rank(matrix, tol=1e-6) < matrix.shape[1]:
        return {}
    power, *_ = np.linalg.lstsq(matrix, rose, rcond=None)
    rest = rose - matrix @ power
    variance = float(rest @ rest) / (len(rose) - len(power))
    errors = np.sqrt(variance * np.diag(np.linalg.inv(matrix.T @ matrix)))
    told = {}
    for step, watts, error in zip(steps, power[:-1], errors[:-1], strict=True):
        seconds = float(np.nanmedian(of.stages[step])) / 1e9
        if seconds * 1e9 >= max(SHORTEST_NS, float(np.median(between)) * 1e9) and watts > 0 and error < TELLING * watts:
            told[step] = float(watts * seconds), float(error * seconds)
    return told


def _time_in(begun: Floats, took: Floats, times: Floats) -> Floats:
    """How much of the spans (in order, apart from each other) had passed by each of ``times``, ns."""
    edges = np.stack([begun, begun + took], axis=1).ravel()
    passed = np.repeat(np.concatenate([[0.0], np.cumsum(took)]), 2)[1:-1]
    inside: Floats = np.interp(times, edges, passed)
    return inside
