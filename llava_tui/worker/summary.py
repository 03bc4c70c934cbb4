"""``summary.json``: what a list of sessions wants to know without reading the streams. Rebuildable."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter, defaultdict
from typing import Any

from llava_tui.events import SCHEMA, RunEnd
from llava_tui.worker.schedule import Planned


class Summary:
    """Gathers measured runs as they end."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._walls: defaultdict[str, array[int]] = defaultdict(_times)
        self._first_tokens: defaultdict[str, array[int]] = defaultdict(_times)
        self._held: dict[str, int] = {}
        self._steps: defaultdict[str, defaultdict[str, array[int]]] = defaultdict(lambda: defaultdict(_times))

    def add(self, end: RunEnd, planned: Planned | None) -> None:
        """A run ended; only measured ones that are ok enter the medians."""
        if planned is None:
            return
        self._outcomes[end.outcome] += 1
        if (end.kind or planned.kind) != "measured" or end.outcome != "ok":
            return
        case = planned.case.id
        self._walls[case].append(end.wall)
        if end.token_times:
            self._first_tokens[case].append(end.token_times[0])
        # What the device's allocator held at most; on the host, what the process did.
        reserved = [value for value in end.reserved if value is not None] or [end.rss or 0]
        self._held[case] = max(self._held.get(case, 0), *reserved)
        for path, duration in zip(end.stages, end.durations, strict=True):
            if "." not in path and duration is not None:
                self._steps[case][path].append(duration)

    def document(self, state: str, reason: str) -> dict[str, Any]:
        """Medians are nanoseconds, memory is bytes."""
        return {
            "schema": list(SCHEMA),
            "state": state,
            "reason": reason,
            "runs": dict(self._outcomes),
            "cases": {
                case: {
                    "measured": len(walls),
                    "wall": statistics.median(walls),
                    "first_token": statistics.median(self._first_tokens[case]) if self._first_tokens[case] else None,
                    "memory": self._held[case] or None,
                    "steps": {path: statistics.median(values) for path, values in self._steps[case].items()},
                }
                for case, walls in self._walls.items()
            },
        }


def _times() -> array[int]:
    """Nanoseconds, eight bytes each: a data set may have a hundred thousand runs."""
    return array("q")
