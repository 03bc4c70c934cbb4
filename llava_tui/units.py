"""Quantities as people read them: three significant digits, the unit that fits, ``—`` for what is not known."""

from __future__ import annotations

import math

UNKNOWN = "—"


def duration(ns: float | None) -> str:
    """Nanoseconds as ``12 ns``, ``4.13 µs``, ``126 ms``, ``1.04 s`` or ``2:05:03``; the sign is kept."""
    if ns is None or not math.isfinite(ns):
        return UNKNOWN
    sign = "-" if ns < 0 else ""
    value = abs(ns)
    if value >= 60e9:
        return sign + clock(value)
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= scale * 0.9995:
            return f"{sign}{_three(value / scale)} {unit}"
    return f"{sign}{value:.0f} ns"


def clock(ns: float | None) -> str:
    """Nanoseconds as a running time: ``02:34``, ``1:02:34``."""
    if ns is None or not math.isfinite(ns):
        return UNKNOWN
    sign = "-" if ns < 0 else ""
    seconds = int(abs(ns) // 1e9)
    hours, rest = divmod(seconds, 3600)
    if hours:
        return f"{sign}{hours}:{rest // 60:02}:{rest % 60:02}"
    return f"{sign}{rest // 60:02}:{rest % 60:02}"


def size(count: float | None) -> str:
    """Bytes as ``15.3 GiB``."""
    if count is None or not math.isfinite(count):
        return UNKNOWN
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1024
    return f"{_three(value)} TiB"


def number(value: float | None, unit: str = "") -> str:
    """A plain figure with three significant digits: ``73.1 tok/s``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{_three(value)} {unit}".rstrip()


def percent(fraction: float | None) -> str:
    """A fraction as ``10.8 %``."""
    if fraction is None or not math.isfinite(fraction):
        return UNKNOWN
    value = fraction * 100
    return f"{value:.2f} %" if abs(value) < 0.1 and value else f"{value:.1f} %"


def _three(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"
