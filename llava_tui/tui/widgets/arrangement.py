"""Which part of the monitor gets how many lines. A larger screen adds; what is there stays."""

from __future__ import annotations

from typing import NamedTuple

SIDE_BY_SIDE = 100
"""From this width on, output and log stand beside each other."""


FIRST_RIBBONS = 4
"""Ranks that have a ribbon before log and output have their lines."""
PARTS = ("heading", "steps", "run", "gauges", "strips", "output", "log", "transport", "footer")


class Wants(NamedTuple):
    """What there is to show, in lines: at the least, and at the most."""

    top_steps: int = 3
    """Steps, without their stages."""
    steps: tuple[int, int] = (13, 16)
    """The table, heading and figures included; and with what stages leave of their steps."""
    gauges: tuple[int, int] = (1, 2)
    strips: tuple[int, int] = (4, 6)
    ribbons: int = 1
    """Of the strips' lines: one a rank."""


def arrange(width: int, height: int, wants: Wants) -> dict[str, int]:
    """Lines of each of :data:`PARTS`. They add up to ``height``; where output and log stand beside each other, they are
    counted once."""
    beside = width >= SIDE_BY_SIDE
    lines = dict.fromkeys(PARTS, 0)
    room = max(height, 0)

    def grow(part: str, to: int) -> None:
        nonlocal room
        more = min(max(to - lines[part], 0), room)
        lines[part] += more
        room -= more

    # What matters most comes first.
    grow("heading", 1)
    grow("steps", wants.top_steps)
    grow("footer", 1)
    grow("steps", 1 + wants.top_steps)
    grow("gauges", 1)
    grow("transport", 1)
    grow("strips", 1)
    grow("steps", 2 + wants.top_steps)
    grow("run", 1)
    grow("log", 1)
    grow("steps", wants.steps[0])
    grow("gauges", wants.gauges[0])
    grow("strips", min(2 + min(wants.ribbons, FIRST_RIBBONS), wants.strips[0]))
    if beside:
        grow("log", 3)
    else:
        grow("output", 2)
        grow("log", 3)
    grow("strips", wants.strips[0])
    grow("gauges", wants.gauges[1])
    grow("log", 6)
    grow("strips", wants.strips[1])
    grow("steps", wants.steps[1])
    if not beside:
        grow("output", lines["output"] + room // 2)
    grow("log", lines["log"] + room)
    if beside:
        lines["output"] = lines["log"]
    return lines
