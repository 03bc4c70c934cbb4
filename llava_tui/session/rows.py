"""How events become rows: the columns of each table, filled from a batch of events of each type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from llava_tui import events
from llava_tui.session.columns import Array
from llava_tui.session.reader import safe_struct, safe_text, safe_values

Rows = tuple[str, dict[str, Iterable[Any]], int]
"""A table's name, values by column, how many."""

_SAMPLE = (
    "memory_used utilization memory_utilization power_mw power_limit_mw energy_mj temperature_c sm_clock_mhz "
    "memory_clock_mhz throttle pcie_tx_kbs pcie_rx_kbs worker_memory"
)
_HOST = "cpu memory_used memory_total load worker_cpu worker_rss"

COLUMNS: dict[str, str] = {
    "states": "t:i state:c reason:o",
    "started": "t:i run:i kind:c case:c round:f seed:i item:c",
    "runs": "t:i run:i kind:c case:c round:f item:c outcome:c reason:o start:i wall:i rss:f frames:f prompt_tokens:f "
    "image_tokens:f new_tokens:i text:o token_ids:o facts:o",
    "stages": "t:i run:i kind:c case:c round:f outcome:c stage:c start:i duration:f allocated:f reserved:f",
    "tokens": "t:i run:i index:i at:i id:i kind:c case:c",
    "stage_hints": "t:i run:i stage:c",
    "text_hints": "t:i run:i tokens:i text:o",
    "samples": "t:i gpu:i " + " ".join(f"{column}:f" for column in _SAMPLE.split()),
    "processes": "t:i gpu:i processes:o",
    "absences": "t:i gpu:i reasons:o",
    "host": "t:i " + " ".join(f"{column}:f" for column in _HOST.split()),
    "log": "t:i level:c source:c text:o",
    "answers": "t:i id:o verb:c accepted:i text:o author:o",
    "schedules": "t:i event:o",
    "models": "t:i event:o",
    "trees": "t:i event:o",
    "devices": "t:i event:o",
}
"""Every table's columns, as :class:`~llava_tui.session.columns.Table` takes them."""

_ATTRIBUTES: dict[type, str] = {
    events.StateChange: "states",
    events.RunStart: "started",
    events.StageHint: "stage_hints",
    events.TextHint: "text_hints",
    events.GpuSample: "samples",
    events.HostSample: "host",
    events.Log: "log",
    events.Answer: "answers",
}
"""Tables whose columns are their events' attributes."""
_WHOLE: dict[type, str] = {
    events.Schedule: "schedules",
    events.ModelFacts: "models",
    events.StageTree: "trees",
    events.GpuDevice: "devices",
}
"""Tables that keep their events whole."""

Starts = dict[tuple[int, int], events.RunStart]
_NO_START = events.RunStart(t=0, run=0, kind="")
"""Stands in where a run's start was lost."""


def rows(batch: list[Any], starts: Starts) -> Iterator[Rows]:
    """The rows that ``batch`` (events of one stream, in its order) adds to each table.

    ``starts`` holds the newest start of each run by rank and number, and is kept up to date.
    """
    found: dict[type, list[Any]] = defaultdict(list)
    ended: list[tuple[events.RunEnd, events.RunStart]] = []
    for event in batch:
        kind = type(event)
        found[kind].append(event)
        if kind is events.RunStart:
            starts[event.rank, event.run] = event
        elif kind is events.RunEnd:
            ended.append((event, starts.get((event.rank, event.run), _NO_START)))
    for kind, some in found.items():
        if name := _ATTRIBUTES.get(kind):
            yield name, _attributes(name, some), len(some)
        elif name := _WHOLE.get(kind):
            yield name, {"t": _each(some, "t"), "event": map(safe_struct, some)}, len(some)
    some = found[events.GpuAbsent]
    if some:
        reasons = (safe_values(event.reasons) for event in some)
        yield "absences", {"t": _each(some, "t"), "gpu": _each(some, "gpu"), "reasons": reasons}, len(some)
    some = [event for event in found[events.GpuSample] if event.processes is not None]
    if some:
        processes = (_safe_processes(event.processes) for event in some)
        yield "processes", {"t": _each(some, "t"), "gpu": _each(some, "gpu"), "processes": processes}, len(some)
    if ended:
        yield from _run_rows(ended)


