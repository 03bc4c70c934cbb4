"""What the browser says of the session that the cursor is on: who it is, what was planned, what came of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llava_tui.tui.widgets.cells import TEXT, Line, fit, join, left, wrap
from llava_tui.tui.widgets.session_table import LONGEST, Entry, case_count, model_of, name_of
from llava_tui.tui.widgets.signs import GRADE_STYLES, MARKS, PROVENANCE
from llava_tui.units import UNKNOWN, clock

if TYPE_CHECKING:
    from llava_tui.analysis.done import ItemsDone
    from llava_tui.analysis.steps import StepTable
    from llava_tui.events import DatasetFacts

LABEL = 9
NOTE = 4000
"""Characters of a note that are looked at."""
LEAST_TABLE = 5
"""Lines: a heading, three steps, what is in none of them."""


_SETTINGS = (
    *("dtype", "attention", "vision_attention", "resolution", "threads", "cache", "compile", "quantization"),
    *("media", "device_map", "processes"),
)
"""Of a plan, told where they are not at their default."""


def draw_preview(entry: Entry, tables: Mapping[str, StepTable] | None, width: int, height: int) -> list[Line]:
    """``tables``: the steps tables by case; ``None`` while they are worked out. What matters least gives way."""
    if width < 10 or height < 1:
        return []
    head, details = _head(entry, width), _details(entry, width)
    wanted = LEAST_TABLE if tables is None or tables else 0
    room = max(height - len(head) - wanted, 0)
    lines = [*head, *details[:room]]
    lines += _tables(entry, tables, width, height - len(lines))
    return [fit(line, width) for line in lines[:height]]


def _head(entry: Entry, width: int) -> list[Line]:
    info = entry.info
    mark, word, style = MARKS.get(info.status, ("·", info.status.upper(), TEXT))
    name: list[Line] = [[(name_of(info), "strong")]]
    if info.header is None:
        return [join(name, 2, width), *([(line, "warn")] for line in wrap(info.problem[:NOTE], width))]
    watermark = PROVENANCE.get(info.header.provenance)
    if watermark:
        name.insert(0, [(f" {watermark} ", "watermark")])
    runs = f"{info.runs_done}/{info.runs_planned}" if info.runs_planned else str(info.runs_done)
    how: list[Line] = [[(f"{mark} {word.lower()}", style)], [("runs ", "dim"), (runs, TEXT)]]
    how += [[(clock(info.duration_ns), TEXT)], [(_started(info.header.wall0), "dim")]]
    lines = [fit([*name[0], ("  ", TEXT), *name[1]] if watermark else name[0], width), join(how, 2, width)]
    if info.problem:
        lines += [[(line, "warn")] for line in wrap(info.problem[:NOTE], width)]
    return lines


def _details(entry: Entry, width: int) -> list[Line]:
    """Labelled lines, the most important first."""
    info, digest = entry.info, entry.digest
    if info.header is None:
        return []
    lines: list[Line] = []

    def say(label: str, text: str, style: str = TEXT, most: int = 2) -> None:
        for index, line in enumerate(wrap(text, width - LABEL)[:most]):
            lines.append([(left(label if not index else "", LABEL), "dim"), (line, style)])

    if info.header.dataset is not None:
        say("items", *_items(info.header.dataset, digest.items if digest is not None else None), most=3)
    model = [model_of(info)]
    if digest is not None and digest.model is not None:
        facts = digest.model
        model += [facts.device_name or facts.device, facts.dtype, facts.attention.split("(")[0].split(":")[0].strip()]
    say("model", " · ".join(part[:LONGEST] for part in model if part))
    say("plan", plan_in_words(info.header.plan), most=3)
    if digest is not None and digest.loads:
        say("loads", digest.loads[:NOTE], "warn", 3)
    if info.reason:
        say("ended", info.reason[:NOTE], "warn", 3)
    if entry.baseline:
        say("verdict", "the pinned baseline", "accent")
    elif digest is not None and digest.sentence:
        say("verdict", digest.sentence, most=3)
    if digest is not None and digest.problem:
        say("reading", digest.problem[:NOTE], "warn")
    say("trust", *_trust(entry))
    if digest is not None and digest.memory:
        say("memory", digest.memory[:NOTE], most=4)
    if info.notes.tags:
        say("tags", " ".join("#" + tag[:LONGEST] for tag in info.notes.tags[:50]), "accent")
    if info.notes.note.strip():
        say("note", info.notes.note[:NOTE].strip(), most=8)
    say("id", info.id[:LONGEST], "dim", 1)
    return lines


def _items(dataset: DatasetFacts, done: ItemsDone | None) -> tuple[str, str]:
    from llava_tui.session.reader import safe_text

    name = safe_text(dataset.path, LONGEST).rstrip("/").rpartition("/")[2]
    if done is None:
        return f"{dataset.count:,} of {name}", TEXT
    told = f"{done.done:,} of {done.of:,} of {name} done"
    if done.broken:
        return f"{told}; {done.broken:,} broken: {safe_text(done.first_broken, LONGEST)}", "warn"
    return told, TEXT


def _trust(entry: Entry) -> tuple[str, str]:
    digest = entry.digest
    if digest is None:
        return "…", "dim"
    if not digest.grade:
        return UNKNOWN, "dim"
    worst = next(one for one in digest.trust.values() if one.grade == digest.grade)
    why = next((reason.text for reason in worst.reasons if reason.level != "note"), "")
    case = f" ({worst.case})" if len(digest.cases) > 1 and why else ""
    return digest.grade + (f"{case}: {why}" if why else ""), GRADE_STYLES.get(digest.grade, "bad")


def plan_in_words(plan: Mapping[str, Any]) -> str:
    """A header's plan, which may hold anything, in a line or two."""
    words = []
    count = case_count(dict(plan))
    if count is not None:
        words.append("1 case" if count == 1 else f"{count} cases")
    for field, name in (("frames", "frames"), ("batch", "batch"), ("new_tokens", "tokens")):
        if field == "frames" and plan.get(field) == [0]:
            words.append("text only")
        elif (value := plan.get(field)) is not None and value != [1]:
            words.append(f"{name} {_listed(value)}")
    for field in _SETTINGS:
        if value := plan.get(field):
            words += [f"{field.replace('_', ' ')} {_listed(value)}"] if value not in ("auto", "off", "none", 1) else []
    for field in ("rounds", "warmup"):
        if (value := plan.get(field)) is not None:
            words.append(f"{field.replace('warmup', 'warm-up')} {_listed(value)}")
    if value := plan.get("dataset") or plan.get("inputs"):
        words.append(f"on {_listed(value)}")
    return " · ".join(words) or UNKNOWN


