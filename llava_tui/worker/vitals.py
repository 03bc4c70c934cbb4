"""What whoever watches the machine has said of it: read from the session's own telemetry, between runs."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from llava_tui.events import GpuAbsent, GpuDevice, GpuProcess, GpuSample, TelemetryEvent
from llava_tui.session.reader import StreamReader

KEPT = 4096
"""Samples that are looked back on: minutes."""


class Vitals:
    """Readings of the machine so far; :meth:`read` takes in what is new."""

    def __init__(self, path: Path) -> None:
        self._stream = StreamReader(path, TelemetryEvent)
        self.devices: dict[int, GpuDevice] = {}
        self.first: dict[int, GpuSample] = {}
        """The first sample of each GPU."""
        self.processes: dict[int, tuple[int, list[GpuProcess]]] = {}
        """The first list of processes of each GPU, and when it was read."""
        self.pids: set[int] = set()
        """Every process that was on any GPU."""
        self.absent: dict[int, dict[str, str]] = {}
        self._recent: deque[GpuSample] = deque(maxlen=KEPT)
        self._ours: set[int] = set()

    @property
    def begun(self) -> bool:
        """Whether anything was said of GPUs, be it that there are none."""
        return bool(self.first or self.absent)

    def read(self) -> None:
        """Takes in what is new."""
        for event in self._stream.read():
            if isinstance(event, GpuSample):
                self.first.setdefault(event.gpu, event)
                if event.processes is not None:
                    self.processes.setdefault(event.gpu, (event.t, event.processes))
                    self.pids |= {process.pid for process in event.processes}
                if event.worker_memory:
                    self._ours.add(event.gpu)
                self._recent.append(event)
            elif isinstance(event, GpuDevice):
                self.devices[event.gpu] = event
            elif isinstance(event, GpuAbsent):
                self.absent[event.gpu] = event.reasons

    def since(self, t: int) -> list[GpuSample]:
        """Samples from ``t`` (ns) on, of the GPUs that hold the worker's memory; of all where that is not told."""
        found = []
        for sample in reversed(self._recent):
            if sample.t < t:
                break
            if not self._ours or sample.gpu in self._ours:
                found.append(sample)
        return found[::-1]