def _each(some: Iterable[Any], attribute: str) -> Iterable[Any]:
    return map(attrgetter(attribute), some)


def _attributes(name: str, some: list[Any]) -> dict[str, Iterable[Any]]:
    values: dict[str, Iterable[Any]] = {}
    for column in COLUMNS[name].split():
        attribute, kind = column.split(":")
        each = _each(some, attribute)
        values[attribute] = map(safe_text, each) if kind == "o" else each
    return values


def _safe_processes(processes: list[events.GpuProcess]) -> list[events.GpuProcess]:
    return [msgspec.structs.replace(process, kind=safe_text(process.kind)) for process in processes]


def _run_rows(ended: list[tuple[events.RunEnd, events.RunStart]]) -> Iterator[Rows]:
    ends = [end for end, _ in ended]
    begun = [start for _, start in ended]
    t = np.fromiter(_each(ends, "t"), np.int64, len(ends))
    run = np.fromiter(_each(ends, "run"), np.int64, len(ends))
    origin = np.fromiter(_each(ends, "start"), np.int64, len(ends))
    kinds = [start.kind for start in begun]
    cases = [start.case for start in begun]
    rounds = [start.round for start in begun]
    outcomes = [end.outcome for end in ends]
    # Spans come before the runs they belong to are told of, so that no number that does not fit is half-kept.
    n = np.array([len(end.stages) for end in ends])
    total = int(n.sum())
    offset = np.fromiter((s or 0 for end in ends for s in _fitted(end.starts, end.stages)), np.int64, total)
    yield (
        "stages",
        {
            "t": t.repeat(n),
            "run": run.repeat(n),
            "kind": _spread(kinds, n),
            "case": _spread(cases, n),
            "round": _spread(rounds, n),
            "outcome": _spread(outcomes, n),
            "stage": chain.from_iterable(_each(ends, "stages")),
            "start": origin.repeat(n) + offset,
            "duration": (d for end in ends for d in _fitted(end.durations, end.stages)),
            "allocated": (a for end in ends for a in _fitted(end.allocated, end.stages)),
            "reserved": (r for end in ends for r in _fitted(end.reserved, end.stages)),
        },
        total,
    )
    n = np.array([len(end.token_times) for end in ends])
    total = int(n.sum())
    after = np.fromiter(chain.from_iterable(_each(ends, "token_times")), np.int64, total)
    yield (
        "tokens",
        {
            "t": t.repeat(n),
            "run": run.repeat(n),
            "index": _counted(n),
            "at": origin.repeat(n) + after,
            "id": (id_ for end in ends for id_ in _fitted(_first(end.token_ids), end.token_times, -1)),
            "kind": _spread(kinds, n),
            "case": _spread(cases, n),
        },
        total,
    )
    yield (
        "runs",
        {
            "t": t,
            "run": run,
            "kind": kinds,
            "case": cases,
            "round": rounds,
            "item": _each(begun, "item"),
            "outcome": outcomes,
            "reason": map(safe_text, _each(ends, "reason")),
            "start": origin,
            "wall": _each(ends, "wall"),
            "rss": _each(ends, "rss"),
            "frames": _each(ends, "frames"),
            "prompt_tokens": _each(ends, "prompt_tokens"),
            "image_tokens": _each(ends, "image_tokens"),
            "new_tokens": (len(_first(end.token_ids)) for end in ends),
            "text": ([safe_text(text) for text in end.text] for end in ends),
            "token_ids": _each(ends, "token_ids"),
            "facts": map(safe_values, _each(ends, "facts")),
        },
        len(ends),
    )


def _fitted(values: list[Any], to: list[Any], missing: Any = None) -> list[Any]:
    """``values``, cut or filled up to the length of ``to``."""
    if len(values) == len(to):
        return values
    return values[: len(to)] + [missing] * (len(to) - len(values))


def _first(sequences: list[list[int]]) -> list[int]:
    return sequences[0] if sequences else []


def _spread(values: list[Any], n: Array) -> Iterable[Any]:
    """Each value as often as ``n`` says."""
    return chain.from_iterable([value] * count for value, count in zip(values, n.tolist(), strict=True))


def _counted(n: Array) -> Array:
    """0, 1, 2 … anew for each of the counts ``n``."""
    ends = n.cumsum()
    counted: Array = np.arange(int(n.sum())) - (ends - n).repeat(n)
    return counted
