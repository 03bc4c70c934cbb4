"""What the machine did while a case was measured: samples within its runs, and who else was there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llava_tui import events
from llava_tui.analysis.measures import Measures
from llava_tui.analysis.statistics import Floats
from llava_tui.session.timeline import View

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def gpus_of(view: View) -> list[int]:
    """The GPUs that the model was on, of those that were watched; empty where it ran on none.

    Known by the UUID of its device; else those that held the worker's memory, or list its process; else the one that
    its device's name numbers, which is a guess: visible devices are counted anew.
    """
    model, samples = view.model, view.samples
    if model is None or model.device.split(":")[0] in ("cpu", "meta", ""):
        return []
    seen = np.asarray(samples["gpu"])
    watched = _distinct(seen)
    held = _distinct(seen[np.asarray(samples["worker_memory"]) > 0])
    places = model.extra.get("device_map")
    spread = isinstance(places, dict) and len({str(place) for place in places.values()}) > 1
    if named := _named(view, model.extra.get("gpu_uuid")):
        return [gpu for gpu in watched if gpu in named or (spread and gpu in held)]
    if held:
        return held
    table, own = view.processes, _workers(view)
    pairs = zip(np.asarray(table["gpu"]).tolist(), table["processes"], strict=True)
    lists = {gpu for gpu, listed in pairs if any(process.pid in own for process in listed)}
    if ours := [gpu for gpu in watched if gpu in lists]:
        return ours
    uuid = model.extra.get("gpu_uuid")
    if uuid and (sliced := [gpu for gpu in watched if gpu in view.devices and view.devices[gpu].mig]):
        return sliced  # A slice has a UUID of its own, and samples only with its GPU.
    number = model.device.partition(":")[2]
    return [int(number)] if number.isdigit() and int(number) in watched else watched[:1]


def _distinct(values: Ints) -> list[int]:
    """In order. They are few, so that one after the other is quicker than sorting."""
    found: list[int] = []
    while values.size and len(found) < 64:
        found.append(int(values[0]))
        values = values[values != found[-1]]
    return sorted([*found, *np.unique(values).tolist()])


def _named(view: View, uuid: object) -> set[int]:
    """GPUs of that UUID, which libraries give with or without what kind of thing it is of ("GPU-", "MIG-")."""
    if not isinstance(uuid, str) or not uuid:
        return set()
    return {gpu for gpu, device in view.devices.items() if _plain(device.uuid) == _plain(uuid)}


def _plain(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")


@dataclass(frozen=True)
class Watched:
    """The samples of the GPUs that the case ran on, and of the host, taken within its measured runs."""

    measures: Measures

    @property
    def view(self) -> View:
        return self.measures.view

    @cached_property
    def gpus(self) -> list[int]:
        """See :func:`gpus_of`."""
        return gpus_of(self.view)

    @cached_property
    def _rows(self) -> Ints:
        samples = self.view.samples
        mask = self.inside(np.asarray(samples["t"])) & np.isin(np.asarray(samples["gpu"]), self.gpus)
        return np.flatnonzero(mask)

    @property
    def n(self) -> int:
        """How many samples of GPUs there are."""
        return int(self._rows.size)

    def column(self, name: str) -> Floats:
        """A column of ``view.samples``, where it is known."""
        values: Floats = np.asarray(self.view.samples[name], dtype=np.float64)[self._rows]
        return values[np.isfinite(values)]

    def inside(self, t: Ints) -> Mask:
        """Which times lie within one of the case's measured runs."""
        starts, walls = self.measures.starts, self.measures.wall
        if not starts.size:
            return np.zeros(t.size, np.bool_)
        # Both are in order. There are more readings than runs, so each run finds its own.
        first = np.searchsorted(t, starts, "left")
        last = np.minimum(np.searchsorted(t, starts + walls, "right"), np.append(first[1:], t.size))
        some = first < last
        edges = np.bincount(first[some], minlength=t.size + 1) - np.bincount(last[some], minlength=t.size + 1)
        within: Mask = np.cumsum(edges[:-1]) > 0
        return within

    def clocks(self) -> tuple[str, Floats]:
        """SM clocks in the device stage that takes longest, whose path comes with them: a clock that differs between
        stages is the work's own, one that differs within a stage is the machine's."""
        paths = [info.path for info in self.view.tree if info.side == "device" and info.path in self.measures.paths]
        longest = max(paths, key=lambda path: float(np.nansum(self.measures.stages[path])), default="")
        if not longest or not self.n:
            return longest, np.zeros(0)
        starts, spans = self.measures.stage(longest, "start"), self.measures.stages[longest]
        known = np.isfinite(starts) & np.isfinite(spans)
        starts, ends = starts[known], (starts + spans)[known]
        t = np.asarray(self.view.samples["t"])[self._rows]
        run = np.searchsorted(starts, t, "right") - 1
        values = np.asarray(self.view.samples["sm_clock_mhz"], dtype=np.float64)[self._rows]
        values = values[(run >= 0) & (t <= ends[run])] if starts.size else values[:0]
        return longest, values[np.isfinite(values)]

    def foreign(self) -> list[events.GpuProcess]:
        """Processes of others that computed on those GPUs while the case was measured; each once, with the most memory
        it was seen to hold. Where our own number is not in the list (containers), those that were there before the
        model was, and those that came after its first run."""
        own, table = _workers(self.view), self.view.processes
        if not table.n or not self.measures.n:
            return []
        first, last = int(self.measures.starts[0]), int(self.measures.starts[-1] + self.measures.wall[-1])
        times, gpus = np.asarray(table["t"]), np.asarray(table["gpu"])
        lists = table["processes"]
        found: dict[int, events.GpuProcess] = {}
        for gpu in self.gpus:
            rows = np.flatnonzero(gpus == gpu)
            during = rows[(times[rows] <= last) & (np.append(times[rows][1:], last + 1) > first)]
            told = any(process.pid in own for row in rows for process in lists[row])
            ours = own if told else self._perhaps_ours(rows, gpu)
            for process in (process for row in during for process in lists[row]):
                if process.pid not in ours:
                    before = found.get(process.pid)
                    if before is None or (process.memory or 0) > (before.memory or 0):
                        found[process.pid] = process
        return list(found.values())

    def _perhaps_ours(self, rows: Ints, gpu: int) -> set[int]:
        runs, table = self.view.runs, self.view.processes
        early = np.asarray(runs["t"])[runs.where(kind=("load", "cold"))]
        until = int(early.max()) if early.size else 0
        seen = {process.pid for row in rows if table["t"][row] <= until for process in table["processes"][row]}
        preflight = self.view.fact(events.Preflight)
        states = preflight.gpus if preflight is not None else []
        before = {process.pid for state in states if state.gpu == gpu for process in state.foreign or []}
        return seen - before

    def unclaimed(self) -> float | None:
        """Bytes of GPU memory in use, median over the runs' samples, that neither the worker nor a listed process
        holds; ``None`` where the worker's own share is not told."""
        worker = np.asarray(self.view.samples["worker_memory"], dtype=np.float64)[self._rows]
        used = np.asarray(self.view.samples["memory_used"], dtype=np.float64)[self._rows]
        rest = (used - worker)[np.isfinite(used - worker)]
        if not rest.size:
            return None
        return float(np.median(rest)) - sum(process.memory or 0 for process in self.foreign())

    def foreign_load(self) -> float | None:
        """The host's load average less what the worker itself makes, median over the runs; ``None`` where it was not
        watched. Of several ranks one is watched, and each taken to make as much."""
        host = self.view.host
        rows = np.flatnonzero(self.inside(np.asarray(host["t"])))
        load = np.asarray(host["load"], dtype=np.float64)[rows]
        own = np.nan_to_num(np.asarray(host["worker_cpu"], dtype=np.float64)[rows]) / 100
        own *= len(self.view.timeline.ranks)
        known = np.isfinite(load)
        return float(np.median((load - own)[known])) if known.any() else None


def _workers(view: View) -> set[int]:
    """The processes that measured: one a rank, and one more each time that the session was resumed."""
    timeline = view.timeline
    loaded = [event for rank in timeline.ranks[1:] for event in timeline.of(rank).at(view.t).models["event"]]
    ranks = {pid for event in loaded if isinstance(pid := event.extra.get("pid"), int)}
    resumed = {event.pid for event in view.facts["event"] if isinstance(event, events.Resumed)}
    return {view.header.pid} | ranks | resumed
