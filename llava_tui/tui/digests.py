"""What a list of sessions wants to know that takes reading them whole: worked out aside, one after another."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava_tui.analysis.comparison import Comparison
    from llava_tui.analysis.done import ItemsDone
    from llava_tui.analysis.steps import StepTable
    from llava_tui.analysis.trust import Trust
    from llava_tui.events import ModelFacts
    from llava_tui.session.store import SessionInfo
    from llava_tui.session.timeline import Timeline, View

TABLES = 16
"""Sessions whose steps tables are kept: those looked at last."""
LIVE_EVERY_S = 10.0
"""How often a session that grows is read again, at most."""
SHARE = 0.02
"""Of the time that reading it again and again may take."""

Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """One session, read whole. Its text is safe to draw."""

    grade: str
    """The worst of its cases' trust; "" where nothing was measured."""
    cases: tuple[str, ...]
    trust: dict[str, Trust]
    """By case, of those with measured runs."""
    model: ModelFacts | None
    verdict: str = ""
    """Against the pinned baseline, over all cases that both have; "" where there is none to compare with."""
    effect: float | None = None
    """The whole run's, relative, of the case that decided the verdict."""
    sentence: str = ""
    items: ItemsDone | None = None
    """Of a data set: in the case that is least far."""
    loads: str = ""
    """Of a session whose models did not fit into memory together: what was loaded after what."""
    memory: str = ""
    """What the model weighs, part by part, and what its cases took."""
    problem: str = ""
    """Why it could not be read."""


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    status: str
    tables: bool


@dataclass(slots=True)
class _Kept:
    stamp: object
    digest: Digest
    good_until: float
    """While the session grows; of the monotonic clock."""


