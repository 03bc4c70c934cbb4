"""The line at the top: which session, in what condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava_tui.analysis.measures import case_values
from llava_tui.tui.widgets import figures
from llava_tui.tui.widgets.cells import TEXT, Line, clip, join, width_of
from llava_tui.tui.widgets.course import progress
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.signs import GRADE_STYLES, MARKS, PROVENANCE

if TYPE_CHECKING:
    from llava_tui.analysis.done import ItemsDone
    from llava_tui.session.timeline import View

WIDE = 120
"""From this many columns on the heading says how far the figures can be trusted."""
SECOND = 1_000_000_000
REGRADE_NS = 5_000_000_000


def heading_key(view: View, look: Look) -> object:
    """The remaining time moves by seconds."""
    second = view.t // SECOND if look.following(view) else 0
    counted = (view.runs.n, view.started.n, view.models.n, view.schedules.n, view.facts.n)
    told = (*counted, view.state, look.case_of(view))
    return (second, *told, look.status, look.line, look.behind(view), graded(view, look)[1])


def draw_heading(view: View, look: Look, width: int, height: int) -> list[Line]:
    """``● LIVE  llava-1.5-7b  · cuda:0 · bfloat16 · sdpa  run 43/120  ETA 02:11  round 7/20  frames 4  demo.mp4``;
    ``● LIVE −0:42`` behind what is happening now."""
    mark, word, style = MARKS.get(look.status, ("●", look.status.upper(), "strong"))
    condition: Line = [(f" {mark} {word}", style)]
    if (behind := look.behind(view)) is not None:
        condition.append((f" {back(behind)}", "warn"))
    if look.status == "running" and view.state not in ("measuring", "paused"):
        condition.append((f" {view.state}", TEXT))
    if look.line:
        condition.append((" ▲ cut off", "warn"))
    parts: list[Line] = [condition]
    if watermark := PROVENANCE.get(view.header.provenance):
        parts.append([(f" {watermark} ", "watermark")])
    parts.append([(clip(model_name(view), max(width // 3, 12)), "strong")])
    model_at = len(parts) - 1
    how = progress(view)
    most = "≤" if how.open else ""
    items = _items(view, look)
    if items is not None:
        parts.append([("items ", "dim"), (f"{items.done:,}/{items.of:,}", TEXT)])
        if items.broken:
            parts.append([(f"✗ {items.broken:,} broken", "warn")])
    if how.planned is not None:
        parts.append([("run ", "dim"), (f"{how.done}/{most}{how.planned}", TEXT)])
    if how.eta is not None and look.status == "running" and look.following(view):
        parts.append([("ETA ", "dim"), (most + figures.clock(how.eta), TEXT)])
    if items is None and how.round is not None and how.rounds:
        parts.append([("round ", "dim"), (f"{how.round + 1}/{most}{how.rounds}", TEXT)])
    if facts := model_facts(view):
        # Beside the name, though it is the first thing to go.
        wide = [*parts[: model_at + 1], [("· " + facts, TEXT)], *parts[model_at + 1 :]]
        if sum(width_of(part) for part in wide) + 2 * len(wide) <= width:
            parts = wide
    if width >= WIDE and (grade := trust_grade(view, look)):
        parts.append([("trust ", "dim"), (grade, GRADE_STYLES.get(grade, "bad"))])
    for value in _case_values(view, look):
        parts.append([(value, "dim")])
    if (name := _input(view)) != model_name(view):
        parts.append([(clip(name, 24), "dim")])
    return [join(parts, 2, width)]


def graded(view: View, look: Look) -> tuple[View, tuple[int, ...]]:
    """What is graded, and a stamp of it. Grading costs some milliseconds: it is done when a run has ended, or every
    :data:`REGRADE_NS` where that is later or runs are short; at its end a session is graded whole. It depends on the
    time that is shown alone, so that a grade is the same however that was come to."""
    moment = view.t
    if not look.over(view):
        moment -= (view.t - view.timeline.start) % REGRADE_NS
        if view.runs.n and not look.brisk(view):
            moment = max(moment, int(view.runs["t"][-1]))
    then = view.timeline.at(moment)
    tables = (then.runs, then.samples, then.processes, then.host, then.facts, then.models, then.log)
    return then, (moment, *(table.n for table in tables))


def trust_grade(view: View, look: Look) -> str:
    """The grade of the case that is shown, "" before it has one."""
    from llava_tui.analysis.trust import badge

    case = look.case_of(view)
    then, stamp = graded(view, look)
    return look.once("trust", (case, look.status, *stamp), lambda: badge(then, case, look.status).grade or "")


def back(seconds: int) -> str:
    """How long ago: ``−0:42``, ``−1:02:34``."""
    hours, rest = divmod(seconds, 3600)
    return f"−{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"−{rest // 60}:{rest % 60:02}"


def model_name(view: View) -> str:
    """The model by its own name, without the folder or the owner."""
    name = view.model.name if view.model is not None and view.model.name else view.header.model
    return name.rstrip("/").rpartition("/")[2] or name


def model_facts(view: View) -> str:
    """``cuda:0 · bfloat16 · sdpa``; ``2 ranks · bfloat16 · sdpa``."""
    model = view.model
    if model is None:
        return ""
    # "sdpa (flash, math)": which backends there are has its place elsewhere.
    attention = model.attention.split("(")[0].split(":")[0].strip()
    ranks = len(view.timeline.ranks)
    facts = dict.fromkeys((model.device if ranks == 1 else f"{ranks} ranks", model.dtype, attention))
    return " · ".join(fact for fact in facts if fact)


def _items(view: View, look: Look) -> ItemsDone | None:
    """How far the case that is shown is through its data set."""
    if view.header.dataset is None:
        return None
    from llava_tui.analysis.done import items_done

    case = look.case_of(view)
    return look.once("items", (view.runs.n, view.facts.n, case), lambda: items_done(view, case))


def _case_values(view: View, look: Look) -> list[str]:
    values = case_values(view, look.case_of(view))
    frames = values.get("frames")
    words = [] if frames is None else [f"frames {frames}"] if frames else ["text only"]
    if values.get("batch", 1) != 1:
        words.append(f"batch {values['batch']}")
    if "new_tokens" in values:
        words.append(f"tokens {values['new_tokens']}")
    return words


def _input(view: View) -> str:
    current = view.current
    item = str(current["item"]) if current is not None else ""
    if not item:
        dataset = view.header.dataset
        inputs = [dataset.path] if dataset is not None else view.header.plan.get("inputs") or [""]
        item = str(inputs[0]) if isinstance(inputs, (list, tuple)) else ""
    return item.rstrip("/").rpartition("/")[2]
