"""What the model says, and what the worker says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llava_tui.tui.widgets.cells import TEXT, Line, fit, left, wrap
from llava_tui.tui.widgets.figures import clock
from llava_tui.tui.widgets.look import Look

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

_LABEL = 8
_LEVELS = {"debug": (" ", "dim"), "info": (" ", TEXT), "warning": ("!", "warn"), "error": ("✗", "bad")}
_MOST = 20_000
"""Characters of output that are wrapped at all; the end is what is seen."""


def output_key(view: View, look: Look) -> object:
    """The text grows with the hints and is replaced at a run's end."""
    return (0 if look.brisk(view) else view.text_hints.n, view.runs.n, view.started.n)


def draw_output(view: View, look: Look, width: int, height: int) -> list[Line]:
    """The end of what the run in progress has said, else of what the newest said; with a cursor while it speaks."""
    text, speaking = output_of(view, ended=look.brisk(view))
    room = width - _LABEL - 1
    lines = wrap(text.lstrip()[-_MOST:], room - 1) if room > 1 else []
    if speaking:
        lines = lines or [""]
        lines[-1] += "▌"
    lines = lines[-height:]
    drawn: list[Line] = []
    for index in range(height):
        label = left(" output" if index == 0 else "", _LABEL)
        line = lines[index] if index < len(lines) else ""
        drawn.append(fit([(label, "dim"), (line, TEXT)], width))
    return drawn


def output_of(view: View, *, ended: bool = False) -> tuple[str, bool]:
    """The text, and whether it is still growing; with ``ended``, of a run that ended."""
    current = None if ended else view.current
    if current is not None:
        hints = view.text_hints
        first = int(np.searchsorted(hints["t"], current["t"]))
        mine = np.asarray(hints["run"])[first:] == current["run"]
        if mine.any():
            return "".join(str(text) for text in hints["text"][first:][mine]), True
    runs = view.runs
    for index in range(runs.n - 1, max(runs.n - 65, -1), -1):
        texts = runs.value("text", index)
        if texts:
            return str(texts[0]), False
    return "", False


def log_key(view: View, look: Look) -> object:
    notices = tuple(notice for notice in look.notices if notice.t <= view.t)
    return (view.log.n, view.answers.n, view.states.n, view.runs.n, notices)


def draw_log(view: View, look: Look, width: int, height: int) -> list[Line]:
    """The newest of the log, the worker's answers and what this viewer has to say, oldest first."""
    origin = view.timeline.start
    room = width - _LABEL - 8
    lines: list[tuple[str, str, str, str]] = []
    for t, level, text in reversed(log_entries(view, look, height)):
        mark, style = _LEVELS.get(level, _LEVELS["info"])
        pieces = wrap(text, room) or [""]
        block = [(left(clock(t - origin), 6) if i == 0 else " " * 6, mark if i == 0 else " ", piece, style)
                 for i, piece in enumerate(pieces[:4])]  # fmt: skip
        lines = block + lines
        if len(lines) >= height:
            break
    lines = lines[-height:]
    drawn: list[Line] = []
    for index in range(height):
        line: Line = [(left(" log" if index == 0 else "", _LABEL), "dim")]
        if index < len(lines):
            time, mark, text, style = lines[index]
            line += [(time, "dim"), (mark + " ", style), (text, style)]
        drawn.append(fit(line, width))
    return drawn


def _of_rank(rank: int, text: str) -> str:
    return f"rank {rank}: {text}" if rank else text


def log_entries(view: View, look: Look, count: int) -> list[tuple[int, str, str]]:
    """(t, level, text) of the newest ``count`` entries, oldest first."""
    entries: list[tuple[int, str, str]] = []
    log = view.log
    levels = log.names("level")
    entries += [
        (int(log["t"][index]), levels[int(log["level"][index])], _of_rank(int(log["rank"][index]), log["text"][index]))
        for index in range(max(log.n - count, 0), log.n)
    ]
    for index in range(max(view.answers.n - count, 0), view.answers.n):
        row = view.answers.row(index)
        said = str(row["text"]) or ("done" if row["accepted"] else "refused")
        entries.append((int(row["t"]), "info" if row["accepted"] else "warning", f"{row['verb']}: {said}"))
    for index in range(max(view.states.n - count, 0), view.states.n):
        row = view.states.row(index)
        level = "error" if row["state"] == "failed" else "info"
        reason = f": {row['reason']}" if row["reason"] else ""
        entries.append((int(row["t"]), level, f"{row['state']}{reason}"))
    runs = view.runs
    bad = np.flatnonzero(~runs.where(outcome="ok"))[-count:]
    for index in bad.tolist():
        row = runs.row(index)
        why = f": {row['reason']}" if row.get("reason") else ""
        level = "warning" if row["outcome"] == "cancelled" else "error"
        entries.append((int(row["t"]), level, f"run {row['run']} {row['case']} {row['outcome']}{why}"))
    entries += [(notice.t, notice.level, notice.text) for notice in look.notices[-count:] if notice.t <= view.t]
    entries.sort(key=lambda entry: entry[0])
    return entries[-count:]
