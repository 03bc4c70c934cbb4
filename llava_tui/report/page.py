"""Parts of a printed page: what a terminal and Markdown show alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from llava_tui import units
from llava_tui.analysis.statistics import Summary

WATERMARK = "SIMULATED: times from a model of the hardware, not from hardware"
"""What a page says of a simulated session."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the page: a title, lines, and a table whose first column is text."""

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def as_text(block: Block) -> str:
    """For a terminal: the table's columns aligned, figures to the right."""
    lines = [block.title, *(f"  {line}" for line in block.lines)]
    if block.rows:
        table = [block.columns, *block.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(block.columns))]
        for row in table:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(block: Block, level: int) -> str:
    """For a pull request, under a heading of ``level``."""
    parts = [f"{'#' * level} {_escape(block.title)}"]
    if block.lines:
        parts.append("\n".join(f"- {_escape(line.strip())}" for line in block.lines))
    if block.rows:
        head = f"| {' | '.join(map(_escape, block.columns))} |"
        rule = f"| --- |{' ---: |' * (len(block.columns) - 1)}"
        rows = [f"| {' | '.join(_escape(_indent(cell)) for cell in row)} |" for row in block.rows]
        parts.append("\n".join([head, rule, *rows]))
    return "\n\n".join(parts)


def interval(summary: Summary) -> str:
    """The interval of a summary of durations, or why there is none."""
    if summary.n == 0:
        return units.UNKNOWN
    if summary.low is None:
        return f"too few ({summary.n} of 6)"
    return units.interval(summary.low, summary.high, summary.n)


def summary_json(summary: Summary) -> dict[str, Any]:
    """A summary with its relative spreads."""
    spreads = {"stability": summary.stability, "relative_iqr": summary.relative_iqr}
    return dict(msgspec.to_builtins(summary)) | spreads


def _indent(cell: str) -> str:
    """Leading spaces as Markdown keeps them."""
    text = cell.lstrip(" ")
    return "\N{EM SPACE}" * ((len(cell) - len(text)) // 2) + text


def _escape(text: str) -> str:
    for mark in ("\\", "|", "<", "`", "*", "_"):
        text = text.replace(mark, "\\" + mark)
    return text
