"""How events become rows: the columns of each table, filled from a batch of events of each type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, get_args

import msgspec
import numpy as np

from llava_tui import events
from llava_tui.session.columns import Array, Repeated, Values
from llava_tui.session.reader import safe_struct, safe_text, safe_values

Columns = dict[str, Values]
Rows = tuple[str, Columns, int]
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
    "facts": "t:i name:c event:o",
}
"""Every table's columns, as :class:`~llava_tui.session.columns.Table` takes them."""

Starts = dict[tuple[int, int], events.RunStart]
_NO_START = events.RunStart(t=0, run=0, kind="")
"""Stands in where a run's start was lost."""


def rows(batch: list[Any], starts: Starts) -> Iterator[Rows]:
    """The rows that ``batch`` (events of one stream, in its order) adds to each table.

    ``starts`` holds the newest start of each run by rank and number, and is kept up to date.
    """
    found: dict[type, list[Any]] = {kind: [] for kind in get_args(events.AnyEvent)}
    put = {kind: some.append for kind, some in found.items()}
    runs: list[Any] = []  # their starts and ends, in the order they came
    put[events.RunStart] = put[events.RunEnd] = runs.append
    facts: list[Any] = []
    put.update(dict.fromkeys(get_args(events.SessionFact), facts.append))
    for event in batch:
        put[type(event)](event)
    ended: list[tuple[events.RunEnd, events.RunStart]] = []
    for event in runs:
        if type(event) is events.RunEnd:
            ended.append((event, starts.get((event.rank, event.run), _NO_START)))
        else:
            starts[event.rank, event.run] = event
            found[events.RunStart].append(event)
    for kind, (name, columns) in _TABLES.items():
        if some := found[kind]:
            yield name, columns(some), len(some)
    some = [event for event in found[events.GpuSample] if event.processes is not None]
    if some:
        yield "processes", _processes(some), len(some)
    if facts:
        yield "facts", _facts(facts), len(facts)
    if ended:
        yield from _run_rows(ended)


# A comprehension a column: several times faster than any general way to the same.


def _states(some: list[events.StateChange]) -> Columns:
    return {"t": [e.t for e in some], "state": [e.state for e in some], "reason": [safe_text(e.reason) for e in some]}


def _started(some: list[events.RunStart]) -> Columns:
    return {
        "t": [e.t for e in some],
        "run": [e.run for e in some],
        "kind": [e.kind for e in some],
        "case": [e.case for e in some],
        "round": [e.round for e in some],
        "seed": [e.seed for e in some],
        "item": [e.item for e in some],
    }


def _stage_hints(some: list[events.StageHint]) -> Columns:
    return {"t": [e.t for e in some], "run": [e.run for e in some], "stage": [e.stage for e in some]}


def _text_hints(some: list[events.TextHint]) -> Columns:
    texts = [e.text for e in some]
    return {
        "t": [e.t for e in some],
        "run": [e.run for e in some],
        "tokens": [e.tokens for e in some],
        "text": texts if "".join(texts).isprintable() else [safe_text(text) for text in texts],
    }


def _samples(some: list[events.GpuSample]) -> Columns:
    return {
        "t": [e.t for e in some],
        "gpu": [e.gpu for e in some],
        "memory_used": [e.memory_used for e in some],
        "utilization": [e.utilization for e in some],
        "memory_utilization": [e.memory_utilization for e in some],
        "power_mw": [e.power_mw for e in some],
        "power_limit_mw": [e.power_limit_mw for e in some],
        "energy_mj": [e.energy_mj for e in some],
        "temperature_c": [e.temperature_c for e in some],
        "sm_clock_mhz": [e.sm_clock_mhz for e in some],
        "memory_clock_mhz": [e.memory_clock_mhz for e in some],
        "throttle": [e.throttle for e in some],
        "pcie_tx_kbs": [e.pcie_tx_kbs for e in some],
        "pcie_rx_kbs": [e.pcie_rx_kbs for e in some],
        "worker_memory": [e.worker_memory for e in some],
    }


def _processes(some: list[events.GpuSample]) -> Columns:
    return {
        "t": [e.t for e in some],
        "gpu": [e.gpu for e in some],
        "processes": [_safe_processes(e.processes or []) for e in some],
    }


def _absences(some: list[events.GpuAbsent]) -> Columns:
    return {"t": [e.t for e in some], "gpu": [e.gpu for e in some], "reasons": [safe_values(e.reasons) for e in some]}


def _host(some: list[events.HostSample]) -> Columns:
    return {
        "t": [e.t for e in some],
        "cpu": [e.cpu for e in some],
        "memory_used": [e.memory_used for e in some],
        "memory_total": [e.memory_total for e in some],
        "load": [e.load for e in some],
        "worker_cpu": [e.worker_cpu for e in some],
        "worker_rss": [e.worker_rss for e in some],
    }


