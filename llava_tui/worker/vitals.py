"""What whoever watches the machine has said of it: read from the session's own telemetry, between runs."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from llava_tui.events import GpuAbsent, GpuDevice, GpuProcess, GpuSample, TelemetryEvent
from llava_tui.session.reader import StreamReader

KEPT = 4096
"""Samples that are looked back on: minutes."""


class Vitals:
    """Readings of the machine so far; :meth:`read` takes in what is new."""

    def __init__(self, path: Path, since: int = 0) -> None:
        """``since``: bytes of the stream at ``path`` that are another worker's."""
        self._stream = StreamReader(path, TelemetryEvent)
        self._stream.begin_at(since)
        self.devices: dict[int, GpuDevice] = {}
        self.first: dict[int, GpuSample] = {}
        """The first sample of each GPU."""
        self.processes: dict[int, tuple[int, list[GpuProcess]]] = {}
        """The first list of processes of each GPU, and when it was read."""
        self.pids: set[int] = set()
        """Every process that was on any GPU."""
        self.absent: dict[int, dict[str, str]] = {}
        self._recent: deque[GpuSample] = deque(maxlen=KEPT)
        self._held: set[int] = set()
        """GPUs that were seen to hold this process, by its PID."""
        self._device, self._uuid = "", ""

    def model_on(self, device: str, uuid: str) -> None:
        """The model is on that torch device, which the driver knows by ``uuid`` ("" where that is not known)."""
        self._device, self._uuid = device, _plain(uuid)

    @property
    def ours(self) -> set[int] | None:
        """The GPUs that the model is on; ``None`` where that is not known.

        A UUID is certain; PIDs are those of another namespace in a container; torch counts the devices that it may see,
        the driver all of them.
        """
        kind, _, number = self._device.partition(":")
        if kind in ("cpu", "meta"):
            return set()
        named = {gpu for gpu, device in self.devices.items() if self._uuid and _plain(device.uuid) == self._uuid}
        if named or self._held:
            return named or self._held
        if self._uuid and (sliced := {gpu for gpu, device in self.devices.items() if device.mig}):
            return sliced  # Of a slice there are samples only with its GPU.
        return {int(number)} if number.isdigit() and int(number) in self.first else None

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
                if event.worker_memory or any(process.pid == os.getpid() for process in event.processes or ()):
                    self._held.add(event.gpu)
                self._recent.append(event)
            elif isinstance(event, GpuDevice):
                self.devices[event.gpu] = event
            elif isinstance(event, GpuAbsent):
                self.absent[event.gpu] = event.reasons

    def since(self, t: int) -> list[GpuSample]:
        """Samples from ``t`` (ns) on, of the GPUs that the model is on; of all where that is not known."""
        found, ours = [], self.ours
        for sample in reversed(self._recent):
            if sample.t < t:
                break
            if ours is None or sample.gpu in ours:
                found.append(sample)
        return found[::-1]


def _plain(uuid: str) -> str:
    """Without what kind of thing it is of, which torch leaves out and the driver does not."""
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")
