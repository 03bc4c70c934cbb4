"""The line above the keys: where in the session's time the picture is, and what there is to jump to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llava_tui.tui.widgets import figures
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left, right, runs, width_of
from llava_tui.tui.widgets.course import progress
from llava_tui.tui.widgets.heading import SECOND, back
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.signs import MARKS

if TYPE_CHECKING:
    from llava_tui.session.timeline import View
    from llava_tui.tui.transport import Playback

TENTH = 100_000_000
INCIDENTS = (("E", "bad"), ("M", "bad"), ("T", "warn"), ("O", "accent"), ("C", "accent"))
"""Letter and style of each kind of :data:`llava_tui.analysis.incidents.KINDS`."""
LOOPS = {"": "", "run": "↻ run", "session": "↻ all"}
_LEAST = 20
"""Cells of the bar below which what is said beside it gives way."""


def transport_key(view: View, look: Look) -> object:
    """Time by seconds where it is followed, by tenths otherwise."""
    play = look.play(view)
    if play.following:
        return ((view.t - view.timeline.start) // SECOND, view.runs.n, view.schedules.n, look.status)
    origin = view.timeline.start
    shown = ((view.t - origin) // TENTH, _edge(view, play), look.behind(view), look.incidents(view))
    # Where it stands, the playhead is where it is to the cell.
    return (shown, None if play.playing else view.t, play.speed, play.loop, look.status)


def draw_transport(view: View, look: Look, width: int, height: int) -> list[Line]:
    """``‖ ━━━━━━━O━━━●──────E────  01:23.4 / 02:34``; while what happens now is followed, how many of the planned runs
    are done: ``━━━━━━●─────  01:23``."""
    play = look.play(view)
    if play.following:
        return [_draw_progress(view, look, width)]
    origin = view.timeline.start
    said = _said(play, look.behind(view))
    time = f"{time_code(view.t - origin)} / {figures.clock(_edge(view, play) - origin)}"
    if width - width_of(said) - len(time) - 5 < _LEAST:
        said = said[:1]
    if width - width_of(said) - len(time) - 5 < _LEAST // 2:
        time = time_code(view.t - origin)
    cells = max(width - width_of(said) - len(time) - 5, 0)
    bar = _bar(view, look, play, cells) if cells else []
    return [fit([(" ", TEXT), *said, (" ", TEXT), *bar, ("  ", TEXT), (time, "strong")], width)]


def _edge(view: View, play: Playback) -> int:
    """Where the bar ends, ns. Of a live session by whole seconds, between which it stays as it is."""
    return play.edge - (play.edge - view.timeline.start) % SECOND if play.live else play.edge


def time_code(ns: int) -> str:
    """``01:23.4``."""
    return f"{figures.clock(ns)}.{ns % SECOND // TENTH}"


def _said(play: Playback, behind: int | None) -> Line:
    """``▶ 4×  ↻ run``, in a live session after ``LIVE −0:42``; the glyph first: it stays where the rest has to go."""
    speed = f"{play.speed:g}×"
    over = not play.live and play.t >= play.edge
    glyph, style = ("▶", "live") if play.playing else ("■", "strong") if over else ("‖", "warn")
    said: Line = [(glyph + " ", style), (left(speed, 6) if play.playing or play.speed != 1 else " " * 6, TEXT)]
    if behind is not None:
        said.append((left(f"LIVE {back(behind)}", 12), "warn"))
    if play.loop:
        said.append((LOOPS[play.loop] + " ", "accent"))
    return said


def _bar(view: View, look: Look, play: Playback, cells: int) -> Line:
    origin = view.timeline.start
    whole = max(_edge(view, play) - origin, 1)
    at = min(max(view.t - origin, 0) * cells // whole, cells - 1)
    glyphs = ["━"] * at + ["─"] * (cells - at)
    styles = ["live" if play.live else "strong"] * at + ["track"] * (cells - at)
    found = look.incidents(view)
    place = np.clip((found.t - origin) * cells // whole, 0, cells - 1)
    # The gravest is the one that is seen.
    for kind in range(len(INCIDENTS) - 1, -1, -1):
        for cell in np.unique(place[found.kinds == kind]).tolist():
            glyphs[cell], styles[cell] = INCIDENTS[kind]
    glyphs[at], styles[at] = "●", "live" if play.live else "strong"
    return runs(glyphs, styles)


def _draw_progress(view: View, look: Look, width: int) -> Line:
    mark, _, style = MARKS.get(look.status, ("●", "", "strong"))
    how = progress(view)
    part = min(how.done / how.planned, 1.0) if how.planned else 0.0
    time = figures.clock(view.t - view.timeline.start)
    cells = max(width - len(time) - 4, 0)
    at = min(int(part * cells), max(cells - 1, 0))
    return fit(
        [
            (" ", TEXT),
            ("━" * at, style),
            (mark if cells else "", style),
            ("─" * max(cells - at - 1, 0), "track"),
            (right(time, len(time) + 2), "strong"),
        ],
        width,
    )