def _log(some: list[events.Log]) -> Columns:
    return {
        "t": [e.t for e in some],
        "level": [e.level for e in some],
        "source": [e.source for e in some],
        "text": [safe_text(e.text) for e in some],
    }


def _answers(some: list[events.Answer]) -> Columns:
    return {
        "t": [e.t for e in some],
        "id": [safe_text(e.id) for e in some],
        "verb": [e.verb for e in some],
        "accepted": [e.accepted for e in some],
        "text": [safe_text(e.text) for e in some],
        "author": [safe_text(e.author) for e in some],
    }


def _whole(some: list[Any]) -> Columns:
    return {"t": [e.t for e in some], "event": [safe_struct(e) for e in some]}


def _facts(some: list[Any]) -> Columns:
    return {
        "t": [e.t for e in some],
        "name": [type(e).__struct_config__.tag for e in some],
        "event": [safe_struct(e) for e in some],
    }


_TABLES: dict[type, tuple[str, Callable[[list[Any]], Columns]]] = {
    events.StateChange: ("states", _states),
    events.RunStart: ("started", _started),
    events.StageHint: ("stage_hints", _stage_hints),
    events.TextHint: ("text_hints", _text_hints),
    events.GpuSample: ("samples", _samples),
    events.GpuAbsent: ("absences", _absences),
    events.HostSample: ("host", _host),
    events.Log: ("log", _log),
    events.Answer: ("answers", _answers),
    events.Schedule: ("schedules", _whole),
    events.ModelFacts: ("models", _whole),
    events.StageTree: ("trees", _whole),
    events.GpuDevice: ("devices", _whole),
}
"""Of which event which table is made, a row an event. What comes of runs that ended: :func:`_run_rows`."""


def _safe_processes(processes: list[events.GpuProcess]) -> list[events.GpuProcess]:
    return [msgspec.structs.replace(process, kind=safe_text(process.kind)) for process in processes]


def _run_rows(ended: list[tuple[events.RunEnd, events.RunStart]]) -> Iterator[Rows]:
    ends = [end for end, _ in ended]
    begun = [start for _, start in ended]
    t = np.fromiter([e.t for e in ends], np.int64, len(ends))
    run = np.fromiter([e.run for e in ends], np.int64, len(ends))
    origin = np.fromiter([e.start for e in ends], np.int64, len(ends))
    kinds = [end.kind or start.kind for end, start in ended]
    cases = [e.case for e in begun]
    rounds = [e.round for e in begun]
    outcomes = [e.outcome for e in ends]
    n = np.array([len(e.stages) for e in ends])
    total = int(n.sum())
    starts = chain.from_iterable([_fitted(e.starts, e.stages) for e in ends])
    offset = np.fromiter([0 if start is None else start for start in starts], np.int64, total)
    yield (
        "stages",
        {
            "t": Repeated(t, n),
            "run": Repeated(run, n),
            "kind": Repeated(kinds, n),
            "case": Repeated(cases, n),
            "round": Repeated(rounds, n),
            "outcome": Repeated(outcomes, n),
            "stage": chain.from_iterable([e.stages for e in ends]),
            "start": origin.repeat(n) + offset,
            "duration": chain.from_iterable([_fitted(e.durations, e.stages) for e in ends]),
            "allocated": chain.from_iterable([_fitted(e.allocated, e.stages) for e in ends]),
            "reserved": chain.from_iterable([_fitted(e.reserved, e.stages) for e in ends]),
        },
        total,
    )
    n = np.array([len(e.token_times) for e in ends])
    total = int(n.sum())
    after = np.fromiter(chain.from_iterable([e.token_times for e in ends]), np.int64, total)
    yield (
        "tokens",
        {
            "t": Repeated(t, n),
            "run": Repeated(run, n),
            "index": _counted(n),
            "at": origin.repeat(n) + after,
            "id": chain.from_iterable([_fitted(_first(e.token_ids), e.token_times, -1) for e in ends]),
            "kind": Repeated(kinds, n),
            "case": Repeated(cases, n),
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
            "item": [e.item for e in begun],
            "outcome": outcomes,
            "reason": [safe_text(e.reason) for e in ends],
            "start": origin,
            "wall": [e.wall for e in ends],
            "rss": [e.rss for e in ends],
            "frames": [e.frames for e in ends],
            "prompt_tokens": [e.prompt_tokens for e in ends],
            "image_tokens": [e.image_tokens for e in ends],
            "new_tokens": [len(_first(e.token_ids)) for e in ends],
            "text": [[safe_text(text) for text in e.text] for e in ends],
            "token_ids": [e.token_ids for e in ends],
            "facts": [safe_values(e.facts) for e in ends],
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


def _counted(n: Array) -> Array:
    """0, 1, 2 … anew for each of the counts ``n``."""
    ends = n.cumsum()
    counted: Array = np.arange(int(n.sum())) - (ends - n).repeat(n)
    return counted
