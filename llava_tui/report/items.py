"""Many inputs: what each took, which took longest and which could not be read, as text and as JSON."""

from __future__ import annotations

from typing import Any

from llava_tui import units
from llava_tui.analysis.items import ItemTable, item_table
from llava_tui.report.page import summary_json
from llava_tui.session.items import read_items
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.timeline import Timeline, View
from llava_tui.session_files import Item

SLOWEST = 5
BROKEN = 3
"""Shown in the text; the JSON has all."""


def head(timeline: Timeline) -> list[str]:
    """What the session is about: its data set, or its inputs."""
    dataset = timeline.header.dataset
    if dataset is None:
        told = ", ".join(safe_text(str(path)) for path in timeline.header.plan.get("inputs", ()))
        return [f"  input    {told}"]
    return [f"  items    {units.counted(dataset.count, 'item')} of {safe_text(dataset.path)}"]


def lines(view: View, case: str) -> list[str]:
    """Of a case; nothing where there are not several inputs."""
    table = item_table(view, case)
    if table is None:
        return []
    names = Names(view.timeline)
    partial = sum(batch.partial for batch in table.batches)
    told = [units.counted(table.done, "item"), units.number(table.per_second, "items/s")]
    told.append(f"{units.duration(table.each.median)} an item")
    if partial:
        apart = units.counted(partial, "run")
        told.append(f"{apart} of fewer items than the batch, in no median")
    found = ["  items    " + "   ".join(told)]
    if len(table.times) > 1:
        slow = (f"{names.of(item)} {units.duration(time)}" for item, time in table.slowest(SLOWEST))
        found.append("  slowest  " + "   ".join(slow))
    found += [f"  left out {safe_text(event.name)}: {safe_text(event.reason)}" for event in table.broken[:BROKEN]]
    if len(table.broken) > BROKEN:
        found.append(f"  left out {len(table.broken) - BROKEN:,} more (show --json has all)")
    return found


def as_json(view: View, case: str) -> dict[str, Any] | None:
    """The same and every run's items; times in ns. ``None`` where there are not several inputs."""
    table = item_table(view, case)
    if table is None:
        return None
    names = Names(view.timeline)
    return {
        "done": table.done,
        "per_second": table.per_second,
        "each": summary_json(table.each),
        "slowest": [_item_json(names, item, time) for item, time in table.slowest(SLOWEST)],
        "broken": [
            {"item": event.item, "name": event.name, "reason": event.reason, "run": event.run} for event in table.broken
        ],
        "items": [_item_json(names, item, time) for item, time in sorted(table.times.items())],
        "batches": _batches_json(table),
    }


def _item_json(names: Names, item: int, time: float) -> dict[str, Any]:
    return {"item": item, "name": names.of(item), "time": time}


def _batches_json(table: ItemTable) -> list[dict[str, Any]]:
    return [
        {"run": batch.run, "items": list(batch.items), "wall": batch.wall, "each": batch.each, "partial": batch.partial}
        for batch in table.batches
    ]


class Names:
    """Short names of a session's items, safe to draw; their numbers where the items cannot be read."""

    def __init__(self, timeline: Timeline) -> None:
        inputs = timeline.header.plan.get("inputs", ())
        self._items = [Item(str(path)) for path in inputs] if isinstance(inputs, (list, tuple)) else []
        if timeline.header.dataset is not None:
            try:
                self._items = read_items(timeline.path)
            except SessionError:
                self._items = []

    def of(self, item: int) -> str:
        """Of the item at that place."""
        return safe_text(self._items[item].name, 60) if 0 <= item < len(self._items) else f"item {item}"
