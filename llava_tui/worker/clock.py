"""The clocks a run is measured with, behind one small interface.

A *mark* is taken where something happens and resolved to host time when the run has ended. The host's marks are times
already. The device's are events recorded on its stream, which say only afterwards when the device got there: so
:meth:`Clock.finish_run` waits for the device once, and there is no other synchronise in a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

SLICE_NS = 20_000_000
"""Longest real sleep of the simulated clock between two looks at control."""

Mark = int | None
"""0 and above: host time, ns. Below 0: the device event −1 − mark. ``None``: this device cannot time its work."""


class Clock(Protocol):
    """One axis, CLOCK_MONOTONIC nanoseconds (simulated sessions: of the simulated clock)."""

    def now(self) -> int:
        """Host time, ns."""

    def wait(self, seconds: float) -> None:
        """Lets that much real time pass: for the worker's pauses, never inside a run."""

    def rest(self, seconds: float) -> None:
        """Lets that much of the session's own time pass, for a device to cool."""

    def start_run(self) -> int:
        """A run begins: the device is idle, its axis is laid on the host's. Returns now."""

    def device_mark(self) -> Mark:
        """Marks where the device's work has got to, without waiting for it."""

    def finish_run(self) -> int:
        """The run ends: waits for the device once; from here its marks can be resolved. Returns now."""

    def at(self, mark: Mark) -> int | None:
        """Host time of a mark, ns."""

    def between(self, first: Mark, last: Mark) -> int | None:
        """From one mark to another, ns."""

    def on(self, device: str) -> Clock:
        """The clock for work on that torch device ("cpu", "cuda:0"), on the same axis; on several with commas between:
        each is waited for."""


class HostClock:
    """The host's clock, for host and device stages alike: right where both are the same machine (CPU)."""

    shift = 0
    """ns: by how much a session is ahead of CLOCK_MONOTONIC that goes on after the machine was started anew."""

    def shifted(self, shift: int) -> Self:
        """This clock, ahead by that much."""
        self.shift = shift
        return self

    def now(self) -> int:
        return time.monotonic_ns() + self.shift

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def rest(self, seconds: float) -> None:
        time.sleep(seconds)

    def start_run(self) -> int:
        return self.now()

    def device_mark(self) -> Mark:
        return self.now()

    def finish_run(self) -> int:
        return self.now()

    def at(self, mark: Mark) -> int | None:
        return mark

    def between(self, first: Mark, last: Mark) -> int | None:
        return None if first is None or last is None else last - first

    def on(self, device: str) -> Clock:
        places = [place for place in device.split(",") if place.split(":")[0] not in ("cpu", "meta", "simulated")]
        clocks = [torch_clock(place).shifted(self.shift) for place in places]
        if len(clocks) > 1:
            return SeveralDevicesClock(clocks).shifted(self.shift)
        return clocks[0] if clocks else self


class DeviceEvent(Protocol):
    """What torch's events with timing enabled offer."""

    def record(self, stream: Any, /) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds from this event to a later one."""


class DeviceClock(HostClock):
    """An accelerator's clock: pooled event pairs on its current stream, laid on the host's axis at the run's start.

    ``stream`` gives that device's current stream: without it events would go onto the thread's current device, which
    may be another one. Device marks resolve to within the time that recording and waiting for the first event took
    (``uncertainty``, ns); spans between two device marks do not depend on it.
    """

    def __init__(
        self,
        event: Callable[[], DeviceEvent],
        synchronise: Callable[[], None],
        stream: Callable[[], Any],
        pool: int = 512,
    ) -> None:
        self._event = event
        self._synchronise = synchronise
        self._stream = stream
        self._pool: list[DeviceEvent] = [event() for _ in range(pool)]
        self._used = 0
        self._anchor = event()
        self._anchored_at = 0
        self.uncertainty = 0

    def start_run(self) -> int:
        self._used = 0
        self._synchronise()
        before = self.now()
        self._anchor.record(self._stream())
        self._anchor.synchronize()
        after = self.now()
        self.uncertainty = after - before
        self._anchored_at = before + (after - before) // 2
        return after

    def device_mark(self) -> Mark:
        index = self._used
        if index == len(self._pool):
            self._pool.append(self._event())
        self._pool[index].record(self._stream())
        self._used = index + 1
        return -1 - index

    def finish_run(self) -> int:
        self._synchronise()
        return self.now()

    def at(self, mark: Mark) -> int | None:
        if mark is None or mark >= 0:
            return mark
        return self._anchored_at + round(self._anchor.elapsed_time(self._pool[-1 - mark]) * 1e6)

    def between(self, first: Mark, last: Mark) -> int | None:
        if first is not None and last is not None and first < 0 and last < 0:
            # Straight from pair to pair: a float of milliseconds since the anchor would lose microseconds in long runs.
            return round(self._pool[-1 - first].elapsed_time(self._pool[-1 - last]) * 1e6)
        start, end = self.at(first), self.at(last)
        return None if start is None or end is None else end - start

    def on(self, device: str) -> Clock:
        return self


class SeveralDevicesClock(HostClock):
    """A model on several devices, which hand their work on to each other: a mark is where the last of them gets to it.

    A span from one mark to another goes by the host's axis, on which the devices lie to within each one's
    ``uncertainty``.
    """

    def __init__(self, clocks: Sequence[Clock]) -> None:
        self._clocks = tuple(clocks)
        self._marks: list[tuple[Mark, ...]] = []

    @property
    def uncertainty(self) -> int:
        return max(getattr(clock, "uncertainty", 0) for clock in self._clocks)

    def start_run(self) -> int:
        self._marks.clear()
        for clock in (*self._clocks, *self._clocks[:-1]):  # The first are laid on the axis again, all being idle.
            clock.start_run()
        return self.now()

    def device_mark(self) -> Mark:
        self._marks.append(tuple(clock.device_mark() for clock in self._clocks))
        return -len(self._marks)

    def finish_run(self) -> int:
        for clock in self._clocks:
            clock.finish_run()
        return self.now()

    def at(self, mark: Mark) -> int | None:
        if mark is None or mark >= 0:
            return mark
        found = [clock.at(own) for clock, own in zip(self._clocks, self._marks[-1 - mark], strict=True)]
        known = [at for at in found if at is not None]
        return max(known) if len(known) == len(found) else None

    def between(self, first: Mark, last: Mark) -> int | None:
        start, end = self.at(first), self.at(last)
        return None if start is None or end is None else end - start

    def on(self, device: str) -> Clock:
        return self


class BlindDeviceClock(HostClock):
    """For an accelerator whose torch backend has no timed events: its stages cannot be told apart, so they are
    ``None``; the host's are measured, and the run waits for the device at its ends."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self._synchronise = synchronise

    def start_run(self) -> int:
        self._synchronise()
        return self.now()

    def device_mark(self) -> Mark:
        return None

    def finish_run(self) -> int:
        self._synchronise()
        return self.now()

    def on(self, device: str) -> Clock:
        return self


