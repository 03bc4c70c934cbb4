"""A session as columns ordered by time: everything that a screen or a report shows is a function of a view of it.

``Timeline.open(path)`` reads what there is, ``poll()`` what is new, ``at(t)`` looks at the session as it was at ``t``.
The columns of each table are in ``rows.py``, the kinds of columns in ``columns.py``.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from llava_tui import events
from llava_tui.session.columns import Table, TableView
from llava_tui.session.pieces import Array, Repeated, without_collector
from llava_tui.session.reader import EVENTS, SessionError, StreamReader, rank_of, read_header, stream_paths
from llava_tui.session.rows import BY_RANK, COLUMNS, Starts, rows

__all__ = ["Table", "TableView", "Timeline", "View"]

_HINTS = {"stage_hints": "stage", "text_hints": "text"}
"""The tables of hints, and the types of their events."""
_INT64 = np.iinfo(np.int64)
F = TypeVar("F", bound=events.Event)


class Passed(msgspec.Struct, frozen=True):
    """How far a stream has been read, and what of it was none of ours."""

    name: str
    size: int
    corrupt: int
    unknown: int


class Reading(msgspec.Struct, frozen=True):
    """How far a session has been read."""

    end: int | None
    """The newest event's ``t``."""
    unfit: int
    """Events with a number that fits nowhere."""
    streams: list[Passed]


