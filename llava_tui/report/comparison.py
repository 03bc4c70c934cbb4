"""Comparisons as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from llava_tui import units
from llava_tui.analysis.comparison import Comparison, Row
from llava_tui.analysis.verdict import Verdict, least_single
from llava_tui.report.page import WATERMARK

MARKS: dict[Verdict, str] = {
    "faster": "▼ FASTER",
    "slower": "▲ SLOWER",
    "same": "= SAME",
    "inconclusive": "? INCONCLUSIVE",
    "not comparable": "✗ NOT COMPARABLE",
}


def as_text(comparisons: Sequence[Comparison]) -> str:
    """The sentences first, then a table each."""
    lines = [_headline(one, len(comparisons) > 1) for one in comparisons]
    if any(one.simulated for one in comparisons):
        lines.append(WATERMARK)
    return "\n\n".join(["\n".join(lines), *("\n".join(_table(one)) for one in comparisons)])


def _headline(one: Comparison, many: bool) -> str:
    case = f"{one.case_b}: " if many and one.case_a == one.case_b else ""
    return case + one.sentence


def _how(one: Comparison) -> str:
    n = one.rows[0].n
    if one.reasons:
        return "NOT COMPARABLE; what was measured:"
    if one.method == "paired rounds":
        return f"paired by round, n {n}; a claim takes ±{100 * one.delta:g} %"
    if one.method == "sessions":
        return f"Welch over sessions, n {n} a side; a claim takes ±{100 * one.delta:g} %"
    spread = f"A/A spread {units.percent(one.spread)}" if one.spread is not None else "no A/A spread stored"
    least = 100 * least_single(one.delta, one.spread)
    return f"single session, n {units.counted(n, 'run')}, {spread}; a claim takes ±{least:.3g} %"


def _table(one: Comparison) -> list[str]:
    title = f"A {one.a}" + (f":{one.case_a}" if one.case_a else "")
    lines = [title, f"B {one.b}" + (f":{one.case_b}" if one.case_b else "")]
    lines.append(f"  {_how(one)}" + ("" if one.reasons else "; Holm over each group of rows"))
    lines += [f"  not comparable: {reason}" for reason in one.reasons]
    lines += [f"  note: {note}" for note in one.notes]
    if common := _common(one):
        lines.append(f"  inconclusive where nothing else is said: {common}")
    width = max(len(row.title) + 2 * row.depth for row in one.rows)
    lines.append(f"  {'':<{width}}{'A':>14}{'B':>14}{'B against A':>13}  {'95 % interval':<23}verdict")
    before = one.rows[0].family
    for row in one.rows:
        if row.family == "metric" != before:
            lines.append("")
        before = row.family
        name = "  " * row.depth + row.title
        lines.append(
            f"  {name:<{width}}{_value(row, row.a):>14}{_value(row, row.b):>14}{units.change(row.effect):>13}"
            f"  {_interval(row):<23}{_verdict(row, one, common)}".rstrip()
        )
    return lines


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """The same for a pull request or an issue."""
    blocks = ["\n".join(f"- **{_escape(_headline(one, len(comparisons) > 1))}**" for one in comparisons)]
    if any(one.simulated for one in comparisons):
        blocks.append(f"> {WATERMARK}")
    for one in comparisons:
        blocks.append(f"### {_escape(one.a)}:{one.case_a} → {_escape(one.b)}:{one.case_b}")
        notes = [*(f"- not comparable: {reason}" for reason in one.reasons), *(f"- {note}" for note in one.notes)]
        if common := _common(one):
            notes.append(f"- inconclusive where nothing else is said: {common}")
        blocks.append("\n".join(map(_escape, (f"- {_how(one)}", *notes))))
        lines = ["| | A | B | B against A | 95 % interval | verdict |", "| --- | ---: | ---: | ---: | --- | --- |"]
        for row in one.rows:
            cells = (
                "&emsp;" * row.depth + row.title,
                _value(row, row.a),
                _value(row, row.b),
                units.change(row.effect),
                _interval(row),
                _verdict(row, one, common),
            )
            lines.append(f"| {' | '.join(map(_escape, cells))} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _escape(text: str) -> str:
    for mark in ("\\", "|", "<", "`", "*"):
        text = text.replace(mark, "\\" + mark)
    return text


def as_json(comparisons: Sequence[Comparison]) -> str:
    """One JSON document; times in ns, effects as fractions, ``null`` for what is not known."""
    document: dict[str, Any] = {
        "slower": any(one.slower for one in comparisons),
        "comparisons": [
            msgspec.to_builtins(one) | {"slower": one.slower, "rows": [_row_json(row) for row in one.rows]}
            for one in comparisons
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _row_json(row: Row) -> dict[str, Any]:
    return dict(msgspec.to_builtins(row)) | {"change": row.change}


def _value(row: Row, value: float | None) -> str:
    return units.duration(value) if row.unit == "ns" else units.number(value, row.unit)


def _interval(row: Row) -> str:
    if row.low is None:
        return units.UNKNOWN
    return f"{units.change(row.low)} … {units.change(row.high)}"


def _verdict(row: Row, one: Comparison, common: str) -> str:
    text = MARKS[row.verdict]
    why = _why(row, one)
    if why and why != common:
        text += f": {why}"
    if row.cycles is not None:
        text += f" (in cycles {units.change(row.cycles)})"
    return text


def _why(row: Row, one: Comparison) -> str:
    """What is said of an inconclusive row."""
    if row.verdict != "inconclusive":
        return ""
    unit = "rounds" if one.method == "paired rounds" else "sessions a side"
    return row.reason + (f"; {row.needed} {unit} would decide" if row.needed else "")


def _common(one: Comparison) -> str:
    """What is said of most inconclusive rows, where that is worth saying once for all."""
    said = Counter(filter(None, (_why(row, one) for row in one.rows))).most_common(1)
    return said[0][0] if said and said[0][1] > 2 else ""
