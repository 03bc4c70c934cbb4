"""Quantities as people read them: three significant digits, the unit that fits, ``—`` for what is not known."""

from __future__ import annotations

import math

UNKNOWN = "—"
MINUS = "−"
"""In what people read; other programs are given numbers."""


_TIMES = ((999.5, 1.0, "ns"), (999_500, 1e3, "µs"), (999_500_000, 1e6, "ms"), (math.inf, 1e9, "s"))
"""Below which a unit holds, ns in it, its name."""


def duration(ns: float | None) -> str:
    """Nanoseconds as ``12 ns``, ``4.13 µs``, ``126 ms``, ``1.041 s``, ``02:05`` or ``2:05:03``; the sign is kept."""
    if ns is None or not math.isfinite(ns):
        return UNKNOWN
    sign = MINUS if ns < 0 else ""
    value = abs(ns)
    if value >= 59_999_500_000:
        return sign + clock(value)
    if value >= 999_500_000:
        return f"{sign}{value / 1e9:.3f} s" if value < 9_999_500_000 else f"{sign}{value / 1e9:.2f} s"
    scale, unit = next((scale, unit) for limit, scale, unit in _TIMES if value < limit)
    return f"{sign}{value:.0f} ns" if unit == "ns" else f"{sign}{digits(value / scale)} {unit}"


def interval(low: float | None, high: float | None, n: int) -> str:
    """``125 … 126 ms``, in the unit of the upper end; ``n < 6`` where too few values make one."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "too few" if n else UNKNOWN
    top = max(abs(low), abs(high))
    scale, unit = next((scale, unit) for limit, scale, unit in _TIMES if top < limit)
    # Three digits of the value, or as many as tell the ends apart by two.
    value, apart = top / scale, (high - low) / scale
    places = 2 - math.floor(math.log10(value)) if value > 0 else 0
    if apart > 0:
        places = max(places, 1 - math.floor(math.log10(apart)))
        places = min(places, 4 - math.floor(math.log10(max(value, 1.0))))
    places = 0 if unit == "ns" else min(max(places, 0), 3)
    return f"{low / scale:.{places}f} … {high / scale:.{places}f} {unit}".replace("-", MINUS)


def digits(value: float) -> str:
    """Three significant digits and at least one place below 100: ``4.13``, ``73.4``, ``126``."""
    size = abs(value)
    text = f"{size:.2f}" if size < 9.995 else f"{size:.1f}" if size < 99.95 else f"{size:.0f}"
    return MINUS + text if value < 0 else text


def clock(ns: float | None) -> str:
    """Nanoseconds as a running time: ``02:34``, ``1:02:34``."""
    if ns is None or not math.isfinite(ns):
        return UNKNOWN
    sign = MINUS if ns < 0 else ""
    seconds = int(abs(ns) // 1e9)
    hours, rest = divmod(seconds, 3600)
    if hours:
        return f"{sign}{hours}:{rest // 60:02}:{rest % 60:02}"
    return f"{sign}{rest // 60:02}:{rest % 60:02}"


def elapsed(ns: float) -> str:
    """How long something has been going on, or did: ``6.2 s``, tenths below a minute, so that it is seen to move."""
    return f"{max(ns, 0) / 1e9:.1f} s" if ns < 60e9 else clock(ns)


def size(count: float | None) -> str:
    """Bytes as ``15.3 GiB``."""
    if count is None or not math.isfinite(count):
        return UNKNOWN
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{digits(value)} {unit}"
        value /= 1024
    return f"{digits(value)} TiB"


def number(value: float | None, unit: str = "") -> str:
    """A plain figure with three significant digits: ``73.1 tok/s``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{digits(value)} {unit}".rstrip()


def change(fraction: float | None, places: int = 1) -> str:
    """A relative change with its sign: ``+4.2 %``, ``−0.3 %``."""
    if fraction is None or not math.isfinite(fraction):
        return UNKNOWN
    value = round(100 * fraction, places)
    return f"{'+' if value > 0 else MINUS if value < 0 else ''}{abs(value):.{places}f} %"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 round``, ``2 rounds``; ``many`` where it is not ``one`` with an s behind."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(fraction: float | None) -> str:
    """A fraction as ``10.8 %``."""
    if fraction is None or not math.isfinite(fraction):
        return UNKNOWN
    value = abs(fraction) * 100
    sign = MINUS if fraction < 0 else ""
    return f"{sign}{value:.2f} %" if value < 0.1 and value else f"{sign}{value:.1f} %"
