"""Which step or stage was running when, a cell each, under the strips' time axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets.axis import Axis
from llava_tui.tui.widgets.cells import Run
from llava_tui.tui.widgets.course import hinted_segments, hints_of, step_paths

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

Ints = NDArray[np.int64]

LOAD = "load"
STEP_MARKS = "123456789abcdefghijklmnopqrstuvwxyz"
"""A step's mark, by its index; beyond them there is ``+``."""
LEAST_SHARE = 0.1
"""A cell shows what ran for most of it, if that was for so much of it."""
APART = 2
"""Cells from one run to the next, from which on each is marked."""
_TOKENS_APART = 3
"""The same of tokens."""
_LATEST = 64
"""Of runs that ended without spans, so many at most are drawn from their hints."""


@dataclass(frozen=True, slots=True)
class Spans:
    """What ran when, ns on the session's clock. Those of one code are in order and do not overlap."""

    paths: list[str]
    """Steps, or steps and stages; loading among them."""
    starts: Ints
    ends: Ints
    codes: Ints
    """Twice the place in ``paths``, and one more where the run does not count."""


def spans_since(view: View, since: int, *, stages: bool) -> Spans:
    """Every span that ended at or after ``since``: of steps and loading, with ``stages`` of their stages too. The run
    in progress, and runs that ended without spans, by their hints."""
    paths = [info.path for info in view.tree] if stages else step_paths(view)
    if LOAD not in paths:
        paths = [*paths, LOAD]
    place = {path: index for index, path in enumerate(paths)}
    rows = view.stages
    first = int(np.searchsorted(rows["t"], since))
    # A vocabulary may be empty; an array of places may not, to be indexed.
    places = np.array([*(place.get(name, -1) for name in rows.names("stage")), -1], np.int16)
    stage = np.asarray(rows["stage"])
    chosen = np.flatnonzero(places[stage[first:]] >= 0) + first
    durations = np.asarray(rows["duration"])[chosen]
    if not (known := np.isfinite(durations)).all():
        chosen, durations = chosen[known], durations[known]
    counted = np.asarray(rows["kind"])[chosen] == rows.code("kind", "measured")
    counted &= np.asarray(rows["outcome"])[chosen] == rows.code("outcome", "ok")
    code = 2 * places[stage[chosen]] + ~counted
    start = np.asarray(rows["start"])[chosen]
    end = start + durations.astype(np.int64)
    told: list[tuple[int, int, int]] = []
    for other, segments in _hinted(view, since):
        for path, begun, ended in segments:
            # A span of a stage is one of its step too; a hint tells of the stage alone.
            own = (path, path.rpartition(".")[0]) if stages else (path.split(".")[0],)
            told += [(begun, ended, 2 * place[one] + other) for one in own if one in place]
    if told:
        more = np.array(told, np.int64)
        start, end, code = (np.concatenate(pair) for pair in zip((start, end, code), more.T, strict=True))
    return Spans(paths, *_in_order(start, end, code))


def _hinted(view: View, since: int) -> Iterator[tuple[bool, list[tuple[str, int, int]]]]:
    """Of runs without spans: whether they do not count, and their (stage, start, end)."""
    runs = view.runs
    first = int(np.searchsorted(runs["t"], since))
    rows = np.flatnonzero(np.asarray(runs["outcome"])[first:] != runs.code("outcome", "ok"))[-_LATEST:] + first
    stages = view.stages
    for row in rows.tolist():
        run, t, start = (int(runs[column][row]) for column in ("run", "t", "start"))
        some, last = (int(np.searchsorted(stages["t"], t, side)) for side in ("left", "right"))
        if not (np.asarray(stages["run"])[some:last] == run).any():
            yield True, hints_of(view, run, start, t)
    if view.current is not None:
        yield view.current["kind"] != "measured", hinted_segments(view)


def _in_order(start: Ints, end: Ints, code: Ints) -> tuple[Ints, Ints, Ints]:
    """By code, then by time; what overlaps within a code, as of several ranks, is cut."""
    end = np.maximum(end, start)
    # Numbers of 16 bits are sorted in one pass.
    order = np.argsort(code.astype(np.int16), kind="stable")
    start, end, code = start[order], end[order], code[order]
    same = code[1:] == code[:-1]
    if (same & (start[1:] < start[:-1])).any():
        order = np.lexsort((end, start, code))
        start, end = start[order], end[order]
    if (same & (start[1:] < end[:-1])).any():
        end[:-1] = np.where(same, np.minimum(end[:-1], start[1:]), end[:-1])
    return start, end, code


def codes_on(spans: Spans, axis: Axis) -> list[int | None]:
    """A cell each: the code of what ran for most of it; ``None`` where nothing did for a tenth of it. A stage's time is
    not its step's. Cells after ``axis.now`` are not in the list."""
    count = axis.filled
    if count == 0:
        return []
    edges = axis.start + axis.cell * np.arange(count + 1)
    edges[-1] = min(edges[-1], max(axis.now, int(edges[-2]) + 1))
    took = np.zeros((2 * len(spans.paths), count), np.int64)
    bounds = np.searchsorted(spans.codes, np.arange(len(took) + 1)).tolist()
    for code, (some, last) in enumerate(pairwise(bounds)):
        if last > some:
            took[code] = _time_in(spans.starts[some:last], spans.ends[some:last], edges)
    place = {path: index for index, path in enumerate(spans.paths)}
    own = took.copy()
    for path, index in place.items():
        step = place.get(path.rpartition(".")[0])
        if step is not None:
            own[2 * step : 2 * step + 2] -= took[2 * index : 2 * index + 2]
    best = own.argmax(axis=0)
    enough = own[best, np.arange(count)] > np.diff(edges) * LEAST_SHARE
    return [code if some else None for code, some in zip(best.tolist(), enough.tolist(), strict=True)]


