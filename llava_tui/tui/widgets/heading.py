"""The line at the top: which session, in what condition; and the line at the bottom: how far, and which keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava_tui.analysis.measures import case_values
from llava_tui.tui.widgets import figures
from llava_tui.tui.widgets.cells import TEXT, Line, clip, fit, join, width_of
from llava_tui.tui.widgets.course import progress
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.signs import GRADE_STYLES, MARKS, PROVENANCE

if TYPE_CHECKING:
    from llava_tui.session.timeline import View

WIDE = 120
"""From this many columns on the heading says how far the figures can be trusted."""
REGRADE_NS = 5_000_000_000


def heading_key(view: View, look: Look) -> object:
    """The remaining time moves by seconds."""
    return (view.t // 1_000_000_000, view.runs.n, view.started.n, view.models.n, view.state, look.status, look.case)


def draw_heading(view: View, look: Look, width: int, height: int) -> list[Line]:
    """``● LIVE  llava-1.5-7b  · cuda:0 · bf16 · sdpa  run 43/120  ETA 02:11  round 7/20  frames 4  demo.mp4``."""
    mark, word, style = MARKS.get(look.status, ("●", look.status.upper(), "strong"))
    condition: Line = [(f" {mark} {word}", style)]
    if look.status == "running" and view.state not in ("measuring", "paused"):
        condition.append((f" {view.state}", TEXT))
    parts: list[Line] = [condition]
    if watermark := PROVENANCE.get(view.header.provenance):
        parts.append([(f" {watermark} ", "watermark")])
    parts.append([(clip(model_name(view), max(width // 3, 12)), "strong")])
    model_at = len(parts) - 1
    how = progress(view)
    most = "≤" if how.open else ""
    if how.planned is not None:
        parts.append([("run ", "dim"), (f"{how.done}/{most}{how.planned}", TEXT)])
    if how.eta is not None and look.status == "running":
        parts.append([("ETA ", "dim"), (most + figures.clock(how.eta), TEXT)])
    if how.round is not None and how.rounds:
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


def trust_grade(view: View, look: Look) -> str:
    """The grade of the case that is shown, "" before it has one. Graded again when a run has ended, which costs some
    milliseconds: where runs are short every :data:`REGRADE_NS` only, where there are many when a hundredth more has."""
    from llava_tui.analysis.trust import badge

    case, condition = look.case_of(view), (look.status, view.state)
    moment = view.t // REGRADE_NS if look.brisk(view) else view.runs.n
    runs = look.once("runs graded", (moment, condition), lambda: view.runs.n)
    some = max(runs // 100, 1)
    return look.once("trust", (case, runs // some, condition), lambda: badge(view, case, look.status).grade or "")


def model_name(view: View) -> str:
    """The model by its own name, without the folder or the owner."""
    name = view.model.name if view.model is not None and view.model.name else view.header.model
    return name.rstrip("/").rpartition("/")[2] or name


def model_facts(view: View) -> str:
    """``cuda:0 · bf16 · sdpa``."""
    model = view.model
    if model is None:
        return ""
    short = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    # "sdpa (flash, math)": which backends there are has its place elsewhere.
    attention = model.attention.split("(")[0].split(":")[0].strip()
    facts = dict.fromkeys((model.device, short.get(model.dtype, model.dtype), attention))
    return " · ".join(fact for fact in facts if fact)


def _case_values(view: View, look: Look) -> list[str]:
    values = case_values(view, look.case_of(view))
    words = [f"frames {values['frames']}"] if "frames" in values else []
    if values.get("batch", 1) != 1:
        words.append(f"batch {values['batch']}")
    if "new_tokens" in values:
        words.append(f"tokens {values['new_tokens']}")
    return words


def _input(view: View) -> str:
    current = view.current
    item = str(current["item"]) if current is not None else ""
    if not item:
        inputs = view.header.plan.get("inputs") or [""]
        item = str(inputs[0]) if isinstance(inputs, (list, tuple)) else ""
    return item.rstrip("/").rpartition("/")[2]


# --- the bottom -----------------------------------------------------------------------------------------------------


def transport_key(view: View, look: Look) -> object:
    return (view.t // 1_000_000_000, view.runs.n, look.status)


def draw_transport(view: View, look: Look, width: int, height: int) -> list[Line]:
    """How much of the session is behind: of its runs while it goes on, and the time."""
    mark, _, style = MARKS.get(look.status, ("●", "", "strong"))
    how = progress(view)
    if look.live:
        part = min(how.done / how.planned, 1.0) if how.planned else 0.0
    else:
        whole = view.timeline.end - view.timeline.start
        part = min(max((view.t - view.timeline.start) / whole, 0.0), 1.0) if whole > 0 else 1.0
    time = figures.clock(view.t - view.timeline.start)
    cells = max(width - len(time) - 4, 0)
    at = min(int(part * cells), max(cells - 1, 0))
    return [
        fit(
            [
                (" ", TEXT),
                ("━" * at, style),
                (mark if cells else "", style),
                ("─" * max(cells - at - 1, 0), "track"),
                ("  " + time, "strong"),
            ],
            width,
        )
    ]
