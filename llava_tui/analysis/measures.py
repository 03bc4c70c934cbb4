"""What a case's measured runs gave, a value a run: what statistics, verdicts and trust are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llava_tui.analysis.statistics import Floats, Summary, quantile, summarize
from llava_tui.session.timeline import TableView, Timeline, View

ALL_CASES = "*"
"""Stands for every case's runs together."""
HOST_TICK_NS = 100.0
"""What reading the host's clock costs and so what it can tell apart."""
DEVICE_TICK_NS = 500.0
"""Resolution of an accelerator's event pairs (CUDA Runtime API, cudaEventElapsedTime)."""

FRAMES = "frames"
"""The step that a run without frames has not."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Measures:
    """The measured runs of ``case`` that went well, in the order they ran. Arrays have a value a run, NaN where a run
    has none; times in ns, memory in bytes. What costs something is worked out when it is first asked for."""

    view: View
    case: str
    rows: Ints
    """Which rows of ``view.runs`` they are."""
    runs: Ints
    """Their numbers."""
    whole: Measures | None = None
    """The case's runs in all of the session that was read, of which these are the first: a view of another moment takes
    its values from there, and need not gather or sort them again."""

    @property
    def n(self) -> int:
        return int(self.runs.size)

    def column(self, name: str) -> Floats:
        """A column of ``view.runs``: ``rss``, ``frames``, ``prompt_tokens``, …"""
        return np.asarray(self.view.runs[name], dtype=np.float64)[self.rows]

    @cached_property
    def rounds(self) -> Floats:
        """The round that each run belongs to: what pairs the cases of a session."""
        return self.column("round")

    @cached_property
    def wall(self) -> Floats:
        return self.column("wall")

    @cached_property
    def starts(self) -> Ints:
        """When each run began, ns on the session's clock."""
        return np.asarray(self.view.runs["start"])[self.rows].astype(np.int64)

    @cached_property
    def paths(self) -> list[str]:
        """The steps and stages of a run, in the tree's order."""
        return [info.path for info in self.view.tree if info.path.split(".")[0] != "load"]

    @cached_property
    def _counted(self) -> tuple[Ints, Ints, Ints]:
        """The rows of ``view.stages`` that belong to these runs, in the order of their stages: which, of which stage
        (code), of which run (place)."""
        stages = self.view.stages
        rows, place = self._ranges(stages)
        codes = np.asarray(stages["stage"])[rows]
        # Stage by stage, so that each is a slice; two bytes are sorted far quicker than four.
        order = np.argsort(codes.astype(np.uint16) if codes.max(initial=0) < 1 << 16 else codes, kind="stable")
        return rows[order], codes[order], place[order]

    def _ranges(self, table: TableView) -> tuple[Ints, Ints]:
        """The rows of ``table`` that came with these runs, run after run: which, and of which run (place). Found by the
        runs' times, so that the rest of a large table is not looked at."""
        ends = np.asarray(self.view.runs["t"])[self.rows]
        first = np.searchsorted(table["t"], ends, "left")
        count = np.searchsorted(table["t"], ends, "right") - first
        place = np.arange(self.n).repeat(count)
        rows = np.arange(place.size) + (first - np.cumsum(count) + count).repeat(count)
        # Two runs can end in the same instant where several workers write.
        own = np.asarray(table["run"])[rows] == self.runs[place]
        return (rows, place) if own.all() else (rows[own], place[own])

    def stage(self, path: str, column: str = "duration") -> Floats:
        """A stage's ``duration`` (ns), or the allocator's peak in it (``allocated``, ``reserved``), run by run."""
        if self.whole is not None:
            return self.whole.stage(path, column)[: self.n]
        return self._keep(("stage", path, column), lambda: self._stage(path, column))

    def _stage(self, path: str, column: str) -> Floats:
        values = np.full(self.n, np.nan)
        if self.n:
            rows, codes, place = self._counted
            code = self.view.stages.code("stage", path)
            here = slice(*np.searchsorted(codes, (code, code + 1)))
            values[place[here]] = self.view.stages[column][rows[here]]
        return values

    @cached_property
    def stages(self) -> dict[str, Floats]:
        """Durations by path."""
        return {path: self.stage(path) for path in self.paths}

    @cached_property
    def steps(self) -> list[str]:
        """The top-level paths that these runs went through: on text alone there is none of frames."""
        absent = FRAMES if self.n and not self.column("frames").any() else ""
        return [path for path in self.paths if "." not in path and path != absent]

    @cached_property
    def unaccounted(self) -> Floats:
        """Wall time that is in no step; not known where a step's is not."""
        return self.wall - sum((self.stages[path] for path in self.steps), np.zeros(self.n))

    # --- statistics --------------------------------------------------------------------------------------------------

    def summary(self, path: str, resolution: float = 0.0) -> Summary:
        """:func:`~llava_tui.analysis.statistics.summarize` of a stage's durations, or of the whole run's (``wall``)."""
        return self.summarized(path, partial(_durations, path), resolution)

    def median(self, path: str) -> float | None:
        """Of the same; ``None`` where nothing is known."""
        return self.middle(path, partial(_durations, path))

    def share(self, path: str) -> float | None:
        """Median over the runs of the stage's share of the wall time, 0…1."""
        return self.shared(path, partial(_durations, path))

    def places(self, path: str) -> Ints:
        """The runs whose duration is known, by that duration."""
        return self._places(path, partial(_durations, path))

    def summarized(self, name: str, values: Values, resolution: float = 0.0) -> Summary:
        """Of any ``values`` of these runs. ``name`` stands for that function of them, which looks at each run alone."""
        return summarize(self.values(name, values), resolution, self._ordered(name, values))

    def values(self, name: str, values: Values) -> Floats:
        """They themselves, which are not to be written to."""
        of = self.whole or self
        return of._keep(("values", name), lambda: values(of))[: self.n]

    def middle(self, name: str, values: Values) -> float | None:
        """The median of what is finite of them; ``None`` where nothing is."""
        ordered = self._ordered(name, values)
        return quantile(ordered, 0.5) if ordered.size else None

    def shared(self, name: str, values: Values) -> float | None:
        """The median of their shares of the wall time, 0…1."""

        def shares(of: Measures) -> Floats:
            with np.errstate(divide="ignore", invalid="ignore"):
                return values(of) / of.wall

        return self.middle(f"{name}: share", shares)

    def _ordered(self, name: str, values: Values) -> Floats:
        """What is finite of them, by size. Sorted once for all of the session: of what is in order, a part is too."""
        of = self.whole or self
        if of.n == self.n:
            return of._keep(("ordered", name), lambda: np.sort(_finite(values(of))))
        place = of._places(name, values)
        ordered: Floats = of._keep(("by size", name), lambda: values(of)[place])
        return ordered[place < self.n]

    def _places(self, name: str, values: Values) -> Ints:
        """The runs for which it is known, by size."""
        if self.whole is not None:
            place = self.whole._places(name, values)
            return place if self.whole.n == self.n else place[place < self.n]

        def places() -> Ints:
            all_ = values(self)
            known = np.flatnonzero(np.isfinite(all_))
            return known[np.argsort(all_[known])].astype(np.int32)

        return self._keep(("places", name), places)

    def _keep(self, name: tuple[str, ...], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        kept: dict[tuple[str, ...], NDArray[Any]] = self.__dict__.setdefault("_kept", {})
        if name not in kept:
            made = make()
            made.flags.writeable = False  # it is given out to many
            kept[name] = made
        return kept[name]

    def tick(self, path: str) -> float:
        """What the timer of a stage can tell apart, ns; 0 where there was no timer of ours (simulated, imported)."""
        model = self.view.model
        if self.view.header.provenance in ("simulated", "imported") or model is None:
            return 0.0
        on_device = any(info.path == path and info.side == "device" for info in self.view.tree)
        return DEVICE_TICK_NS if on_device and model.device.split(":")[0] not in ("cpu", "") else HOST_TICK_NS

    # --- tokens ------------------------------------------------------------------------------------------------------

    @cached_property
    def _tokens(self) -> tuple[Ints, Ints, Ints]:
        """When each token of these runs was there (ns), the first token's place of each run, how many each has."""
        if self.whole is not None:
            at, left, count = self.whole._tokens
            return at[: int(count[: self.n].sum())], left[: self.n], count[: self.n]
        rows, place = self._ranges(self.view.tokens)
        count = np.bincount(place, minlength=self.n)
        return np.asarray(self.view.tokens["at"])[rows], np.cumsum(count) - count, count

    @cached_property
    def _first_and_last(self) -> tuple[Ints, Ints]:
        at, left, count = self._tokens
        first, last = np.zeros(self.n, np.int64), np.zeros(self.n, np.int64)
        some = count > 0
        first[some], last[some] = at[left[some]], at[(left + count - 1)[some]]
        return first, last

    @cached_property
    def ttft(self) -> Floats:
        """Time to first token, from the run's start."""
        return np.where(self._tokens[2] > 0, (self._first_and_last[0] - self.starts).astype(np.float64), np.nan)

    @cached_property
    def _decode(self) -> Floats:
        first, last = self._first_and_last
        return np.where(self._tokens[2] > 1, (last - first).astype(np.float64), np.nan)

    @cached_property
    def tpot(self) -> Floats:
        """Time per output token after the first: (t_last − t_first) / (n − 1)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._decode / (self._tokens[2] - 1)

    @cached_property
    def tokens_per_second(self) -> Floats:
        """Of decoding, all sequences of the batch together."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._batch / self.tpot * 1e9

    @cached_property
    def frames_per_second(self) -> Floats:
        """Frames decoded a second of the first step; not known of text only, which has none."""
        if not self.steps:
            return np.full(self.n, np.nan)
        frames = self.column("frames")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(frames > 0, frames, np.nan) / self.stages[self.steps[0]] * 1e9

    @cached_property
    def gaps(self) -> Floats:
        """Inter-token latencies: every gap between neighbouring tokens of a run, of all runs, in order."""
        at, left, count = self._tokens
        if self.whole is not None:
            return self.whole.gaps[: int(np.maximum(count - 1, 0).sum())]
        follows = np.ones(at.size, np.bool_)  # tokens that have one before them in their run
        follows[left[count > 0]] = False
        return np.diff(at, prepend=at[:1])[follows].astype(np.float64)

    @cached_property
    def itl(self) -> Floats:
        """Each run's median inter-token latency."""
        if self.whole is not None:
            return self.whole.itl[: self.n]
        at, left, count = self._tokens
        medians = np.full(self.n, np.nan)
        for length in np.unique(count[count > 1]):  # runs of one length at once
            of_length = np.flatnonzero(count == length)
            gaps = np.diff(at[left[of_length, None] + np.arange(length)], axis=1)
            medians[of_length] = np.median(gaps, axis=1)
        return medians

    @cached_property
    def _batch(self) -> Floats:
        """Sequences of each run; NaN where the session does not say."""
        if self.case != ALL_CASES:
            return np.full(self.n, _batch_of(self.view, self.case))
        runs = self.view.runs
        by_code = np.array([_batch_of(self.view, name) for name in runs.names("case")] or [np.nan])
        of_runs: Floats = by_code[np.asarray(runs["case"])[self.rows]]
        return of_runs


Values = Callable[[Measures], Floats]
"""Something that every run has its own value of."""


def _durations(path: str, of: Measures) -> Floats:
    return of.wall if path == "wall" else of.stage(path)


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def measures(view: View, case: str) -> Measures:
    """The measured runs of ``case`` (:data:`ALL_CASES`: of every case) that had ended well by ``view.t``. Kept with the
    view: the table, trust, and fits of a case are made of the same values."""
    kept: dict[str, Measures] = view.__dict__.setdefault("_measures", {})
    if case not in kept:
        kept[case] = _first(view, case) or _measures(view, case)
    return kept[case]


def _first(view: View, case: str) -> Measures | None:
    """By what is kept of the whole session; ``None`` where the view is not of the beginning of that: stages have become
    others since, or a run that is told of late has come in between."""
    timeline, runs = view.timeline, view.runs
    last = runs.n - 1
    same = view.trees.n == timeline.trees.n and runs.n <= timeline.runs.n
    if not same or (runs.n and any(runs[name][last] != timeline.runs[name][last] for name in ("t", "run"))):
        return None
    whole = _whole(timeline, case)
    n = int(np.searchsorted(whole.rows, runs.n))
    return Measures(view, case, whole.rows[:n], whole.runs[:n], whole)


def _whole(timeline: Timeline, case: str) -> Measures:
    """Of all that was read; kept with the timeline until more is."""
    stamp = timeline.runs.n, timeline.trees.n
    known: tuple[object, dict[str, Measures]] = timeline.__dict__.get("_measures", (None, {}))
    if known[0] != stamp:
        known = timeline.__dict__["_measures"] = (stamp, {})
    if case not in known[1]:
        known[1][case] = _measures(timeline.now(), case)
    return known[1][case]


def _measures(view: View, case: str) -> Measures:
    wanted = view.runs.where(kind="measured", outcome="ok")
    if case != ALL_CASES:
        wanted &= view.runs.where(case=case)
    rows = np.flatnonzero(wanted)
    return Measures(view, case, rows, np.asarray(view.runs["run"])[rows])


def case_values(view: View, case: str) -> dict[str, int | float | str]:
    """A case's place on every axis, by the newest schedule that has it: a case that failed is in earlier ones only.
    Empty where none tells."""
    for schedule in reversed(view.schedules["event"]):
        for each in schedule.cases:
            if each.id == case:
                return dict(each.values)
    return {}


def _batch_of(view: View, case: str) -> float:
    batch = case_values(view, case).get("batch")
    return float(batch) if isinstance(batch, (int, float)) else float("nan")


def known_sum(columns: Iterable[Floats], size: int) -> Floats:
    """What is known of them, added; a stage that could not be told apart stays in the remainder."""
    total = np.zeros(size)
    for column in columns:
        total += np.nan_to_num(column)
    return total


def median(values: Floats) -> float | None:
    """Of what is finite; ``None`` where nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def median_of(values: Iterable[float | None]) -> float | None:
    """Of what is known."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
