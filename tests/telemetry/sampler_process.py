"""A sampler process and the stream that it writes, for tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llava_tui.events import GpuAbsent, GpuDevice, GpuSample, HostSample, TelemetryEvent

PATIENCE_S = 20.0
decode = msgspec.json.Decoder(TelemetryEvent).decode


@dataclass
class Sampler:
    """A sampler process and the stream that it writes."""

    process: subprocess.Popen[bytes]
    stream: Path
    events: list[TelemetryEvent] = field(default_factory=list)

    def read(self) -> list[TelemetryEvent]:
        """Everything written so far in whole lines; a line that does not decode fails the test."""
        lines = self.stream.read_bytes().split(b"\n")[:-1] if self.stream.exists() else []
        self.events += [decode(line) for line in lines[len(self.events) :]]
        return self.events

    def until(self, enough: Callable[[Sampler], bool]) -> Sampler:
        """Reads the growing stream until it holds ``enough``."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.read()
            if enough(self):
                return self
            assert self.process.poll() is None, f"the sampler ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"not enough after {PATIENCE_S:g} s: {self.events[-3:]}"
            time.sleep(0.005)

    def samples(self, gpu: int) -> list[GpuSample]:
        return [e for e in self.events if isinstance(e, GpuSample) and e.gpu == gpu]

    def host(self) -> list[HostSample]:
        return [e for e in self.events if isinstance(e, HostSample)]

    def device(self, gpu: int) -> GpuDevice:
        (device,) = (e for e in self.events if isinstance(e, GpuDevice) and e.gpu == gpu)
        return device

    def absent(self, gpu: int) -> list[dict[str, str]]:
        return [e.reasons for e in self.events if isinstance(e, GpuAbsent) and e.gpu == gpu]

    def end(self) -> int:
        """Closes its standard input, as the worker's end does, and waits: its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self.read()
        return code


Start = Callable[..., Sampler]
