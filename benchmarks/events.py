"""Rendering events: whole slices at once against a loop over the events, on one stream.

Run with ``python benchmarks/events.py``; half a minute. Both draw the same pictures, to the pixel. They take turns, and
the ratio of their medians is what counts. Reading the stream's file is told beside it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from llava_tui.pipelines.event_streams import EventStream, Picture, demo_stream, pictures, read, slices

EVENTS = 500_000
"""What a sensor of 640 × 480 may give in 50 ms of quick movement."""
SLICES = 5
TURNS = 7
PROMISED = 10.0


def by_event(stream: EventStream) -> list[Picture]:
    """As one writes it down first: an assignment an event."""
    drawn = []
    for part in slices(stream, SLICES):
        x, y, p = stream.x[part], stream.y[part], stream.p[part]
        picture = np.full((int(y.max()) + 1, int(x.max()) + 1, 3), 255, np.uint8)
        for column, row, polarity in zip(x.tolist(), y.tolist(), p.tolist(), strict=True):
            picture[row, column] = (0, 0, 255) if polarity == 0 else (255, 0, 0)
        drawn.append(picture)
    return drawn


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def main() -> int:
    """Prints the table; 0 if the figure is met."""
    stream = demo_stream(EVENTS, (640, 480))
    at_once, one_by_one = [], []
    for _ in range(TURNS):
        seconds, drawn = timed(lambda: pictures(stream, SLICES))
        at_once.append(seconds)
        seconds, expected = timed(lambda: by_event(stream))
        one_by_one.append(seconds)
        if not all(np.array_equal(a, b) for a, b in zip(drawn, expected, strict=True)):
            print("the pictures differ")
            return 1
    ratio = median(one_by_one) / median(at_once)
    print(f"{EVENTS:,} events, {SLICES} slices of 640 × 480, medians of {TURNS}")
    print(f"at once      {median(at_once) * 1e3:8.2f} ms")
    print(f"event by event {median(one_by_one) * 1e3:6.0f} ms   {ratio:.0f} × (promised: {PROMISED:.0f} ×)")
    with tempfile.TemporaryDirectory() as folder:
        held = {name: getattr(stream, name).astype(np.uint16) for name in "xytp"}
        np.save(Path(folder) / "events.npy", np.array(held, dtype=object))
        np.savez(Path(folder) / "events.npz", **held)
        for name in ("events.npy", "events.npz"):
            seconds = median(timed(lambda: read(Path(folder) / name))[0] for _ in range(TURNS))  # noqa: B023
            print(f"read {name}  {seconds * 1e3:6.2f} ms")
    return 0 if ratio >= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