def torch_clock(device: str) -> DeviceClock | BlindDeviceClock:
    """The clock of a torch device that is not the CPU: of that one, whichever is current."""
    import torch

    module: Any = torch.get_device_module(device)
    kind, _, number = device.partition(":")
    # A backend that knows one device only (mps) takes no device where others do.
    several = hasattr(module, "set_device")
    place = int(number) if number else module.current_device() if several else 0

    def synchronise() -> None:
        if several:
            module.synchronize(place)
        else:
            module.synchronize()

    def stream() -> Any:
        return module.current_stream(place) if several else None

    def event() -> DeviceEvent:
        made: DeviceEvent
        if kind == "cuda":
            made = module.Event(enable_timing=True)
        else:
            made = torch.Event(f"{kind}:{place}", enable_timing=True)
        return made

    try:
        first, second = event(), event()
        first.record(stream())
        second.record(stream())
        synchronise()
        first.elapsed_time(second)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return BlindDeviceClock(synchronise)
    return DeviceClock(event, synchronise, stream)


class SimulatedClock:
    """A clock that moves when it is told to: ``scale`` real seconds pass for each simulated one, 0 for none.

    ``passed`` is told every span of simulated time, in order; what it raises comes out of :meth:`advance`.
    """

    def __init__(self, scale: float, start: int | None = None) -> None:
        self._now = time.monotonic_ns() if start is None else start
        self._scale = scale
        self._real = time.monotonic_ns()
        self._paced = self._now
        self.passed: Callable[[int, int], None] = lambda start, end: None

    def now(self) -> int:
        return self._now

    def advance(self, nanoseconds: int, check: Callable[[], None] | None = None) -> None:
        """Moves on, calling ``check`` at least every 20 ms of real time; what it raises stops the clock there."""
        end = self._now + nanoseconds
        while self._now < end:
            step = end - self._now if self._scale == 0 else min(end - self._now, max(1, int(SLICE_NS / self._scale)))
            self._step(step)
            if self._scale > 0:
                self._keep_pace()
            if check is not None:
                check()

    def _step(self, nanoseconds: int) -> None:
        start, self._now = self._now, self._now + nanoseconds
        self.passed(start, self._now)

    def _keep_pace(self) -> None:
        # Against a fixed origin, so that what sleeping overshoots does not add up.
        due = self._real + int((self._now - self._paced) * self._scale)
        behind = time.monotonic_ns() - due
        if behind > 250_000_000:  # The machine slept or was stopped: go on from here instead of racing.
            self._real, self._paced = time.monotonic_ns(), self._now
        elif behind < 0:
            time.sleep(-behind / 1e9)

    def wait(self, seconds: float) -> None:
        """Real time; the simulated machine idles meanwhile (as long, where the scale is 0)."""
        time.sleep(seconds)
        self._step(int(seconds * 1e9 / (self._scale or 1)))
        self._real, self._paced = time.monotonic_ns(), self._now

    def rest(self, seconds: float) -> None:
        """Simulated time, at the clock's pace."""
        self.advance(int(seconds * 1e9))

    def start_run(self) -> int:
        return self._now

    def device_mark(self) -> Mark:
        return self._now

    def finish_run(self) -> int:
        return self._now

    def at(self, mark: Mark) -> int | None:
        return mark

    def between(self, first: Mark, last: Mark) -> int | None:
        return None if first is None or last is None else last - first

    def on(self, device: str) -> Clock:
        return self
