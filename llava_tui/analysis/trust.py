"""How far the figures of a case can be trusted: a grade from A to F, and a reason a line.

Every reason is a value that was found, what would have been fine, and the evidence. Nothing is deleted or corrected
for it: below C the only advice is how to measure again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from llava_tui import events
from llava_tui.analysis.loads import group_of
from llava_tui.analysis.machine import Watched
from llava_tui.analysis.measures import Measures, measures
from llava_tui.analysis.peaks import peaks_of
from llava_tui.analysis.roofline import (
    SLACK,
    architecture_of,
    device_of,
    dtype_of,
    floor_of,
    peak_flops,
    quantization_of,
    stage_cost,
    work_of,
)
from llava_tui.analysis.series import autocorrelation, detrended, trend
from llava_tui.analysis.statistics import SCALE, Summary
from llava_tui.costs import Underived
from llava_tui.session.timeline import View
from llava_tui.units import change, counted, duration, percent, size

Level = Literal["note", "amber", "red", "void"]
Grade = Literal["A", "B", "C", "D", "E", "F"]

THROTTLE = {0x8: "hardware slowdown", 0x20: "thermal, software", 0x40: "thermal, hardware", 0x80: "power brake"}
"""NVML's clocks-event reasons that no measurement survives."""
POWER_CAP = 0x4
POWER_CAP_SHARE = 0.10
CLOCK_SPREAD = 0.03
CLOCK_SAMPLES = 10
UNCLAIMED_BYTES = 1.5 * 2**30
"""Drivers and desktops hold some; more than that is somebody."""
TREND_P, TREND_CHANGE = 0.01, 0.01
AUTOCORRELATION = 0.3
IMMATERIAL = 0.001
"""Noise below this part of the median, by the scaled MAD, harms no figure, whatever its shape."""
IQR_AMBER, IQR_RED = 0.10, 0.25
FEW, TOO_FEW = 10, 6
SHORT_NS = 10_000_000
"""Steps below this may be known half as well."""
FIRST_RUN = 1.2
UNACCOUNTED = 0.05
OVERHEAD = 0.01
OUTLIERS = 0.05
BOUNDED = ("vision_tower", "projector", "prefill", "decode")
"""Stages that a roofline knows the floor of."""
STUCK = 10.0
"""A run that lasts this many medians already does not come back."""

WEIGHT: dict[Level, int] = {"note": 0, "amber": 1, "red": 3, "void": 6}
GRADES: tuple[Grade, ...] = ("A", "B", "C", "D", "E", "E", "F")
"""By the sum of weights: one amber is B, one red is D, void is F."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found."""

    kind: str
    """Which check found it: "throttled", "trend", …"""
    level: Level
    text: str
    """A line: what, and what it means or how to mend it. Safe to draw."""
    value: float | None = None
    limit: float | None = None
    """What would have been fine."""
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trust:
    """The badge of a case. ``reasons`` with the worst first; without any it is an A."""

    case: str
    n: int
    """Measured runs that it is of."""
    grade: Grade | None
    """``None`` where nothing was measured yet."""
    reasons: tuple[Reason, ...]

    @property
    def sound(self) -> bool:
        """Whether anything but measuring again may be advised: A, B or C."""
        return self.grade in ("A", "B", "C")

    def named(self, kind: str) -> Reason | None:
        """The reason of that kind."""
        return next((reason for reason in self.reasons if reason.kind == kind), None)


def badge(view: View, case: str, status: str = "") -> Trust:
    """The trust in what ``case`` had given by ``view.t``. ``status``: the session's, where it is known
    ("interrupted": its worker is gone, which no view can tell from one that is at work)."""
    of = measures(view, case)
    found = [*_origin(view), *_resumed(view), *_loads(view, case), *_failures(view, case), *_course(view, of, status)]
    if of.n:
        found += [*_machine(Watched(of)), *_runs(of), *_instrument(view, of)]
    found.sort(key=lambda reason: -WEIGHT[reason.level])
    score = sum(WEIGHT[reason.level] for reason in found)
    return Trust(case, of.n, GRADES[min(score, len(GRADES) - 1)] if of.n else None, tuple(found))


# --- where it is from -----------------------------------------------------------------------------------------------


def _origin(view: View) -> Iterator[Reason]:
    match view.header.provenance:
        case "simulated":
            yield Reason("simulated", "note", "simulated: times from a model of the hardware, not from hardware")
        case "random-weights":
            yield Reason("random-weights", "note", "random weights: the times count, the text says nothing")
        case "imported":
            yield Reason("imported", "amber", "imported: how it was warmed up and timed is not known")
            log = view.log
            for text in log["text"][log.where(source="import", level="warning")][1:]:
                yield Reason("imported", "note", str(text))


