"""How the screens write figures: as everywhere, and what fits a narrow column."""

from __future__ import annotations

import math

from llava_tui.units import UNKNOWN as NONE
from llava_tui.units import clock, digits, duration, elapsed, interval

__all__ = ["NONE", "clock", "digits", "duration", "elapsed", "energy", "gib", "interval", "memory", "percent", "share"]


def share(value: float | None) -> str:
    """A share 0…1 as percent: ``10.8 %``."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value * 100:.1f} %"


def percent(value: float | None) -> str:
    """Percent as it is: ``97 %``."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.0f} %"


def gib(value: float | None) -> str:
    """Bytes in GiB, without the unit: ``15.3``; small ones with two places."""
    if value is None or not math.isfinite(value):
        return NONE
    amount = value / 2**30
    return f"{amount:.1f}" if amount >= 0.995 else f"{amount:.2f}"


def memory(value: float | None) -> str:
    """Bytes with a unit: ``412 MiB``, ``15.3 GiB``."""
    if value is None or not math.isfinite(value):
        return NONE
    if value < 2**30:
        return f"{value / 2**20:.0f} MiB"
    return f"{value / 2**30:.1f} GiB"


def energy(joules: float | None) -> str:
    """``840 J``, ``1.2 kJ``."""
    if joules is None or not math.isfinite(joules):
        return NONE
    return f"{joules:.0f} J" if joules < 1000 else f"{joules / 1000:.1f} kJ"
