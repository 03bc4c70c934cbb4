"""One run as a bar: its stages in proportion, its tokens as ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava_tui.analysis.steps import case_ids
from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import figures
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left, right, runs
from llava_tui.tui.widgets.course import RunCourse, median_wall, run_course, step_paths
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.plots import nice

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

_LABEL = 11
_FIGURE = 10
_CASE = 16
"""Cells that the name of a case gets at most."""
ROOMY = 60
"""From this many columns on there is room for it."""


def run_key(view: View, look: Look) -> object:
    """While a run goes on, its bar moves with the time; otherwise with the runs."""
    told = (view.runs.n, view.started.n, view.trees.n, view.schedules.n, look.case_of(view))
    if view.current is None or look.brisk(view):
        return told
    return (*told, view.t, view.stage_hints.n, view.text_hints.n)


def draw_run(view: View, look: Look, width: int, height: int) -> list[Line]:
    """One line: ``run 43  │1│2 vision tower──│prefill───│decode┆┆┆┆┆   │  0.94 s``; ``run 43 f4-b1-n64`` where the
    table is of another case."""
    course = run_course(view, ended=look.brisk(view))
    if course is None:
        return [fit([(" this run", "dim")], width)]
    label = "load" if course.kind == "load" else f"run {course.run}"
    mark = "▸" if not course.ended else " " if course.outcome == "ok" else "✗"
    named = case_room(view, width)
    cells = width - _LABEL - named - _FIGURE
    titles = {info.path: info.title for info in view.tree}
    line: Line = [(mark, "live" if not course.ended else "bad"), (left(label, _LABEL - 1), TEXT)]
    if named:
        other = course.case if course.case != look.case_of(view) else ""
        line += [(left(other, named - 1), "accent"), (" ", TEXT)]
    if cells >= 8:
        line += bar(course, scale(view, look, course), cells, titles, step_paths(view))
    took = course.end - course.start
    if course.ended:
        figure = figures.duration(took) if took else figures.NONE  # it ended before anything ran
    else:
        figure = figures.elapsed(took)
    line.append((right(figure, _FIGURE), "strong"))
    return [fit(line, width)]


def case_room(view: View, width: int) -> int:
    """Cells for a case beside the run's number: the same for every run, so that bars begin in one column."""
    cases = case_ids(view)
    return min(max(map(len, cases)), _CASE) + 1 if len(cases) > 1 and width >= ROOMY else 0


def scale(view: View, look: Look, course: RunCourse) -> float:
    """What the whole width stands for, ns: what such a run usually takes, so that the bar grows towards its end."""
    took = float(max(course.end - course.start, 1))
    if course.ended:
        return took
    usual = None
    if course.kind != "load":
        usual = look.once("usual", (view.runs.n, course.case), lambda: median_wall(view, course.case))
    if usual is not None and took <= usual * 1.02:
        return usual * 1.02
    # In steps: a bar that is scaled anew at every paint would be painted whole.
    return float(nice(took))


def bar(course: RunCourse, whole: float, cells: int, titles: dict[str, str], steps: list[str]) -> Line:
    """``cells`` cells: a border and a name at the start of every stage, ticks where tokens came, blank where the run
    has not come to yet."""
    glyphs = [" "] * cells
    names = ["track"] * cells
    end = min(int((course.end - course.start) / whole * cells), cells)
    for path, start, stop in course.segments:
        first = min(max(int((start - course.start) / whole * cells), 0), cells)
        last = min(max(int((stop - course.start) / whole * cells), first), cells)
        if first >= cells:
            continue
        last = max(last, first + 1)
        step = path.split(".")[0]
        index = steps.index(step) if step in steps else None
        style = "dim" if index is None else step_style(index)
        for cell in range(first, last):
            glyphs[cell], names[cell] = "─", style
        glyphs[first] = "│"
        label = _name(path, titles, index, last - first - 1)
        glyphs[first + 1 : first + 1 + len(label)] = label
    for token in course.tokens:
        cell = int((token - course.start) / whole * cells)
        if 0 <= cell < cells and glyphs[cell] == "─":
            glyphs[cell] = "┆"
    if not course.segments:
        glyphs[:end] = "─" * end
    if end < cells:
        glyphs[cells - 1] = "│"
        names[cells - 1] = "track"
    return runs(glyphs, names)


def _name(path: str, titles: dict[str, str], index: int | None, room: int) -> str:
    """The stage's name where it fits, else its step's number, else nothing. Glyphs of one cell only."""
    title = titles.get(path, path.rpartition(".")[2].replace("_", " "))
    if "." in path and len(title) <= room and title.isascii():
        return title
    number = "" if index is None else str(index + 1)
    return number if len(number) <= room else ""