def _loads(view: View, case: str) -> Iterator[Reason]:
    if (group := group_of(view, case)) is not None:
        text = "memory held one group of models at a time: this case did not interleave with those of the others"
        yield Reason("not interleaved", "note", text, evidence={"group": group})


def _resumed(view: View) -> Iterator[Reason]:
    resumed = [event for event in view.facts["event"] if isinstance(event, events.Resumed)]
    if resumed:
        after = ", ".join(str(event.run) for event in resumed)
        text = f"resumed after run {after}: loaded anew, so caches, temperature and load may be others than before"
        yield Reason("resumed", "note", text, len(resumed), 0, {"runs": [event.run for event in resumed]})
    hosts = sorted({view.header.host.hostname, *(event.host.hostname for event in resumed)})
    if len(hosts) > 1:
        text = f"resumed on another machine ({', '.join(hosts)}): times from before and after do not compare"
        yield Reason("resumed", "red", text, len(hosts), 1, {"hosts": hosts})


def _failures(view: View, case: str) -> Iterator[Reason]:
    runs = view.runs
    for outcome, what in (("out-of-memory", "out of memory"), ("failed", "failed")):
        # A profiled run is an extra: what becomes of it is told with the profile, and ends no case.
        rows = runs.rows(runs.where(case=case, outcome=outcome) & ~runs.where(kind="profile"))
        if rows:
            first = rows[0]
            end = "its cross-check ended the case" if first["kind"] == "cross-check" else "the case ended there"
            text = f"{what} in run {first['run']}: {end}, its other runs count"
            why = first["reason"].removeprefix("out of memory").removeprefix(": ")
            yield Reason(outcome, "amber", text + (f" ({why})" if why else ""), len(rows), 0, {"run": first["run"]})


def _course(view: View, of: Measures, status: str) -> Iterator[Reason]:
    current = view.current
    if current is not None and current["kind"] in ("warm-up", "measured", "discarded"):
        same = of if current["case"] == of.case else measures(view, current["case"])
        lasts = float(view.t - current["t"])
        usual = float(np.median(same.wall)) if same.n else 0.0
        if usual and lasts > STUCK * usual:
            text = f"run {current['run']} hangs: {duration(lasts)} so far, {duration(usual)} as a rule"
            yield Reason("hang", "red", text, lasts, STUCK * usual, {"run": current["run"]})
    if status == "interrupted":
        at = f" in run {current['run']}" if current is not None else ""
        run = current["run"] if current is not None else None
        yield Reason("interrupted", "amber", f"the worker died{at}: what it had measured counts", evidence={"run": run})


# --- the machine ----------------------------------------------------------------------------------------------------


def _machine(watched: Watched) -> Iterator[Reason]:
    if watched.gpus:
        yield from _gpu(watched)
    elif watched.view.model is not None and watched.view.model.device.split(":")[0] not in ("cpu", "meta"):
        yield Reason("unwatched", "amber", "nobody watched the GPU: throttling and other processes would not be known")
    load, cores = watched.foreign_load(), watched.view.header.host.cores
    if load is not None and load > max(1.0, cores / 2):
        text = f"load of others is {load:.1f} on {counted(cores, 'core')}: host stages compete; stop what else runs"
        yield Reason("load", "amber", text, load, max(1.0, cores / 2), {"cores": cores})


def _gpu(watched: Watched) -> Iterator[Reason]:
    bits = watched.column("throttle").astype(np.int64)
    slow = bits & sum(THROTTLE)
    if slow.any():
        share = float(np.mean(slow != 0))
        words = [word for bit, word in THROTTLE.items() if (slow & bit).any()]
        text = f"throttled in {percent(share)} of samples ({', '.join(words)}): cool the GPU, then measure again"
        yield Reason("throttled", "red", text, share, 0.0, {"bits": int(np.bitwise_or.reduce(slow)), "n": bits.size})
    capped = float(np.mean((bits & POWER_CAP) != 0)) if bits.size else 0.0
    if capped > POWER_CAP_SHARE:
        limits = watched.column("power_limit_mw")
        watts = f" of {np.median(limits) / 1000:.0f} W" if limits.size else ""
        text = f"held by its power limit{watts} in {percent(capped)} of samples: times are those of that limit"
        yield Reason("power-cap", "amber", text, capped, POWER_CAP_SHARE, {"n": bits.size})
    stage, clocks = watched.clocks()
    if clocks.size >= CLOCK_SAMPLES:
        low, middle, high = np.quantile(clocks, (0.1, 0.5, 0.9))
        spread = float((high - low) / middle) if middle else 0.0
        if spread > CLOCK_SPREAD:
            text = f"SM clock from {low:.0f} to {high:.0f} MHz within {stage}: lock it (nvidia-smi -lgc)"
            known = {"low_mhz": float(low), "high_mhz": float(high), "stage": stage, "n": clocks.size}
            yield Reason("clock-spread", "amber", text, spread, CLOCK_SPREAD, known)
    others = watched.foreign()
    if others:
        held = sum(process.memory or 0 for process in others)
        pids = ", ".join(str(process.pid) for process in others[:4]) + (" …" if len(others) > 4 else "")
        text = (
            f"others compute on the GPU (pid {pids}{f', {size(held)}' if held else ''}): end them, then measure again"
        )
        yield Reason("foreign", "red", text, len(others), 0, {"pids": [p.pid for p in others], "memory": held})
    rest = watched.unclaimed()
    if rest is not None and rest > UNCLAIMED_BYTES:
        text = f"{size(rest)} of the GPU's memory belong to no listed process: somebody else may be on it"
        yield Reason("unclaimed-memory", "amber", text, rest, UNCLAIMED_BYTES)