class Digests:
    """Reads sessions in one daemon thread, in the order of what is wanted last. ``done`` is told, in that thread, the
    folder of each session of which something new is known."""

    def __init__(self, done: Callable[[Path], None]) -> None:
        self._done = done
        self._known: dict[Path, _Kept] = {}
        self._tables: OrderedDict[Path, tuple[object, dict[str, StepTable]]] = OrderedDict()
        self._jobs: list[_Job] = []
        self._baseline: tuple[Path, ...] = ()
        self._baseline_read: tuple[object, list[Timeline]] = (None, [])
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def want(
        self, infos: Sequence[SessionInfo], tables_of: SessionInfo | None = None, baseline: Sequence[Path] = ()
    ) -> None:
        """These, in that order, and nothing else any more; of ``tables_of``, which comes first, the steps tables too.
        ``baseline``: what to compare with."""
        jobs = [_Job(tables_of.path, tables_of.status, True)] if tables_of is not None else []
        jobs += [_Job(info.path, info.status, False) for info in infos if info is not tables_of]
        with self._wake:
            self._jobs = jobs
            self._baseline = tuple(baseline)
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._work, name="digests", daemon=True)
                self._thread.start()
            self._wake.notify()

    def of(self, path: Path) -> Digest | None:
        """What is known so far, if anything is."""
        kept = self._known.get(path)
        return kept.digest if kept is not None else None

    def tables(self, path: Path) -> dict[str, StepTable] | None:
        """The steps tables by case, where they were wanted not long ago."""
        kept = self._tables.get(path)
        return kept[1] if kept is not None else None

    def end(self) -> None:
        """No more; what is being read now is finished and thrown away."""
        with self._wake:
            self._ended = True
            self._jobs = []
            self._wake.notify()

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._ended:
                    self._wake.wait()
                if self._ended:
                    return
                job = self._jobs.pop(0)
                baseline = self._baseline
            if self._read(job, baseline) and not self._ended:
                self._done(job.path)

    def _read(self, job: _Job, baseline: tuple[Path, ...]) -> bool:
        """Whether there is something new."""
        base = tuple((path, sizes(path)) for path in baseline)
        stamp = (sizes(job.path), job.status, base)
        known = self._known.get(job.path)
        tables = self._tables.get(job.path)
        if known is not None and (not job.tables or tables is not None):
            held = tables[0] if job.tables and tables is not None else known.stamp
            if held == stamp or (job.status in ("running", "paused") and time.monotonic() < known.good_until):
                return False
        began = time.monotonic()
        found: dict[str, StepTable] = {}
        try:
            digest, found = self._digest(job, base)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown in place of the figures
            digest = Digest("", (), {}, None, problem=str(error) or type(error).__name__)
        took = time.monotonic() - began
        self._known[job.path] = _Kept(stamp, digest, began + max(LIVE_EVERY_S, took / SHARE))
        if job.tables:
            self._tables[job.path] = (stamp, found)
            self._tables.move_to_end(job.path)
            while len(self._tables) > TABLES:
                self._tables.popitem(last=False)
        return True

    def _digest(self, job: _Job, base: tuple[tuple[Path, Sizes], ...]) -> tuple[Digest, dict[str, StepTable]]:
        from llava_tui.analysis import loads
        from llava_tui.analysis.done import items_done
        from llava_tui.analysis.steps import case_ids, step_table
        from llava_tui.analysis.trust import badge
        from llava_tui.session import shelf

        view = shelf.read(job.path).now()
        cases = tuple(case_ids(view))
        trust = {case: badge(view, case, job.status) for case in cases}
        trust = {case: one for case, one in trust.items() if one.grade is not None}
        grade = max((one.grade or "" for one in trust.values()), default="")
        verdict, effect, sentence = "", None, ""
        if base and job.path not in [path for path, _ in base] and trust:
            verdict, effect, sentence = self._against(view, base)
        tables = {case: step_table(view, case) for case in cases} if job.tables else {}
        far = [items for case in cases if (items := items_done(view, case)) is not None]
        return Digest(
            grade,
            cases,
            trust,
            view.model,
            verdict,
            effect,
            sentence,
            items=min(far, key=lambda items: items.done, default=None),
            loads=loads.told(view),
            memory=_memory(view, cases) if job.tables else "",
        ), tables

    def _against(self, view: View, base: tuple[tuple[Path, Sizes], ...]) -> tuple[str, float | None, str]:
        from llava_tui.analysis.comparison import Side, compare
        from llava_tui.report.sides import stored_spread
        from llava_tui.session import shelf

        if self._baseline_read[0] != base:
            self._baseline_read = (base, [shelf.read(path) for path, _ in base])
        timelines = self._baseline_read[1]
        sides = [Side("the baseline", tuple(one.now() for one in timelines)), Side("this session", (view,))]
        try:
            found = compare(sides, spread=stored_spread(sides))
        except ValueError:  # no case in common
            return "", None, ""
        one = decisive(found)
        return (one.verdict, one.rows[0].effect, one.sentence) if one is not None else ("", None, "")


def _memory(view: View, cases: Sequence[str]) -> str:
    from llava_tui.analysis.footprint import footprint
    from llava_tui.report import footprints
    from llava_tui.units import size

    found = [footprint(view, case) for case in cases]
    told = []
    most = max((one for one in found if one.peak is not None), key=lambda one: one.peak or 0.0, default=None)
    if most is not None:
        told.append(f"peak {size(most.peak)}" + (f" ({most.case})" if len(cases) > 1 else ""))
        told += [f"keys and values {size(most.cache)}"] if most.cache is not None else []
    if short := [one.case for one in found if one.short]:
        told.insert(0, f"out of memory: {', '.join(short)}")
    if found and found[0].weights:
        told.append(f"weights {footprints.weights(found[0].weights)}")
    return " · ".join(told)


def decisive(found: Sequence[Comparison]) -> Comparison | None:
    """The comparison that speaks for all cases: the slower one, else the faster, else one that is not decided, else one
    that is the same; of several the largest effect. ``None`` where none can be compared."""
    for verdict in ("slower", "faster", "inconclusive", "same"):
        some = [one for one in found if one.verdict == verdict]
        if some:
            return max(some, key=lambda one: abs(one.rows[0].effect or 0.0))
    return None


def sizes(path: Path) -> Sizes:
    """The streams of a session and how long each is."""
    from llava_tui.session.reader import stream_paths

    found = []
    for stream in stream_paths(path):
        try:
            found.append((stream.name, stream.stat().st_size))
        except OSError:
            continue
    return tuple(found)
