"""What the machine did within each step, over all measured runs of a case: so that sides can be laid step by step
beside each other, whatever each step took on each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llava_tui.analysis.measures import Ints, Measures, median
from llava_tui.analysis.statistics import Floats
from llava_tui.session.timeline import View


@dataclass(frozen=True, slots=True)
class StepProfile:
    """One step of a case."""

    path: str
    title: str
    duration: float | None
    """Median over the measured runs, ns."""
    utilization: Floats
    """Mean over the runs in each equal part of the step, 0…1: of the busiest GPU, of the CPU where there is none; NaN
    where no sample fell into that part of any run."""
    memory: Floats
    """Greatest reading in each part, bytes: of that GPU, or the worker's resident set."""
    power: Floats
    """Mean in each part, W; NaN without a GPU."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A case of one session."""

    source: str
    """``GPU 0``, or ``CPU``."""
    memory_total: float | None
    """Bytes; of a GPU."""
    steps: tuple[StepProfile, ...]


MOST_PARTS = 24
SAMPLES_A_PART = 3
"""On average: with fewer, parts would be empty by chance."""


def profile(of: Measures) -> Profile:
    """The steps of the case, each in equal parts of its own length: as many as there are samples for.

    Samples come ten times a second and steps may be far shorter: over many runs they fall at all moments of a step, so
    that their mean by moment shows what no single run can.
    """
    view = of.view
    gpu = _busiest(view)
    if gpu is None:
        at, columns = _host(view)
        source, total = "CPU", None
    else:
        at, columns = _gpu(view, gpu)
        source, total = f"GPU {gpu}", view.devices[gpu].memory_total if gpu in view.devices else None
    titles = {info.path: info.title for info in view.tree}
    steps = []
    for path in of.steps:
        starts, lengths = of.stage(path, "start"), of.stages[path]
        inside, moments = _moments(at, starts, lengths)
        parts = min(max(moments.size // SAMPLES_A_PART, 1), MOST_PARTS)
        part = np.minimum((moments * parts).astype(np.int64), parts - 1)
        use, memory, power = (values[inside] for values in columns)
        steps.append(
            StepProfile(
                path, titles[path], median(lengths),
                _mean(part, use, parts), _greatest(part, memory, parts), _mean(part, power, parts),
            )
        )  # fmt: skip
    return Profile(source, float(total) if total else None, tuple(steps))


Columns = tuple[Floats, Floats, Floats]


def _busiest(view: View) -> int | None:
    """The GPU that is used most, of those with samples."""
    gpus = np.asarray(view.samples["gpu"])
    if not gpus.size:
        return None
    known = np.unique(gpus).tolist()
    use = np.asarray(view.samples["utilization"], np.float64)
    means = [float(np.nan_to_num(use[gpus == gpu], nan=-1.0).mean()) for gpu in known]
    return int(known[int(np.argmax(means))])


def _gpu(view: View, gpu: int) -> tuple[Ints, Columns]:
    mine = np.asarray(view.samples["gpu"]) == gpu
    use, memory, power = (
        np.asarray(view.samples[name], np.float64)[mine] for name in ("utilization", "memory_used", "power_mw")
    )
    return np.asarray(view.samples["t"])[mine], (use / 100, memory, power / 1000)


def _host(view: View) -> tuple[Ints, Columns]:
    at = np.asarray(view.host["t"])
    use, memory = (np.asarray(view.host[name], np.float64) for name in ("cpu", "worker_rss"))
    return at, (use / 100, memory, np.full(at.size, np.nan))


def _moments(at: Ints, starts: Floats, lengths: Floats) -> tuple[Ints, Floats]:
    """Which samples fell into the step of any run, and how far into it, 0…1."""
    good = np.isfinite(starts) & np.isfinite(lengths) & (lengths > 0)
    if not good.any() or not at.size:
        return np.empty(0, np.int64), np.empty(0)
    order = np.argsort(starts[good], kind="stable")
    begin, long = starts[good][order], lengths[good][order]
    near = np.searchsorted(begin, at, "right") - 1
    some = np.flatnonzero(near >= 0)
    moments = (at[some] - begin[near[some]]) / long[near[some]]
    return some[moments < 1], moments[moments < 1]


def _mean(part: Ints, values: Floats, parts: int) -> Floats:
    known = np.isfinite(values)
    count = np.bincount(part[known], minlength=parts)
    total = np.bincount(part[known], weights=values[known], minlength=parts)
    mean = np.full(parts, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _greatest(part: Ints, values: Floats, parts: int) -> Floats:
    known = np.isfinite(values)
    most = np.full(parts, -np.inf)
    np.maximum.at(most, part[known], values[known])
    most[np.isneginf(most)] = np.nan
    return most
