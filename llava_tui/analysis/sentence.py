"""A comparison in one sentence: what is claimed of the whole run, and which steps make it so."""

from __future__ import annotations

from collections.abc import Sequence

from llava_tui import units
from llava_tui.analysis.compared import Row, Side
from llava_tui.analysis.verdict import Method

POINTS_WORTH_TELLING = 5.0


def names_of(a: Side, b: Side) -> tuple[str, str]:
    """What the two are called: by their cases, where they are of one session."""
    return (a.label, b.label) if a.label != b.label else (a.case, b.case)


def sentence(
    names: tuple[str, str],
    rows: list[Row],
    reasons: Sequence[str],
    method: Method,
    delta: float,
    busy: Sequence[float | None],
    alone: str = "",
) -> str:
    """Of B beside A, ``names``. ``rows`` begin with the whole run; ``reasons``: why nothing can be compared; ``busy``:
    both sides' GPU utilization, percent; ``alone``: what is to be said where no rounds were paired."""
    a, b = names
    if reasons:
        return f"{b} cannot be compared with {a}: {'; '.join(reasons)}."
    whole = rows[0]
    effect = whole.effect or 0.0
    interval = f"{units.change(whole.low)} … {units.change(whole.high)}" if whole.low is not None else "no interval"
    if whole.verdict in ("faster", "slower"):
        text = f"{b} is {_percent(effect)} {whole.verdict} than {a}" + (f" ({alone})" if alone else "")
        parts = _blame(rows)
    else:
        if whole.verdict == "same":
            text = f"{b} is the same as {a} within ±{100 * delta:g} % ({interval})"
        else:
            told = ", ".join(filter(None, (interval, alone)))
            text = f"Not decided: {b} against {a} is {units.change(effect)} ({told})"
            unit = "rounds" if method == "paired rounds" else "sessions a side"
            text += f"; {whole.needed} {unit} would decide" if whole.needed else f"; {whole.reason}"
        parts = [
            f"step {place + 1} {_percent(row.effect or 0.0)} {row.verdict} ({_change(row)})"
            for place, row in enumerate(row for row in rows if row.family == "step")
            if row.verdict in ("faster", "slower")
        ]
    if None not in busy:
        points = float(busy[1] or 0) - float(busy[0] or 0)
        if abs(points) >= POINTS_WORTH_TELLING:
            parts.append(f"GPU utilization {'+' if points > 0 else '−'}{abs(points):.0f} points")
    return text + (f": {', '.join(parts)}" if parts else "") + "."


def _blame(rows: list[Row]) -> list[str]:
    """The steps that make the difference, the largest first, each with the stage that does it."""
    total = rows[0].change or 0.0
    steps = [(place, row) for place, row in enumerate((row for row in rows if row.family == "step"), 1)]
    named = []
    for place, step in sorted(steps, key=lambda pair: -abs(pair[1].change or 0.0)):
        change = step.change
        if change is None or step.verdict not in ("faster", "slower") or abs(change) < 0.1 * abs(total):
            continue
        stages = [row for row in rows if row.key.startswith(step.key + ".") and (row.change or 0.0) * change > 0]
        most = max(stages, key=lambda row: abs(row.change or 0.0), default=None)
        named.append(f"step {place} {_change(step)}" + (f" ({most.title})" if most is not None else ""))
    return named[:3]


def _change(row: Row) -> str:
    change = row.change or 0.0
    return ("+" if change > 0 else "−") + units.duration(abs(change))


def _percent(fraction: float) -> str:
    value = abs(100 * fraction)
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %"