class Timeline:
    """A session, read into tables. The tables grow with :meth:`poll`; look through :meth:`at` for a picture that holds.

    Where several ranks measured, the tables hold the rows of all, each with its ``rank``. A picture is of one rank, for
    runs of different ranks have the same numbers: of rank 0, or of the one that :meth:`of` gives.

    All text in them is safe to draw (see :func:`~llava_tui.session.reader.safe_text`); it is never markup.
    """

    def __init__(self, path: Path, hints: bool = True) -> None:
        """Use :meth:`open`, which reads as well."""
        self.path = Path(path)
        self.hints = hints
        """Whether ``stage_hints`` and ``text_hints`` are read; they are empty otherwise."""
        self.header = read_header(self.path)
        self._forget()
        self.states = Table(COLUMNS["states"])
        self.started = Table(COLUMNS["started"])
        """Runs that began."""
        self.runs = Table(COLUMNS["runs"])
        """Runs that ended, with what their start said. ``start`` is absolute; ``new_tokens`` of the first sequence."""
        self.stages = Table(COLUMNS["stages"])
        """A row a stage of every run that ended. ``start`` is absolute, the run's own where it is not known."""
        self.tokens = Table(COLUMNS["tokens"])
        """A row a decode step of every run that ended. ``at`` is absolute; ``id`` the first sequence's, −1 unknown."""
        self.stage_hints = Table(COLUMNS["stage_hints"])
        self.text_hints = Table(COLUMNS["text_hints"])
        self.samples = Table(COLUMNS["samples"])
        self.processes = Table(COLUMNS["processes"])
        self.absences = Table(COLUMNS["absences"])
        self.host = Table(COLUMNS["host"])
        self.log = Table(COLUMNS["log"])
        self.answers = Table(COLUMNS["answers"])
        self.schedules = Table(COLUMNS["schedules"])
        self.models = Table(COLUMNS["models"])
        self.trees = Table(COLUMNS["trees"])
        self.devices = Table(COLUMNS["devices"])
        self.facts = Table(COLUMNS["facts"])
        """What the worker found out about the session itself; :meth:`View.fact` gives the newest of a type."""
        self.tables: dict[str, Table] = {name: getattr(self, name) for name in COLUMNS}

    def _forget(self) -> None:
        self._readers: list[StreamReader] = []
        self._order: Array = np.empty(0, np.int64)
        self._starts: dict[int, Starts] = {}  # by stream: a run ends in the one it began in
        self._unfit = 0
        self._end: int | None = None
        self._restored = False
        self._ranks: dict[int, OneRank] = {}
        """Where there are several."""

    @classmethod
    def open(cls, path: Path, hints: bool = True) -> Timeline:
        """The session in folder ``path``, as far as it has been written. Nothing is written, nothing is kept open.

        Hints drive a picture and enter no statistic; without ``hints`` they are passed over, which is several times
        faster where there are many. All else is as with them, but that ``corrupt`` leaves out damaged hints.

        Raises :class:`~llava_tui.session.reader.SessionError` for what is no session or from a newer major version.
        """
        timeline = cls(path, hints)
        with without_collector():
            timeline.poll()
        return timeline

    @property
    def start(self) -> int:
        """``t`` at which the session began, ns."""
        return self.header.t0

    @property
    def end(self) -> int:
        """The newest event's ``t``, ns; the start where there is none."""
        return self.header.t0 if self._end is None else self._end

    @property
    def corrupt(self) -> int:
        """Lines that could not be read and were skipped."""
        return self._unfit + sum(reader.corrupt for reader in self._readers)

    @property
    def unknown(self) -> int:
        """Events of types that a newer minor version wrote; ignored."""
        return sum(reader.unknown for reader in self._readers)

    def poll(self) -> bool:
        """Reads what is new; whether anything was."""
        self._find_streams()
        if self._restored:
            if not any(reader.changed() for reader in self._readers):
                return False
            self._forget()
            for table in self.tables.values():
                table.clear()
            self._find_streams()
        found = False
        for source, reader in enumerate(self._readers):
            for batch in reader.batches():
                if batch:
                    self._take_in(batch, source)
                    found = True
                del batch  # before the next one is decoded: one at a time fits the cache
        if found:
            for table in self.tables.values():
                table.settle(self._order)
            for one in self._ranks.values():
                for name in BY_RANK:
                    one.tables[name].settle(self._order)
        return found

    @property
    def reading(self) -> Reading:
        """How far the streams have been read."""
        streams = [Passed(one.path.name, one.seen, one.corrupt, one.unknown) for one in self._readers]
        return Reading(self._end, self._unfit, streams)

    def restore(self, reading: Reading) -> None:
        """Takes over how far another timeline of this session had been read, once its tables have been
        (:meth:`~llava_tui.session.columns.Table.restore`). If the streams have changed, :meth:`poll` reads all anew."""
        self._end, self._unfit = reading.end, reading.unfit
        self._find_streams()
        passed = {one.name: one for one in reading.streams}
        for reader in self._readers:
            if (one := passed.get(reader.path.name)) is not None:
                reader.restore(one.size, one.corrupt, one.unknown)
        self._restored = True

    def at(self, t: int) -> View:
        """The session as it was at ``t`` (ns): every event with ``event.t <= t``, and nothing later; of several ranks,
        as rank 0 tells it."""
        return View(self._ranks.get(0, self), t)

    def now(self) -> View:
        """The session as it is: everything that has been read."""
        return self.at(self.end)

    @property
    def ranks(self) -> list[int]:
        """The ranks that have told anything, ascending; rank 0 is always among them."""
        return sorted(self._ranks) or [0]

    def of(self, rank: int) -> Timeline:
        """The session as that rank tells it: what it ran, and what is the session's, such as telemetry. Raises
        :class:`~llava_tui.session.reader.SessionError` for one that it does not have."""
        if rank not in self.ranks:
            raise SessionError(f"{self.path.name} has no rank {rank}; it has {', '.join(map(str, self.ranks))}")
        return self._ranks.get(rank, self)

    def _find_streams(self) -> None:
        known = {reader.path for reader in self._readers}
        if new := [path for path in stream_paths(self.path) if path not in known]:
            self._part_ranks({rank_of(path.name) for path in new})
            for path in new:
                skip = _HINTS.values() if path.name.startswith(EVENTS) and not self.hints else ()
                self._readers.append(StreamReader(path, events.AnyEvent, skip=skip))
            # Events of equal times come in the order of their streams' names, whenever each stream was found.
            self._order = np.argsort(np.argsort([reader.path.name for reader in self._readers]))

    def _part_ranks(self, found: set[int]) -> None:
        """From the first other rank on each has tables of its own; what was read before is rank 0's."""
        if not self._ranks and found <= {0}:
            return
        for rank in ({0} | found) - self._ranks.keys():
            self._ranks[rank] = OneRank(self, {name: self.tables[name].only(rank=rank) for name in BY_RANK})

    def _take_in(self, batch: list[Any], source: int) -> None:
        starts = self._starts.setdefault(source, {})
        rank = rank_of(self._readers[source].path.name)
        try:
            # All is converted before any is kept.
            added = [
                (name, self.tables[name].converted({**v, "rank": Repeated([rank], np.array([n]))}, n), n)
                for name, v, n in rows(batch, starts)
                if n
            ]
        except OverflowError:
            # A number beyond 64 bits is damage. By halves, so that only the event that has it is lost.
            if len(batch) == 1:
                self._unfit += 1
                return
            half = len(batch) // 2
            self._take_in(batch[:half], source)
            self._take_in(batch[half:], source)
            return
        for name, columns, count in added:
            t = columns["t"]
            newest = int(np.max(np.asarray(t.values if isinstance(t, Repeated) else t)))
            self._end = newest if self._end is None else max(self._end, newest)
            if self.hints or name not in _HINTS:
                if self._ranks and name in BY_RANK:
                    self._ranks[rank].tables[name].append(dict(columns), count, source)
                self.tables[name].append(columns, count, source)


