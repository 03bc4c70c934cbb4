"""The hardware that the simulator stands for: what a GPU can do at best, and what its driver would report meanwhile."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llava_tui.events import GpuAbsent, GpuDevice, GpuProcess, GpuSample, TelemetryEvent

WINDOW_NS = 166_666_667
"""NVML's utilization looks back over 1/6 s on recent boards."""
POWER_LAG_NS = 60e6
"""Time constant of what the board's power sensor reports."""
HEAT_LAG_NS = 25e9
"""Time constant of die and heat sink."""
NVML_GPU_IDLE = 0x1
"""The clocks-event reason of a GPU that has nothing to do."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A board by its data sheet."""

    name: str
    flops: float
    """Dense fp16 with fp32 accumulation, FLOP/s."""
    bandwidth: float
    """Bytes a second."""
    memory: int
    idle_w: float
    limit_w: float
    idle_mhz: int
    boost_mhz: int
    memory_mhz: int
    degrees_per_w: float
    """Die above ambient, at rest in its heat."""
    prefill_efficiency: float
    """Share of the peak that large matrix products reach through a framework."""
    vision_efficiency: float
    """The same for a ViT at batch 1 to 4: smaller products, more launches."""
    decode_efficiency: float
    """Share of the bandwidth that one-token steps reach."""


GPUS: dict[str, Gpu] = {
    # The efficiencies are plausible, not measured; below 1, so that no simulated time beats the roofline's floor.
    "h100": Gpu(
        name="NVIDIA H100 80GB HBM3",
        flops=989e12,
        bandwidth=3.35e12,
        memory=81_559 << 20,
        idle_w=70,
        limit_w=700,
        idle_mhz=345,
        boost_mhz=1980,
        memory_mhz=2619,
        degrees_per_w=0.055,
        prefill_efficiency=0.52,
        vision_efficiency=0.45,
        decode_efficiency=0.56,
    ),
    "rtx-4090": Gpu(
        name="NVIDIA GeForce RTX 4090",
        flops=165e12,
        bandwidth=1.008e12,
        memory=24_564 << 20,
        idle_w=22,
        limit_w=450,
        idle_mhz=210,
        boost_mhz=2520,
        memory_mhz=10_501,
        degrees_per_w=0.09,
        prefill_efficiency=0.60,
        vision_efficiency=0.50,
        decode_efficiency=0.60,
    ),
}


@dataclass(frozen=True, slots=True)
class Activity:
    """What keeps the GPU busy for a while."""

    busy: float = 0.0
    """Share of the time in which a kernel runs."""
    memory: float = 0.0
    """Share of the time in which its memory is read or written."""
    power: float = 0.0
    """Share of the power between idle and limit."""


IDLE = Activity()


class SimulatedTelemetry:
    """What NVML would have said, sampled on the simulated clock: :meth:`pass_time` is told all time that passes.

    Energy is the integral of power, power and temperature lag behind the load, utilization is that of a window.
    """

    def __init__(self, gpu: Gpu, hz: float, seed: int, pid: int, write: Callable[[TelemetryEvent], None]) -> None:
        self.activity = IDLE
        self.memory_used = 600 << 20
        """Of the whole board, bytes; the driver and a context to begin with."""
        self.worker_memory = 0
        self._gpu = gpu
        self._write = write
        self._pid = pid
        self._period = int(1e9 / hz)
        self._due: int | None = None
        self._random = random.Random(f"{seed}/telemetry")
        self._power = gpu.idle_w
        self._temperature = 30 + gpu.degrees_per_w * gpu.idle_w
        self._energy_mj = 0.0
        self._past: deque[tuple[int, int, Activity]] = deque()
        self._listed = False
        self._begun = False

    def _begin(self, t: int) -> None:
        self._begun = True
        gpu = self._gpu
        self._write(
            GpuDevice(
                t=t,
                gpu=0,
                name=f"{gpu.name} (simulated)",
                memory_total=gpu.memory,
                mig=False,
                source="simulated",
            )
        )
        why = "not simulated"
        self._write(GpuAbsent(t=t, gpu=0, reasons={"pcie_tx_kbs": why, "pcie_rx_kbs": why}))
        self._due = t

    def pass_time(self, start: int, end: int) -> None:
        """From ``start`` to ``end`` (ns) the present activity went on."""
        if not self._begun:
            self._begin(start)
        while self._due is not None and self._due <= end:
            self._integrate(start, self._due)
            self._sample(self._due)
            start, self._due = max(start, self._due), self._due + self._period
        self._integrate(start, end)

    def _integrate(self, start: int, end: int) -> None:
        if end <= start:
            return
        activity, gpu, span = self.activity, self._gpu, end - start
        self._past.append((start, end, activity))
        target = gpu.idle_w + (gpu.limit_w - gpu.idle_w) * activity.power
        left = math.exp(-span / POWER_LAG_NS)
        # The lag solved exactly, so that the energy does not depend on how finely time was cut.
        self._energy_mj += (target * span + (self._power - target) * POWER_LAG_NS * (1 - left)) * 1e-6
        self._power = target + (self._power - target) * left
        at_rest = 30 + gpu.degrees_per_w * target
        self._temperature = at_rest + (self._temperature - at_rest) * math.exp(-span / HEAT_LAG_NS)

    def _sample(self, t: int) -> None:
        busy, memory = self._window(t)
        gpu = self._gpu
        clock = gpu.boost_mhz if busy > 0 else gpu.idle_mhz
        if busy > 0:  # Boost steps down as the board nears its power limit.
            clock -= 15 * round(6 * max(0.0, self._power / gpu.limit_w - 0.7) / 0.3)
        processes = None
        if self.worker_memory and not self._listed:
            self._listed = True
            processes = [GpuProcess(self._pid, self.worker_memory)]
        self._write(
            GpuSample(
                t=t,
                gpu=0,
                memory_used=self.memory_used,
                utilization=round(100 * busy),
                memory_utilization=round(100 * memory),
                power_mw=round(self._power * 1000 * (1 + self._random.gauss(0, 0.004))),
                power_limit_mw=round(gpu.limit_w * 1000),
                energy_mj=round(self._energy_mj),
                temperature_c=round(self._temperature),
                sm_clock_mhz=clock,
                memory_clock_mhz=gpu.memory_mhz,
                throttle=0 if busy > 0 else NVML_GPU_IDLE,
                processes=processes,
                worker_memory=self.worker_memory or None,
            )
        )

    def _window(self, t: int) -> tuple[float, float]:
        """Shares of the driver's window before ``t`` in which a kernel ran and memory was used."""
        since = t - WINDOW_NS
        while self._past and self._past[0][1] <= since:
            self._past.popleft()
        busy = memory = 0.0
        for start, end, activity in self._past:
            span = end - max(start, since)
            busy += span * activity.busy
            memory += span * activity.memory
        return min(1.0, busy / WINDOW_NS), min(1.0, memory / WINDOW_NS)