# --- the runs -------------------------------------------------------------------------------------------------------


def _runs(of: Measures) -> Iterator[Reason]:
    known = of.summary("wall")
    middle = known.median or 0.0
    if of.n < FEW:
        some, none = counted(of.n, "run"), of.n < TOO_FEW
        why = f"below {TOO_FEW} there is no interval" if none else f"{FEW} are the least to go by"
        text = f"{some} measured: {why}"
        yield Reason("few", "red" if none else "amber", text, of.n, FEW)
    if of.n >= TOO_FEW:
        yield from _spread(of, known)
        yield from _order(of, known)
        yield from _precision(of)
        yield from _warm_up(of, middle)
    tokens = np.asarray(of.view.runs["new_tokens"])[of.rows]
    if of.n > 1 and tokens.min() != tokens.max():
        text = f"runs wrote {tokens.min()} to {tokens.max()} tokens: their times are not of the same work"
        yield Reason("tokens", "amber", text, float(tokens.max() - tokens.min()), 0, {"tokens": tokens.tolist()[:1000]})
    blind = [
        info.title for info in of.view.tree if info.path in of.steps and not np.isfinite(of.stages[info.path]).any()
    ]
    if blind and of.view.header.provenance != "imported":
        text = f"steps cannot be told apart on this device: of {', '.join(blind)} there are no times"
        yield Reason("blind", "amber", text, len(blind), 0, {"steps": blind})
    share = (of.shared("unaccounted", lambda of: of.unaccounted) if of.steps else None) or 0.0
    if share > UNACCOUNTED:
        text = f"{percent(share)} of a run is in none of its steps: look for what runs between them"
        yield Reason("unaccounted", "amber", text, share, UNACCOUNTED)


def _warm_up(of: Measures, middle: float) -> Iterator[Reason]:
    first = float(of.wall[0] / middle) if middle else 0.0
    warm = next((e for e in of.view.facts["event"] if isinstance(e, events.WarmUp) and e.case == of.case), None)
    if first > FIRST_RUN:
        text = f"the first measured run took {first:.2f} × the median: warm up longer"
        yield Reason("warm-up", "amber", text, first, FIRST_RUN)
    elif warm is not None and warm.rule == "cap":
        text = f"{warm.runs} warm-up runs did not settle: the last three differ by {percent(warm.spread)}"
        yield Reason("warm-up", "amber", text, warm.spread, None, {"runs": warm.runs})


def _spread(of: Measures, known: Summary) -> Iterator[Reason]:
    iqr = known.relative_iqr
    if iqr is not None and iqr > IQR_AMBER:
        text = f"runs differ much: IQR is {percent(iqr)} of the median"
        yield Reason("spread", "red" if iqr > IQR_RED else "amber", text, iqr, IQR_AMBER)
    if known.outliers:
        share, middle = known.outliers / of.n, known.median or 1.0
        farthest = max((known.minimum or 0.0, known.maximum or 0.0), key=lambda value: abs(value - middle)) / middle
        some = "is an outlier" if known.outliers == 1 else "are outliers"
        text = f"{known.outliers} of {counted(of.n, 'run')} {some} (up to {farthest:.2f} × the median)"
        text += "; all are kept, medians bear them"
        yield Reason("outliers", "amber" if share > OUTLIERS else "note", text, share, OUTLIERS)