def _time_in(starts: Ints, ends: Ints, edges: Ints) -> Ints:
    """How long the spans, in order and not overlapping, go on within each pair of edges."""
    passed = np.concatenate([[0], np.cumsum(ends - starts)])
    begun = np.searchsorted(starts, edges, "right")
    # Of the last that has begun, what is still to come.
    rest = np.maximum(ends[np.maximum(begun - 1, 0)] - edges, 0)
    until: Ints = passed[begun] - np.where(begun > 0, rest, 0)
    return np.diff(until)


# --- as glyphs --------------------------------------------------------------------------------------------------------


def letters(view: View) -> dict[str, str]:
    """A letter a stage, by its path, no two alike: of its title's initials, else of its other letters. The last steps
    choose first: there prefill and decode are."""
    taken: set[str] = set()
    found: dict[str, str] = {}
    steps: dict[str, list[tuple[str, str]]] = {}
    for info in view.tree:
        if "." in info.path:
            steps.setdefault(info.path.split(".")[0], []).append((info.path, info.title))
    for step in reversed(steps):
        for path, title in steps[step]:
            words = [word for word in title.lower().split() if word]
            wanted = [*(word[0] for word in words), *"".join(words), *"abcdefghijklmnopqrstuvwxyz"]
            fit = [char for char in wanted if char.isascii() and char.isalpha()]
            if step == LOAD:
                # It is over before the others begin.
                found[path] = fit[0]
                continue
            found[path] = next((char for char in fit if char not in taken), "?")
            taken.add(found[path])
    return found


def glyphs(view: View, axis: Axis, *, stages: bool, bounds: bool) -> list[Run]:
    """The ribbon: a glyph and a style each for the cells that have begun. ``stages``: their letters, not only the
    steps' digits; ``bounds``: where runs begin is marked."""
    spans = spans_since(view, axis.start, stages=stages)
    codes = codes_on(spans, axis)
    steps = {path: index for index, path in enumerate(step_paths(view))}
    marks = letters(view) if stages else {}
    known = [_mark(path, steps, marks) for path in spans.paths]
    cells: list[Run] = []
    for code in codes:
        if code is None:
            cells.append(("·", "track"))
        else:
            glyph, style = known[code // 2]
            cells.append((glyph, "dim" if code % 2 else style))
    if stages:
        titles = {info.path: info.title for info in view.tree}
        _write_names(cells, codes, [titles.get(path, "") if "." in path else "" for path in spans.paths])
        _mark_tokens(view, axis, cells, codes, spans.paths)
    if bounds:
        load = 2 * spans.paths.index(LOAD)
        for cell in run_starts(view, axis):
            # Where steps are seen, the first one shows that a run begins.
            hidden = cell > 0 and codes[cell] == codes[cell - 1] and codes[cell] is not None
            if (stages or hidden) and codes[cell] not in (load, load + 1):
                cells[cell] = ("│", "track")
    return cells


def _mark(path: str, steps: dict[str, int], marks: dict[str, str]) -> Run:
    step = path.split(".")[0]
    index = steps.get(step)
    if index is None:
        return marks.get(path, "L"), "dim"
    digit = STEP_MARKS[index] if index < len(STEP_MARKS) else "+"
    return marks.get(path, digit), step_style(index)


def _write_names(cells: list[Run], codes: list[int | None], titles: list[str]) -> None:
    """A stage's name after its first letter, where it goes on for long enough."""
    start = 0
    for end in range(1, len(codes) + 1):
        if end < len(codes) and codes[end] == codes[start]:
            continue
        code = codes[start]
        title = titles[code // 2] if code is not None else ""
        if title.isascii() and len(title) > 1 and end - start >= len(title) + 4:
            style = cells[start][1]
            cells[start + 1 : start + 3 + len(title)] = [(char, style) for char in f" {title} "]
        start = end


def _mark_tokens(view: View, axis: Axis, cells: list[Run], codes: list[int | None], paths: list[str]) -> None:
    """A tick where a token was there, if they are far enough apart."""
    tokens, texts = view.tokens, view.text_hints
    first = int(np.searchsorted(tokens["t"], axis.start))
    times = np.asarray(tokens["at"])[first:]
    if (current := view.current) is not None:
        since = int(np.searchsorted(texts["t"], max(int(current["t"]), axis.start)))
        times = np.concatenate([times, np.asarray(texts["t"])[since:]])
    places = (times - axis.start) // axis.cell
    places = np.unique(places[(places >= 0) & (places < len(cells))])
    if places.size > 1 and float(np.median(np.diff(places))) < _TOKENS_APART:
        return
    for cell in places.tolist():
        code = codes[cell]
        path = "" if code is None else paths[code // 2]
        if path.endswith(".decode") and cells[cell][0] == cells[max(cell - 1, 0)][0]:
            cells[cell] = ("┆", cells[cell][1])


def run_starts(view: View, axis: Axis) -> list[int]:
    """The cells in which a run began."""
    t = np.asarray(view.started["t"])
    inside = t[int(np.searchsorted(t, axis.start)) :]
    cells = np.unique((inside - axis.start) // axis.cell)
    return [cell for cell in cells.tolist() if cell < axis.filled]