class OneRank(Timeline):
    """A session as one of several ranks tells it. It grows with the whole."""

    def __init__(self, whole: Timeline, tables: dict[str, Table]) -> None:
        self.whole = whole
        self.path, self.header, self.hints = whole.path, whole.header, whole.hints
        self.tables = whole.tables | tables
        for name, table in self.tables.items():
            setattr(self, name, table)

    @property
    def end(self) -> int:
        return self.whole.end

    @property
    def corrupt(self) -> int:
        return self.whole.corrupt

    @property
    def unknown(self) -> int:
        return self.whole.unknown

    @property
    def reading(self) -> Reading:
        return self.whole.reading

    @property
    def ranks(self) -> list[int]:
        return self.whole.ranks

    def of(self, rank: int) -> Timeline:
        return self.whole.of(rank)

    def poll(self) -> bool:
        return self.whole.poll()

    def restore(self, reading: Reading) -> None:
        raise NotImplementedError("only a whole session is restored")

    def at(self, t: int) -> View:
        return View(self, t)


class _Prefix:
    """A view's table: as much of the timeline's as there was at the view's ``t``, found when it is first asked for."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, view: View, owner: type) -> TableView:
        table = view.timeline.tables[self._name].prefix(view.t)
        view.__dict__[self._name] = table
        return table


class View:
    """A session as it was at ``t``. The tables are those of :class:`Timeline`, up to and including ``t``; of them
    ``devices`` comes as a dict."""

    states = _Prefix()
    started = _Prefix()
    runs = _Prefix()
    stages = _Prefix()
    tokens = _Prefix()
    stage_hints = _Prefix()
    text_hints = _Prefix()
    samples = _Prefix()
    processes = _Prefix()
    absences = _Prefix()
    host = _Prefix()
    log = _Prefix()
    answers = _Prefix()
    schedules = _Prefix()
    models = _Prefix()
    trees = _Prefix()
    facts = _Prefix()

    def __init__(self, timeline: Timeline, t: int) -> None:
        self.timeline = timeline
        self.t = min(max(int(t), _INT64.min), _INT64.max)

    @property
    def header(self) -> events.Header:
        return self.timeline.header

    @cached_property
    def state(self) -> str:
        """The worker's state; "starting" before it said any."""
        return str(self.states.row(-1)["state"]) if self.states.n else "starting"

    @cached_property
    def tree(self) -> list[events.StageInfo]:
        """The stages of this session's runs, parents before children; empty before they are known."""
        return list(self.trees["event"][-1].stages) if self.trees.n else []

    @cached_property
    def schedule(self) -> events.Schedule | None:
        """What is to be run, as told last."""
        return self.schedules["event"][-1] if self.schedules.n else None

    @cached_property
    def model(self) -> events.ModelFacts | None:
        """What was loaded; ``None`` before it was."""
        return self.models["event"][-1] if self.models.n else None

    def fact(self, kind: type[F]) -> F | None:
        """The newest fact of that type (:class:`~llava_tui.events.Preflight`, :class:`~llava_tui.events.SelfTest`, …)
        about the session; ``None`` where there is none."""
        return next((event for event in self.facts["event"][::-1] if isinstance(event, kind)), None)

    @cached_property
    def current(self) -> dict[str, Any] | None:
        """The row of ``started`` whose run is in progress: it began and has not ended. ``None`` between runs."""
        if not self.started.n:
            return None
        row = self.started.row(-1)
        since = int(np.searchsorted(self.runs["t"], row["t"]))
        return None if (self.runs["run"][since:] == row["run"]).any() else row

    @cached_property
    def devices(self) -> dict[int, events.GpuDevice]:
        """The GPUs that were found, by index."""
        return {event.gpu: event for event in self.timeline.devices.prefix(self.t)["event"]}

    def absent(self, gpu: int) -> dict[str, str]:
        """Why fields of this GPU's samples are not known: reason by field; ``"*"`` for all of them. Empty where nothing
        is missing; what was told of GPU −1 (there is no driver to ask) holds for every GPU without its own."""
        for wanted in (gpu, -1):
            told = np.flatnonzero(self.absences["gpu"] == wanted)
            if len(told):
                return dict(self.absences["reasons"][told[-1]])
        return {}
