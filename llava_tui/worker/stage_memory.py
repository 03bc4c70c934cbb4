"""Memory by stage: what torch's allocator peaked at on an accelerator; on the CPU, what the kernel counts.

Neither waits for a device. :class:`StageMemory` asks only where stages change.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, Protocol

from llava_tui.pipelines.base import Pipeline

Reading = tuple[int | None, int | None]
"""Bytes since the last reading, as :attr:`Meter.columns` name them."""


class Meter(Protocol):
    """What tells memory since it was last asked."""

    columns: tuple[str, str]
    """The fields of :class:`~llava_tui.events.RunEnd` that a reading's two values belong to."""
    peaks: tuple[bool, bool]
    """Which of them are peaks; the other is what was held at the last reading."""

    def take(self) -> Reading:
        """Reads, and starts anew."""


class AllocatorPeaks:
    """Peaks of torch's caching allocator on one device: bytes that tensors held, bytes that it held for them."""

    columns = ("allocated", "reserved")
    peaks = (True, True)

    def __init__(self, module: Any, device: str) -> None:
        self._module = module
        self._device = device

    def take(self) -> Reading:
        """See :class:`Meter`."""
        stats = self._module.memory_stats_as_nested_dict(device=self._device)
        self._module.reset_peak_memory_stats(self._device)
        try:
            return int(stats["allocated_bytes"]["all"]["peak"]), int(stats["reserved_bytes"]["all"]["peak"])
        except KeyError:  # Before the first allocation the allocator has no figures.
            return 0, 0


class ResidentSet:
    """This process's resident set: its peak, where the kernel lets it be reset, and what it is now.

    Linux counts the peak as VmHWM (``/proc/self/status``) and resets it when 5 is written to ``/proc/self/clear_refs``
    (proc(5), since Linux 4.0). Pages of each thread are added up in batches, so a reading may be off by some of them.
    Raises :class:`OSError` where the kernel does not tell.
    """

    columns = ("rss_peaks", "rss_stages")
    peaks = (True, False)
    _status = -1
    """None is open yet, or no more."""

    def __init__(self, proc: str = "/proc/self") -> None:
        self._status = os.open(f"{proc}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._reset: int | None = None
        with contextlib.suppress(OSError):  # not permitted, or no such file: then there are no peaks
            reset = os.open(f"{proc}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(reset, b"5")
                self._reset = reset
            except OSError:
                os.close(reset)
        try:
            if self.take()[1] is None:
                raise OSError(f"{proc}/status has no VmRSS")
        except OSError:
            self.close()
            raise

    def take(self) -> Reading:
        """See :class:`Meter`."""
        told = os.pread(self._status, 4096, 0)
        peak = None
        if self._reset is not None:
            peak = _kilobytes(told, b"VmHWM:")
            try:
                os.pwrite(self._reset, b"5", 0)
            except OSError:  # what follows would be the peak of more than was asked for
                os.close(self._reset)
                self._reset = None
        return peak, _kilobytes(told, b"VmRSS:")

    def close(self) -> None:
        """Lets go of the kernel's files."""
        for file in (self._status, self._reset):
            if file is not None:
                os.close(file)
        self._status, self._reset = -1, None

    def __del__(self) -> None:
        if self._status >= 0:
            self.close()


def _kilobytes(status: bytes, name: bytes) -> int | None:
    start = status.find(name)
    if start < 0:
        return None
    return int(status[start + len(name) : status.index(b"kB", start)]) * 1024


def host_meter() -> Meter | None:
    """This process's memory; ``None`` where the kernel does not tell (it is not Linux)."""
    try:
        return ResidentSet()
    except OSError:
        return None


def meter(device: str, pipeline: Pipeline) -> Meter | None:
    """What tells memory on a torch device; a simulation tells its own. ``None`` where nothing does."""
    kind = device.split(":")[0]
    if kind in ("simulated", "meta"):
        own: Meter | None = getattr(pipeline, "allocator", None)
        return own
    if kind == "cpu":
        return host_meter()
    import torch

    module: Any = torch.get_device_module(device)
    if not hasattr(module, "memory_stats_as_nested_dict") or not hasattr(module, "reset_peak_memory_stats"):
        return None
    return AllocatorPeaks(module, device)


class StageMemory:
    """A run's memory, stage by stage. ``parents`` has, for each stage, the stages that it is part of.

    What was read belongs to the stage that ran until then and to its parents. A stage that goes on (decode, token
    after token) stays the owner between its calls, so that the meter is asked only where stages change.
    """

    def __init__(self, meter: Meter, parents: Sequence[tuple[int, ...]]) -> None:
        self._meter = meter
        self._parents = parents
        self._first, self._second = meter.peaks
        self.start()

    def start(self) -> None:
        """A run begins: what was is forgotten."""
        count = len(self._parents)
        self._values: tuple[list[int | None], list[int | None]] = ([None] * count, [None] * count)
        self._owner = -1
        self._meter.take()

    def change(self, owner: int) -> None:
        """From here on memory is that stage's; −1: no stage's."""
        if owner == self._owner:
            return
        first, second = self._meter.take()
        if self._owner >= 0:
            for index in (self._owner, *self._parents[self._owner]):
                _keep(self._values[0], index, first, self._first)
                _keep(self._values[1], index, second, self._second)
        self._owner = owner

    def leave(self, stage: int) -> None:
        """That stage ends; the owner may begin again at once, so what it leaves is read later."""
        if stage != self._owner:
            self.change(-1)

    def end(self) -> dict[str, list[int | None]]:
        """The run has ended: its lists, by the field that they belong to; one of nothing known is empty."""
        self.change(-1)
        lists = zip(self._meter.columns, self._values, strict=True)
        return {column: list(values) for column, values in lists if any(value is not None for value in values)}


def _keep(values: list[int | None], index: int, value: int | None, peak: bool) -> None:
    before = values[index]
    values[index] = value if before is None or value is None or not peak else max(before, value)
