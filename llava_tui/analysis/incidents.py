"""What happened in a session that is worth looking at: throttling, runs out of line, memory nearly full, errors.

Each is told once, where it began: a GPU that throttles for a minute is one incident, not six hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llava_tui import events
from llava_tui.analysis.statistics import outliers
from llava_tui.analysis.trust import THROTTLE
from llava_tui.session.timeline import View
from llava_tui.units import duration, elapsed, percent, size

Kind = Literal["error", "near out of memory", "throttling", "outlier", "cool-down"]
KINDS: tuple[Kind, ...] = ("error", "near out of memory", "throttling", "outlier", "cool-down")
"""The gravest first."""

FULL = 0.95
"""Part of a memory in use from which on the next allocation may fail."""
APART_NS = 5_000_000_000
"""What stopped for less than this has not stopped: at its limit a GPU goes in and out of throttling several times a
second."""

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Incident:
    """One of them."""

    t: int
    """ns on the session's clock; of a run, when it ended."""
    kind: Kind
    text: str
    """A line. Safe to draw."""


class Incidents(Sequence[Incident]):
    """A session's incidents in the order of their times. What each says is worked out when it is asked for: there may
    be thousands, and one is looked at."""

    def __init__(self, view: View, found: Iterable[_Found]) -> None:
        """Use :func:`incidents`."""
        parts = [part for part in found if part[2].size]
        self._view = view
        self._sources = [source for source, *_ in parts]
        times = np.concatenate([np.empty(0, np.int64), *(t for _, _, t, _ in parts)])
        codes = [np.full(t.size, KINDS.index(kind)) for _, kind, t, _ in parts]
        place = [np.full(t.size, index) for index, (_, _, t, _) in enumerate(parts)]
        kinds = np.concatenate([np.empty(0, np.int64), *codes])
        order = np.lexsort((kinds, times))
        self.t: Ints = times[order]
        """ns."""
        self.kinds: Ints = kinds[order]
        """Places in :data:`KINDS`."""
        self._rows: Ints = np.concatenate([np.empty(0, np.int64), *(rows for *_, rows in parts)])[order]
        self._place: Ints = np.concatenate([np.empty(0, np.int64), *place])[order]

    def __len__(self) -> int:
        return int(self.t.size)

    def __getitem__(self, index: int) -> Incident:  # type: ignore[override]
        kind = KINDS[int(self.kinds[index])]
        text = _text(self._view, self._sources[int(self._place[index])], kind, int(self._rows[index]))
        return Incident(int(self.t[index]), kind, text)


def incidents(view: View) -> Incidents:
    """Those that had happened by ``view.t``; which runs are out of line is judged by the runs until then."""
    timeline = view.timeline
    tables = ("runs", "samples", "host", "log", "states", "facts", "absences", "devices")
    stamp = tuple(timeline.tables[name].n for name in tables)
    # But for the outliers they hang on nothing that comes later, so they are found once in all that was read.
    kept: tuple[object, list[_Found]] = timeline.__dict__.get("_incidents", (None, []))
    if kept[0] != stamp:
        now = timeline.now()
        kept = timeline.__dict__["_incidents"] = (stamp, [*_machine(now), *_failed(now), *_told(now)])
    found: list[_Found] = []
    for source, kind, t, rows in kept[1]:
        n = int(np.searchsorted(t, view.t, "right"))
        found.append((source, kind, t[:n], rows[:n]))
    return Incidents(view, [*found, *_outliers(view)])


_Found = tuple[str, Kind, Ints, Ints]
"""Where they come from (a table, or "outliers"), what they are, their times and rows."""


def _machine(view: View) -> Iterator[_Found]:
    samples = view.samples
    gpu = np.asarray(samples["gpu"])
    for index, device in view.devices.items():
        rows = np.flatnonzero(gpu == index)
        throttle = np.asarray(samples["throttle"])[rows]
        known = rows[np.isfinite(throttle)]
        slow = (throttle[np.isfinite(throttle)].astype(np.int64) & sum(THROTTLE)) != 0
        yield _onsets("samples", "throttling", samples["t"], known, slow)
        if total := _usable(device):
            used = np.asarray(samples["memory_used"])[rows]
            known = rows[np.isfinite(used)]
            full = used[np.isfinite(used)] >= FULL * total
            yield _onsets("samples", "near out of memory", samples["t"], known, full)
    host = view.host
    most, used = np.asarray(host["memory_total"]), np.asarray(host["memory_used"])
    known = np.flatnonzero(np.isfinite(used) & (most > 0))
    yield _onsets("host", "near out of memory", host["t"], known, used[known] >= FULL * most[known])


