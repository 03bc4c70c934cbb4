"""The steps table: what each step and stage took; while the model loads, how far that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava_tui.analysis.steps import UNACCOUNTED, StepRow, StepTable, case_ids, current_case
from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import figures, plots
from llava_tui.tui.widgets.cells import TEXT, Line, Run, fit, join, left, right
from llava_tui.tui.widgets.columns import Column, fitting
from llava_tui.tui.widgets.course import hinted_segments, running_stage
from llava_tui.tui.widgets.look import Look

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

_COLUMNS: tuple[Column, ...] = (  # in the order that they are shown
    ("last", "last", 10, 1),
    ("median", "median", 10, 0),
    ("interval", "95 % interval", 19, 4),
    ("share", "share", 8, 2),
    ("bar", "", 9, 6),
    ("n", "n", 5, 3),
    ("trend", "trend", 9, 5),
)
_LEAST_TITLE = 19
_ROOMY_TITLE = 31
"""From here on, prefill and decode say TTFT and tokens a second beside their names."""


def layout(width: int) -> dict[str, int]:
    """Cells of each column, gap included, ``title`` among them; what does not fit is left out."""
    kept = fitting(_COLUMNS, width - _LEAST_TITLE)
    spare = max(width - _LEAST_TITLE - sum(kept.values()), 0)
    title = min(_LEAST_TITLE, width)
    for name, most in (("title", _ROOMY_TITLE), ("bar", 33), ("trend", 21)):
        size = title if name == "title" else kept.get(name, 0)
        if not size:
            continue
        grown = min(most - size, spare)
        spare -= grown
        if name == "title":
            title += grown
        else:
            kept[name] += grown
    return {"title": title, **kept}


def rows_wanted(view: View) -> tuple[int, int]:
    """Lines that show it without what the stages leave of their steps, and with that: heading, unaccounted and figures
    included."""
    paths = [info.path for info in view.tree if info.path.split(".")[0] != "load"]
    rests = len({path.split(".")[0] for path in paths if "." in path})
    return len(paths) + 3, len(paths) + 3 + rests


def steps_key(view: View, look: Look) -> object:
    """What the drawing depends on, beside its size."""
    if _loading(view):
        return ("loading", view.t, view.stage_hints.n, view.trees.n, view.states.n)
    current = current_case(view)
    return (look.counted(view), look.case, look.case_of(view), current, running_stage(view), look.over(view))


def draw_steps(view: View, look: Look, width: int, height: int) -> list[Line]:
    """The table in at most ``height`` lines: first the rests of steps give way, then the figures, then the stages."""
    if _loading(view):
        return _draw_loading(view, width)[:height]
    table = look.table(view)
    rows = shown_rows(table, height)
    columns = layout(width)
    running = running_stage(view)
    # But for the mark in front: they change when a run has ended, the mark many times a run.
    lines = look.once(
        "steps",
        (look.counted(view), table.case, width, height, look.over(view)),
        lambda: _body(table, rows, width, height, not look.over(view)),
    )
    heading = fit(_heading(view, look, table, columns, width), width)
    if look.case and look.case != current_case(view):
        running = ""  # another case is running than the one whose table was chosen
    marks = [_mark(row, running) for row in rows]
    marks += [(" ", TEXT)] * (len(lines) - len(marks))
    body = [[mark, *line] for mark, line in zip(marks, lines, strict=False)]
    steps = sum(row.depth == 0 and row.path != UNACCOUNTED for row in rows)
    return body[:height] if height <= steps else [heading, *body][:height]


def shown_rows(table: StepTable, height: int) -> list[StepRow]:
    """The rows for which ``height`` lines have room beside the heading."""
    rows = list(table.rows)
    rests = [row.path for row in rows if row.path.endswith(".rest")]
    left_out = rests[max(height - 2 - len(rows) + len(rests), 0) :]
    rows = [row for row in rows if row.path not in left_out]
    if height < len(rows) + 1:
        rows = [row for row in rows if row.depth == 0]
    return rows


def draw_table(table: StepTable, heading: str, width: int, height: int) -> list[Line]:
    """The table of a session that stands still, under a heading of the caller's, in at most ``height`` lines."""
    rows = shown_rows(table, height)
    columns = layout(width)
    first = fit([(left(" " + heading, columns["title"]), "dim"), *_column_heads(columns)], width)
    lines = _body(table, rows, width, height, False)
    return [first, *([(" ", TEXT), *line] for line in lines)][:height]


def _body(table: StepTable, rows: list[StepRow], width: int, height: int, live: bool) -> list[Line]:
    """Lines but for the first cell; the figures last, where there is room."""
    columns = layout(width)
    steps = {row.path: index for index, row in enumerate(row for row in table.rows if row.depth == 0)}
    steps.pop(UNACCOUNTED, None)
    lines: list[Line] = []
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1].depth == 0
        lines.append(fit(_row(row, table, columns, steps, last), width - 1))
    if not rows[:-1]:
        lines = [fit([(" no stages are known yet", "dim")], width - 1)]
    if height > len(rows) + 1:
        lines.append(fit(_figures(table, width - 1, live), width - 1))
    return lines


def _mark(row: StepRow, running: str) -> Run:
    """Whether the row's step or stage is going on."""
    here = bool(running) and (row.path == running or (row.depth == 0 and running.startswith(row.path + ".")))
    return ("▸", "live") if here else (" ", TEXT)


