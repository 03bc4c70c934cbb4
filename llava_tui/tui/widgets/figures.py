"""How figures are written: few digits, one unit, ``—`` where nothing is known."""

from __future__ import annotations

import math

NONE = "—"
"""Not known. Never 0."""


_UNITS = ((999.5, 1.0, "ns"), (999_500, 1e3, "µs"), (999_500_000, 1e6, "ms"), (math.inf, 1e9, "s"))
"""Below which a unit holds, ns in it, its name."""


def duration(ns: float | None) -> str:
    """Nanoseconds for people: ``4.1 ms``, ``1.041 s``, ``2:11``. At most 8 cells."""
    if ns is None or not math.isfinite(ns):
        return NONE
    sign = "-" if ns < 0 else ""
    value = abs(ns)
    if value < 999.5:
        return f"{sign}{value:.0f} ns"
    if value < 999_500:
        return f"{sign}{digits(value / 1e3)} µs"
    if value < 999_500_000:
        return f"{sign}{digits(value / 1e6)} ms"
    if value < 59_999_500_000:
        return f"{sign}{value / 1e9:.3f} s" if value < 9_999_500_000 else f"{sign}{value / 1e9:.2f} s"
    return sign + clock(value)


def interval(low: float | None, high: float | None, n: int) -> str:
    """``125 … 126 ms``, in the unit of the upper end; ``n < 6`` where too few values make one."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "too few" if n else NONE
    top = max(abs(low), abs(high))
    scale, unit = next((scale, unit) for limit, scale, unit in _UNITS if top < limit)
    # Three digits of the value, or as many as tell the ends apart by two.
    value, apart = top / scale, (high - low) / scale
    places = 2 - math.floor(math.log10(value)) if value > 0 else 0
    if apart > 0:
        places = max(places, 1 - math.floor(math.log10(apart)))
        places = min(places, 4 - math.floor(math.log10(max(value, 1.0))))
    places = 0 if unit == "ns" else min(max(places, 0), 3)
    return f"{low / scale:.{places}f} … {high / scale:.{places}f} {unit}"


def digits(value: float) -> str:
    """Three significant digits and at least one place below 100: ``4.13``, ``73.4``, ``126``."""
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}"


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


def clock(ns: float) -> str:
    """Time since the start: ``02:34``, ``1:02:34``."""
    seconds = max(0, int(ns / 1e9))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def elapsed(ns: float) -> str:
    """How long something has been going on: tenths below a minute, so that it is seen to move."""
    return f"{max(ns, 0) / 1e9:.1f} s" if ns < 60e9 else clock(ns)


def energy(joules: float | None) -> str:
    """``840 J``, ``1.2 kJ``."""
    if joules is None or not math.isfinite(joules):
        return NONE
    return f"{joules:.0f} J" if joules < 1000 else f"{joules / 1000:.1f} kJ"
