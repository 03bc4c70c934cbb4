"""Several ranks side by side, as text and as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from llava_tui import units
from llava_tui.analysis.ranks import rank_table
from llava_tui.session.reader import safe_text
from llava_tui.session.timeline import Timeline, View


def head(timeline: Timeline) -> list[str]:
    """A line that names the ranks, where there are several."""
    if len(timeline.ranks) < 2:
        return []
    planned = timeline.header.plan.get("processes")
    missing = planned - len(timeline.ranks) if isinstance(planned, int) else 0
    told = [f"{len(timeline.ranks)} ranks", "the figures below are of rank 0, and of all side by side"]
    return ["  ranks    " + "; ".join(told + ([f"{missing} never came"] if missing > 0 else []))]


def lines(view: View, case: str) -> list[str]:
    """Of a case: a line a rank, and what they come to together; nothing where there is one rank."""
    table = rank_table(view, case)
    if table is None:
        return []
    steps = "".join(f"{safe_text(title):>14}" for title in table.titles)
    found = [f"  {'rank':<6}{'device':<10}{'n':>5}{'items':>8}{'run':>11}{steps}{'items/s':>11}{'waits':>9}"]
    for row in table.rows:
        medians = "".join(f"{units.duration(median):>14}" for median in row.steps)
        found.append(
            f"  {row.rank:<6}{safe_text(row.device) or units.UNKNOWN:<10}{row.n:>5}{row.items:>8}"
            f"{units.duration(row.wall.median):>11}{medians}"
            f"{units.number(row.items_per_second):>11}{units.percent(row.waits):>9}"
        )
    told = [f"{units.number(table.items_per_second, 'items/s')} together, in {units.counted(table.together, 'run')}"]
    if table.imbalance is not None:
        told.append(f"slowest / fastest {table.imbalance:.3f}")
    return [*found, "  all   " + "   ".join(told)]


def as_json(view: View, case: str) -> dict[str, Any] | None:
    """The same; times in ns, ``null`` for what is not known. ``None`` where there is one rank."""
    table = rank_table(view, case)
    return None if table is None else dict(msgspec.to_builtins(table))
