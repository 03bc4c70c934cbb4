"""Which part of the monitor gets how many lines. A larger screen adds; what is there stays."""

from __future__ import annotations

from dataclasses import dataclass

SIDE_BY_SIDE = 100
"""From this width on, output and log stand beside each other."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What there is to show."""

    steps: int = 12
    """Lines of the whole table, heading and figures included."""
    top_steps: int = 3
    """Steps, without their stages."""
    machine: int = 6
    """Lines of the whole machine panel."""


def arrange(width: int, height: int, wants: Wants) -> dict[str, int]:
    """Lines of each part; they add up to ``height`` wherever that is at least 1.

    Parts: heading, steps, run, machine, output, log, transport, footer.
    """
    beside = width >= SIDE_BY_SIDE
    lines = dict.fromkeys(("heading", "steps", "run", "machine", "output", "log", "transport", "footer"), 0)
    room = max(height, 0)

    def grow(part: str, to: int) -> None:
        nonlocal room
        more = min(max(to - lines[part], 0), room)
        lines[part] += more
        room -= more

    grow("heading", 1)
    grow("steps", 1 + wants.top_steps)
    grow("footer", 1)
    grow("machine", min(2, wants.machine))
    grow("steps", 2 + wants.top_steps)
    grow("run", 1)
    grow("log", 1)
    grow("steps", wants.steps)
    grow("machine", min(4, wants.machine))
    if beside:
        grow("log", 3)
    else:
        grow("output", 2)
        grow("log", 3)
    grow("transport", 1)
    grow("machine", wants.machine)
    if beside:
        grow("log", height)
        lines["output"] = lines["log"]
    else:
        half = room // 2
        grow("output", lines["output"] + half)
        grow("log", height)
    return lines