def _heading(view: View, look: Look, table: StepTable, columns: dict[str, int], width: int) -> Line:
    cases = case_ids(view)
    title = " step"
    if table.case:
        place = f" {cases.index(table.case) + 1}/{len(cases)}" if table.case in cases and len(cases) > 1 else ""
        room = columns["title"] - len(table.case) - len(place)
        title = f" step · {table.case}{place}" if room >= 8 else f" {table.case}{place}"
        if look.case:
            title += " (chosen)" if room >= 17 else "*"
    return [(left(title, columns["title"]), "dim"), *_column_heads(columns)]


def _column_heads(columns: dict[str, int]) -> Line:
    line: Line = []
    for name, heading, _, _ in _COLUMNS:
        if size := columns.get(name):
            aligned = name in ("bar", "trend")
            line.append((left(" " + heading, size) if aligned else right(heading, size), "dim"))
    return line


def _row(row: StepRow, table: StepTable, columns: dict[str, int], steps: dict[str, int], last: bool) -> Line:
    step = row.path.split(".")[0]
    colour = step_style(steps[step]) if step in steps else "dim"
    quiet = row.depth > 0 or row.path == UNACCOUNTED
    style = "dim" if row.path.endswith(".rest") or row.path == UNACCOUNTED else TEXT
    name = row.title if row.depth else ("· " + row.title if row.path == UNACCOUNTED else row.title)
    indent = "  " * row.depth + (("└ " if last else "├ ") if row.depth else "")
    title: Line = [(indent, "track"), (name, colour if not row.depth else style)]
    detail = _detail(row, table)
    if detail and columns["title"] >= _ROOMY_TITLE:
        title.append(("  " + detail, "accent"))
    line = fit(title, columns["title"] - 1)
    summary = row.summary
    for column, *_ in _COLUMNS:
        size = columns.get(column)
        if not size:
            continue
        if column == "last":
            line.append((right(figures.duration(row.last), size), "dim" if quiet else TEXT))
        elif column == "median":
            line.append((right(figures.duration(summary.median), size), style if quiet else "strong"))
        elif column == "interval":
            line.append((right(figures.interval(summary.low, summary.high, summary.n), size), "dim"))
        elif column == "share":
            line.append((right(figures.share(row.share), size), style))
        elif column == "bar":
            line.append((" " + plots.bar(row.share, size - 1), colour))
        elif column == "n":
            line.append((right(str(summary.n), size), "dim"))
        elif column == "trend":
            line.append((" " + plots.trend(row.durations, size - 1), colour))
    return line


def _detail(row: StepRow, table: StepTable) -> str:
    # Whatever step holds them: EventGPT's groupings have them in others.
    if row.path.endswith(".prefill") and table.ttft.median is not None:
        return f"TTFT {figures.duration(table.ttft.median)}"
    if row.path.endswith(".decode") and table.tokens_per_second.median is not None:
        return f"{figures.digits(table.tokens_per_second.median)} tok/s"
    return ""


def _figures(table: StepTable, width: int, live: bool) -> Line:
    """What a run comes to, in the field's own words."""
    if table.n == 0:
        note = "no measured run yet: statistics begin after the warm-up" if live else "no run was measured"
        return [(" " + note, "dim")]
    fps = table.frames_per_second.median
    pairs = [
        ("run", figures.duration(table.wall.summary.median)),
        ("TTFT", figures.duration(table.ttft.median)),
        ("TPOT", figures.duration(table.tpot.median)),
        ("", f"{figures.digits(table.tokens_per_second.median)} tok/s" if table.tokens_per_second.median else ""),
        ("ITL p95", figures.duration(table.itl_p95) if table.itl_p95 is not None else ""),
        ("", f"{figures.digits(fps)} frames/s" if fps else ""),
    ]  # fmt: skip
    parts: list[Line] = [[(label + " " if label else "", "dim"), (value, "accent")] for label, value in pairs if value]
    return [(" ", TEXT), *join(parts, 3, width - 1)]


# --- loading --------------------------------------------------------------------------------------------------------


def _loading(view: View) -> bool:
    """Before the first run: nothing to tabulate, but something is going on."""
    started = view.started
    return started.n == 0 or (
        started.n == 1 and int(started["run"][0]) == 0 and view.runs.n <= 1 and view.current is not None
    )


def _draw_loading(view: View, width: int) -> list[Line]:
    """Each stage of loading with how long it took or has been going on."""
    began = view.timeline.start
    state, reason = view.state, ""
    if view.states.n:
        row = view.states.row(-1)
        reason = str(row["reason"])
    heading = f" {state}" + (f": {reason}" if reason else "")
    lines: list[Line] = [
        [(left(heading, min(40, width - 12)), "strong"), (right(figures.elapsed(view.t - began), 12), "accent")]
    ]
    titles = {info.path: info.title for info in view.tree}
    segments = hinted_segments(view)
    for index, (path, start, end) in enumerate(segments):
        if path == "load":
            continue
        going = index + 1 == len(segments)
        title = titles.get(path, path.removeprefix("load.").replace("_", " "))
        lines.append(
            [
                ("▸" if going else "✓", "live" if going else "good"),
                (left("  " + title, min(39, width - 13)), TEXT if going else "dim"),
                (right(figures.elapsed(end - start), 12), TEXT if going else "dim"),
            ]
        )
    return [fit(line, width) for line in lines]