def _order(of: Measures, known: Summary) -> Iterator[Reason]:
    """A trend of the whole run or of a step; and, that taken out, whether a run resembles the one before."""
    names = {info.path: info.title for info in of.view.tree}
    series = {"wall": of.wall} | {path: of.stages[path] for path in of.steps}
    trends = {path: trend(values, of.places(path)) for path, values in series.items()}
    # The whole run is asked as it is; its steps, which are several, with a p that much smaller.
    bounds = {path: TREND_P if path == "wall" else TREND_P / len(of.steps) for path in trends}
    drifting = {
        path: one for path, one in trends.items() if one and one.p < bounds[path] and abs(one.change) > TREND_CHANGE
    }
    if drifting:
        path = "wall" if "wall" in drifting else max(drifting, key=lambda path: abs(drifting[path].change))
        one = drifting[path]
        what = "runs get" if path == "wall" else f"{names.get(path, path)} gets"
        word = "slower" if one.change > 0 else "faster"
        chance = f"p {one.p:.1g}" if one.p >= 1e-4 else "p < 0.0001"
        text = f"{what} {word}, {change(one.change)} in all ({chance}): compare interleaved cases only"
        yield Reason("trend", "amber", text, one.change, TREND_CHANGE, {"rho": one.rho, "p": one.p, "of": path})
    r = autocorrelation(detrended(of.wall) if "wall" in drifting else of.wall)
    # In few runs chance alone reaches 0.3 often. What is left of a trend resembles its neighbours less as it is.
    limit = AUTOCORRELATION if "wall" in drifting else max(AUTOCORRELATION, 1.96 / of.n**0.5)
    if r is not None and r > limit and SCALE * (known.mad or 0.0) > IMMATERIAL * (known.median or 0.0):
        text = f"each run resembles the one before (lag-1 autocorrelation {r:.2f}): intervals are too narrow"
        yield Reason("autocorrelation", "amber", text, r, limit)


def _precision(of: Measures) -> Iterator[Reason]:
    """Whether every step is known within what the plan asked for (±1 %; twice that under 10 ms)."""
    delta = of.view.header.plan.get("delta")
    delta = delta if isinstance(delta, float) and delta > 0 else 0.01
    worst: tuple[float, float, str] | None = None
    for path in of.steps:
        known = of.summary(path, of.tick(path))
        if known.low is None or known.high is None or not known.median or known.state != "ok":
            continue
        reach = max(known.high - known.median, known.median - known.low) / known.median
        allowed = 2 * delta if known.median < SHORT_NS else delta
        if worst is None or reach / allowed > worst[0] / worst[1]:
            worst = reach, allowed, path
    if worst is not None and worst[0] > worst[1]:
        reach, allowed, path = worst
        title = {info.path: info.title for info in of.view.tree}.get(path, path)
        text = f"{title} is known to ±{percent(reach)} only, ±{percent(allowed)} was asked for: measure more rounds"
        yield Reason("interval", "amber", text, reach, allowed, {"step": path})


# --- the instrument -------------------------------------------------------------------------------------------------


def _instrument(view: View, of: Measures) -> Iterator[Reason]:
    test = view.fact(events.SelfTest)
    if test is not None and test.overhead is not None and test.overhead > OVERHEAD:
        sure = test.verdict == "above"
        text = f"measuring costs {change(test.overhead)}" + ("" if sure else ", or the machine is too noisy to tell")
        known = {"low": test.low, "high": test.high, "case": test.case}
        yield Reason("overhead", "amber" if sure else "note", text, test.overhead, OVERHEAD, known)
    for path, took, floor in impossible(view, of):
        text = f"{path} took {duration(took)}, faster than the {duration(floor)} its hardware allows: a timing bug"
        yield Reason("faster-than-roofline", "void", text, took, floor, {"stage": path})


def impossible(view: View, of: Measures) -> Iterator[tuple[str, float, float]]:
    """Stages whose median is below their floor: path, median and floor in ns. Nothing where the model's config does
    not say what a stage asks for, or the device's peaks are not known from its data sheet."""
    model, peaks = view.model, peaks_of(device_of(view))
    dtype = dtype_of(view, of.case)
    flops = peak_flops(view, of.case, peaks)
    if model is None or peaks is None or flops is None or not model.config:
        return
    made, work = architecture_of(model, dtype, quantization_of(view, of.case)), work_of(view, of.case)
    for path in of.paths:
        leaf = path.rsplit(".", 1)[-1]
        middle = of.median(path) if leaf in BOUNDED else None
        try:
            cost = stage_cost(made, work, leaf) if middle is not None else None
        except Underived:
            continue
        if cost is None or middle is None:
            continue
        steps = max((work.new_tokens or 2) - 1, 1) if leaf == "decode" else 1
        floor, _ = floor_of(cost, flops, peaks.bandwidth, steps)
        if middle < floor * SLACK[peaks.measured]:
            yield path, middle, floor
