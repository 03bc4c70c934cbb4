"""What every line of a session's streams has: the ground that :mod:`llava_tui.events` and :mod:`llava_tui.readings`
stand on."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """What every line of ``events.jsonl`` and ``telemetry.jsonl`` has."""

    t: int
    """CLOCK_MONOTONIC, ns."""
    rank: int = 0