def _listed(value: object) -> str:
    from llava_tui.session.reader import safe_text

    values: Sequence[object] = value if isinstance(value, (list, tuple)) else [value]
    shown = ", ".join(str(one)[-LONGEST:].rstrip("/").rpartition("/")[2] for one in values[:8])
    return safe_text(shown + (", …" if len(values) > 8 else ""), LONGEST)


def _started(wall_ns: int) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(wall_ns / 1e9):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def _tables(entry: Entry, tables: Mapping[str, StepTable] | None, width: int, height: int) -> list[Line]:
    if height < 2 or entry.info.header is None:
        return []
    if tables is None:
        return [[], [("reading the session …", "dim")]][:height]
    from llava_tui.tui.widgets.steps import draw_table, layout, shown_rows

    measured = [case for case, table in tables.items() if table.n] or list(tables)[:1]
    if not measured:
        return []
    gap = 1 if height > 8 else 0
    every = max(len(tables[case].rows) for case in measured) + 2 + gap
    steps = max(len(shown_rows(tables[case], 0)) for case in measured) + 2 + gap
    size = every if every * len(measured) <= height else steps
    shown = measured[: max(height // size, 1)]
    lines: list[Line] = []
    for case in shown:
        grade = entry.digest.trust[case].grade if entry.digest is not None and case in entry.digest.trust else None
        told = f"{case} · trust {grade}"
        heading = told if grade and len(measured) > 1 and len(told) + 2 < layout(width)["title"] else case
        lines += [[]] * gap
        lines += draw_table(tables[case], heading, width, size - gap if len(shown) > 1 else height - gap)
    if (left_out := len(measured) - len(shown)) and len(lines) < height:
        lines.append([(f" … and {left_out} more {'case' if left_out == 1 else 'cases'}", "dim")])
    return lines[:height]
