"""Comparisons as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llava_tui import units
from llava_tui.analysis.comparison import Comparison, Row
from llava_tui.analysis.verdict import Verdict

MARKS: dict[Verdict, str] = {
    "faster": "▼ FASTER",
    "slower": "▲ SLOWER",
    "same": "= SAME",
    "inconclusive": "? INCONCLUSIVE",
    "not comparable": "✗ NOT COMPARABLE",
}
WATERMARK = "SIMULATED: times from a model of the hardware, not from hardware"


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
    if one.verdict == "not comparable":
        return "not comparable"
    if one.method == "paired rounds":
        return f"paired by round, n {n}"
    if one.method == "sessions":
        return f"Welch over sessions, n {n} a side"
    spread = f"A/A spread {units.percent(one.spread)}" if one.spread is not None else "no A/A spread stored"
    return f"single session, n {n} runs, {spread}"


def _table(one: Comparison) -> list[str]:
    title = f"A {one.a}" + (f":{one.case_a}" if one.case_a else "")
    lines = [title, f"B {one.b}" + (f":{one.case_b}" if one.case_b else "")]
    lines.append(f"  {_how(one)}; a claim takes ±{100 * one.delta:g} %, 95 % intervals, Holm over each group of rows")
    lines += [f"  not comparable: {reason}" for reason in one.reasons]
    lines += [f"  note: {note}" for note in one.notes]
    width = max(len(row.title) + 2 * row.depth for row in one.rows)
    lines.append(f"  {'':<{width}}{'A':>14}{'B':>14}{'B against A':>13}  {'95 % interval':<23}verdict")
    before = one.rows[0].family
    for row in one.rows:
        if row.family == "metric" != before:
            lines.append("")
        before = row.family
        name = "  " * row.depth + row.title
        lines.append(
            f"  {name:<{width}}{_value(row, row.a):>14}{_value(row, row.b):>14}{_signed(row.effect):>13}"
            f"  {_interval(row):<23}{_verdict(row)}".rstrip()
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
        blocks.append("\n".join(map(_escape, (f"- {_how(one)}; a claim takes ±{100 * one.delta:g} %", *notes))))
        lines = ["| | A | B | B against A | 95 % interval | verdict |", "| --- | ---: | ---: | ---: | --- | --- |"]
        for row in one.rows:
            cells = (
                "&emsp;" * row.depth + row.title,
                _value(row, row.a),
                _value(row, row.b),
                _signed(row.effect),
                _interval(row),
                _verdict(row),
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


def _signed(fraction: float | None) -> str:
    if fraction is None:
        return units.UNKNOWN
    return ("+" if fraction > 0 else "−" if fraction < 0 else "") + units.percent(abs(fraction))


def _interval(row: Row) -> str:
    if row.low is None:
        return units.UNKNOWN
    return f"{_signed(row.low)} … {_signed(row.high)}"


def _verdict(row: Row) -> str:
    text = MARKS[row.verdict]
    if row.verdict == "inconclusive":
        text += f": {row.reason}" if row.reason else ""
        text += f"; {row.needed} would decide" if row.needed else ""
    if row.cycles is not None:
        text += f" (in cycles {_signed(row.cycles)})"
    return text