def _usable(device: events.GpuDevice) -> int:
    """Bytes that programs can have; 0 where it is not known."""
    return (device.memory_total or 0) - (device.memory_reserved or 0)


def _onsets(source: str, kind: Kind, t: Ints, rows: Ints, on: Mask) -> _Found:
    """Where something that is ``on`` in some of the ``rows`` begins."""
    here = np.flatnonzero(on)
    times = np.asarray(t)[rows[here]].astype(np.int64)
    # It ended in between, if only some reading says so; two that follow each other slowly are one.
    new = (np.diff(here, prepend=-2) > 1) & (np.diff(times, prepend=np.iinfo(np.int64).min // 2) > APART_NS)
    return source, kind, times[new], rows[here[new]]


def _failed(view: View) -> Iterator[_Found]:
    rows = np.flatnonzero(view.runs.where(outcome=("failed", "out-of-memory")))
    yield "runs", "error", np.asarray(view.runs["t"])[rows].astype(np.int64), rows


def _outliers(view: View) -> Iterator[_Found]:
    runs = view.runs
    t = np.asarray(runs["t"]).astype(np.int64)
    rows = np.flatnonzero(runs.where(kind="measured", outcome="ok"))
    case = np.asarray(runs["case"])[rows]
    rows = rows[np.argsort(case, kind="stable")]
    wall = np.asarray(runs["wall"])[rows].astype(np.float64)
    edges = [0, *(np.flatnonzero(np.diff(np.sort(case))) + 1).tolist(), rows.size]
    for first, last in pairwise(edges):
        far = rows[first:last][outliers(wall[first:last])]
        yield "outliers", "outlier", t[far], far


def _told(view: View) -> Iterator[_Found]:
    """What the worker and the sampler said themselves."""
    for name, mask in (
        ("log", view.log.where(level="error")),
        ("states", view.states.where(state="failed")),
        ("facts", view.facts.where(name="cool-down")),
    ):
        rows = np.flatnonzero(mask)
        kind: Kind = "cool-down" if name == "facts" else "error"
        yield name, kind, np.asarray(getattr(view, name)["t"])[rows].astype(np.int64), rows
    lost: set[int] = set()
    rows_: list[int] = []
    table = view.absences
    for row, (gpu, reasons) in enumerate(zip(table["gpu"].tolist(), table["reasons"], strict=True)):
        # Of GPU −1 it is told that there is none to ask, which is no incident.
        if gpu >= 0 and "*" in reasons and gpu not in lost:
            lost.add(gpu)
            rows_.append(row)
    rows = np.array(rows_, np.int64)
    yield "absences", "error", np.asarray(table["t"])[rows].astype(np.int64), rows


def _text(view: View, source: str, kind: Kind, row: int) -> str:
    if source == "outliers":
        return _outlier(view, row)
    one = getattr(view, source).row(row)
    match source:
        case "samples":
            gpu = f"GPU {one['gpu']}"
            if kind == "throttling":
                words = [word for bit, word in THROTTLE.items() if int(one["throttle"]) & bit]
                return f"{gpu} throttles: {', '.join(words)}"
            return _full(f"{gpu} memory", one["memory_used"], _usable(view.devices[one["gpu"]]))
        case "host":
            return _full("host memory", one["memory_used"], one["memory_total"])
        case "runs":
            return f"run {one['run']} {one['case']} {one['outcome']}" + (f": {one['reason']}" if one["reason"] else "")
        case "log":
            return str(one["text"])
        case "states":
            return "the session failed" + (f": {one['reason']}" if one["reason"] else "")
        case "facts":
            rest: events.CoolDown = one["event"]
            return f"run {rest.run} was taken back ({rest.why}); rested for {elapsed(rest.waited)}"
        case _:
            return f"GPU {one['gpu']}: {one['reasons']['*']}"


def _full(what: str, used: float, total: float | None) -> str:
    share = used / total if total else None
    return f"{what} {percent(share)} full: {size(used)} of {size(total)}"


def _outlier(view: View, row: int) -> str:
    runs = view.runs
    one = runs.row(row)
    same = runs.where(kind="measured", outcome="ok", case=one["case"])
    middle = float(np.median(np.asarray(runs["wall"])[same]))
    times = f", {one['wall'] / middle:.2f} × the median" if middle else ""
    return f"run {one['run']} {one['case']} took {duration(one['wall'])}{times}"
