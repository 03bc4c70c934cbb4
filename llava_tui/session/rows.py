"""How events become rows: the columns of each table, filled from a batch of events of each type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, get_args

import msgspec
import numpy as np

from llava_tui import events
from llava_tui.session.pieces import Array, Joined, Repeated, Values, integers
from llava_tui.session.reader import safe_struct, safe_text, safe_values

Columns = Mapping[str, Values]
Rows = tuple[str, Columns, int]
"""A table's name, values by column, how many."""

_SAMPLE = (
    "memory_used utilization memory_utilization power_mw power_limit_mw energy_mj temperature_c sm_clock_mhz "
    "memory_clock_mhz throttle pcie_tx_kbs pcie_rx_kbs worker_memory"
)
_HOST = "cpu memory_used memory_total load worker_cpu worker_rss"

COLUMNS: dict[str, str] = {
    "states": "t:i state:c reason:o",
    "started": "t:i run:i kind:c case:c round:f seed:i item:c items:p",
    "runs": "t:i run:i kind:c case:c round:f item:c items:p outcome:c reason:o start:i wall:i rss:f frames:f "
    "prompt_tokens:f image_tokens:f new_tokens:i text:p token_ids:p facts:p",
    "stages": "t:i run:i kind:c case:c round:f outcome:c stage:c start:i duration:f allocated:f reserved:f "
    "rss:f rss_peak:f",
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
BY_RANK = ("states", "started", "runs", "stages", "tokens", "stage_hints", "text_hints", "models")
"""Tables of which each rank has its own: runs of different ranks have the same numbers."""
COLUMNS |= {name: f"{COLUMNS[name]} rank:i" for name in (*BY_RANK, "log")}

Starts = dict[tuple[int, int], events.RunStart]
_NO_START = events.RunStart(t=0, run=0, kind="")
"""Stands in where a run's start was lost."""

_FIELDS: dict[type, tuple[str, tuple[str, ...]]] = {
    events.StateChange: ("states", ("reason",)),
    events.RunStart: ("started", ()),
    events.StageHint: ("stage_hints", ()),
    events.TextHint: ("text_hints", ("text",)),
    events.GpuSample: ("samples", ()),
    events.HostSample: ("host", ()),
    events.Log: ("log", ("text",)),
    events.Answer: ("answers", ("id", "text", "author")),
}
"""Of which event which table is made, a row an event and its columns the event's fields; and which of them are texts
(categories are made safe by their vocabulary)."""
_WHOLE: dict[type, str] = {
    events.Schedule: "schedules",
    events.ModelFacts: "models",
    events.StageTree: "trees",
    events.GpuDevice: "devices",
}
"""Of which event which table of whole events is made."""


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
    begun: list[events.RunStart] = []  # of the runs that ended
    for event in runs:
        if type(event) is events.RunEnd:
            found[events.RunEnd].append(event)
            begun.append(starts.get((event.rank, event.run), _NO_START))
        else:
            starts[event.rank, event.run] = event
            found[events.RunStart].append(event)
    for kind, (name, texts) in _FIELDS.items():
        if some := found[kind]:
            columns = _fields(some)
            yield name, columns | {column: _safe_texts(columns[column]) for column in texts}, len(some)
    for kind, name in _WHOLE.items():
        if some := found[kind]:
            yield name, {"t": [e.t for e in some], "event": [safe_struct(e) for e in some]}, len(some)
    if facts:
        columns = {"name": [type(e).__struct_config__.tag for e in facts], "event": [safe_struct(e) for e in facts]}
        yield "facts", {"t": [e.t for e in facts], **columns}, len(facts)
    if some := found[events.GpuAbsent]:
        columns = _fields(some)
        yield "absences", columns | {"reasons": [safe_values(reasons) for reasons in columns["reasons"]]}, len(some)
    if some := [event for event in found[events.GpuSample] if event.processes is not None]:
        columns = _fields(some)
        yield "processes", columns | {"processes": [_safe_processes(told) for told in columns["processes"]]}, len(some)
    if some := found[events.RunEnd]:
        yield from _run_rows(_fields(some), _fields(begun), len(some))


def _fields(some: Sequence[msgspec.Struct]) -> dict[str, Sequence[Any]]:
    """The values of events of one type by field, in their order."""
    return dict(zip(some[0].__struct_fields__, zip(*map(msgspec.structs.astuple, some), strict=True), strict=True))


def _safe_texts(texts: Sequence[str]) -> Sequence[str]:
    # Nearly all are safe already, and looked at together that is told at once.
    return texts if "".join(texts).isprintable() else [safe_text(text) for text in texts]


def _safe_processes(processes: list[events.GpuProcess]) -> list[events.GpuProcess]:
    return [msgspec.structs.replace(process, kind=safe_text(process.kind)) for process in processes]


_BY_STAGE = (
    ("duration", "durations"),
    ("allocated", "allocated"),
    ("reserved", "reserved"),
    ("rss", "rss_stages"),
    ("rss_peak", "rss_peaks"),
)
"""Columns of the stages table, and the lists of a run's end that they come from."""


def _run_rows(end: dict[str, Sequence[Any]], begun: dict[str, Sequence[Any]], count: int) -> Iterator[Rows]:
    t, run, origin = (integers(end[field]) for field in ("t", "run", "start"))
    kinds = [own or first for own, first in zip(end["kind"], begun["kind"], strict=True)]
    lengths = list(map(len, end["stages"]))
    n = np.array(lengths)
    yield (
        "stages",
        {
            "t": Repeated(t, n),
            "run": Repeated(run, n),
            "kind": Repeated(kinds, n),
            "case": Repeated(begun["case"], n),
            "round": Repeated(begun["round"], n),
            "outcome": Repeated(end["outcome"], n),
            "stage": Joined(end["stages"]),
            "start": origin.repeat(n) + _offsets(end["starts"], lengths),
            **{column: _fitted(end[field], lengths) for column, field in _BY_STAGE},
        },
        sum(lengths),
    )
    first = [sequences[0] if sequences else [] for sequences in end["token_ids"]]
    lengths = list(map(len, end["token_times"]))
    n = np.array(lengths)
    yield (
        "tokens",
        {
            "t": Repeated(t, n),
            "run": Repeated(run, n),
            "index": _counted(n),
            "at": origin.repeat(n) + integers(list(chain.from_iterable(end["token_times"]))),
            "id": _fitted(first, lengths, -1),
            "kind": Repeated(kinds, n),
            "case": Repeated(begun["case"], n),
        },
        sum(lengths),
    )
    yield (
        "runs",
        {
            **end,
            "t": t,
            "run": run,
            "start": origin,
            "kind": kinds,
            "case": begun["case"],
            "round": begun["round"],
            "item": begun["item"],
            "items": begun["items"],
            "reason": _safe_texts(end["reason"]),
            "new_tokens": list(map(len, first)),
            "text": [_safe_texts(texts) for texts in end["text"]],
            "facts": [safe_values(facts) if facts else facts for facts in end["facts"]],
        },
        count,
    )


def _fitted(lists: Sequence[list[Any]], lengths: list[int], missing: Any = None) -> Sequence[Any] | Repeated:
    """The values of ``lists`` one after the other, each list cut or filled up to its length."""
    if list(map(len, lists)) == lengths:
        return list(chain.from_iterable(lists))
    if not any(lists):  # as where there is no accelerator
        return Repeated([missing], np.array([sum(lengths)]))
    return [
        value
        for values, length in zip(lists, lengths, strict=True)
        for value in values[:length] + [missing] * (length - len(values))
    ]


def _offsets(starts: Sequence[list[int | None]], lengths: list[int]) -> Array:
    """0 where it is not known."""
    fitted = _fitted(starts, lengths, 0)
    if isinstance(fitted, Repeated):
        return np.zeros(sum(lengths), np.int64)
    try:
        return integers(fitted)
    except TypeError:
        return integers([start or 0 for start in fitted])


def _counted(n: Array) -> Array:
    """0, 1, 2 … anew for each of the counts ``n``."""
    ends = n.cumsum()
    counted: Array = np.arange(int(n.sum())) - (ends - n).repeat(n)
    return counted
