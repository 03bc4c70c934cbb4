"""The hardware that the simulator stands for: what a GPU can do at best, and what its driver would report meanwhile."""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llava_tui.analysis.peaks import TABLE, key
from llava_tui.events import GpuAbsent, GpuDevice, GpuProcess, GpuSample, HostSample, TelemetryEvent
from llava_tui.pipelines.simulated_faults import Effects

WINDOW_NS = 166_666_667
"""NVML's utilization looks back over 1/6 s on recent boards."""
POWER_LAG_NS = 60e6
"""Time constant of what the board's power sensor reports."""
HEAT_LAG_NS = 25e9
"""Time constant of die and heat sink."""
NVML_GPU_IDLE = 0x1
"""The clocks-event reason of a GPU that has nothing to do."""
NVML_POWER_CAP = 0x4
"""The one of a GPU that would need more power than it may have."""
SLOWDOWN_C = 88
"""At which temperature a GPU throttles."""
COOLING_C_S = 5
"""How fast it gets cooler from there while it rests."""
FOREIGN_PID = 5_000_000
"""Beyond any that Linux gives out."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A board by its data sheet."""

    name: str
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

    @property
    def flops(self) -> float:
        """Dense fp16 with fp32 accumulation, FLOP/s, by the table that the roofline goes by."""
        return TABLE[key(self.name)].flops["float16"]

    @property
    def bandwidth(self) -> float:
        """Bytes a second, by the same table."""
        return TABLE[key(self.name)].bandwidth


GPUS: dict[str, Gpu] = {
    # The efficiencies are plausible, not measured; below 1, so that no simulated time beats the roofline's floor.
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB", memory=81_920 << 20, idle_w=62, limit_w=400, idle_mhz=210, boost_mhz=1410,
        memory_mhz=1593, degrees_per_w=0.09,
        prefill_efficiency=0.62, vision_efficiency=0.50, decode_efficiency=0.60,
    ),
    "h100": Gpu(
        name="NVIDIA H100 80GB HBM3", memory=81_559 << 20, idle_w=70, limit_w=700, idle_mhz=345, boost_mhz=1980,
        memory_mhz=2619, degrees_per_w=0.055,
        prefill_efficiency=0.52, vision_efficiency=0.45, decode_efficiency=0.56,
    ),
    "rtx-4090": Gpu(
        name="NVIDIA GeForce RTX 4090", memory=24_564 << 20, idle_w=22, limit_w=450, idle_mhz=210, boost_mhz=2520,
        memory_mhz=10_501, degrees_per_w=0.09,
        prefill_efficiency=0.60, vision_efficiency=0.50, decode_efficiency=0.60,
    ),
    "rtx-3090": Gpu(
        name="NVIDIA GeForce RTX 3090", memory=24_576 << 20, idle_w=25, limit_w=350, idle_mhz=210, boost_mhz=1695,
        memory_mhz=9751, degrees_per_w=0.12,
        prefill_efficiency=0.70, vision_efficiency=0.58, decode_efficiency=0.66,
    ),
    "t4": Gpu(
        name="Tesla T4", memory=15_360 << 20, idle_w=10, limit_w=70, idle_mhz=300, boost_mhz=1590,
        memory_mhz=5001, degrees_per_w=0.6,
        prefill_efficiency=0.40, vision_efficiency=0.38, decode_efficiency=0.70,
    ),
}  # fmt: skip


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
        self._told: list[GpuProcess] = []
        self._begun = False
        self._effects = Effects()
        self.rested_ns = 0
        """Since the GPU last had something to do."""

    def suffer(self, effects: Effects) -> None:
        """From now on these faults hold."""
        self._effects = effects

    @property
    def foreign_memory(self) -> int:
        """Bytes that others hold."""
        foreign = self._effects.foreign
        return 0 if foreign is None else int(foreign.memory_gib * 2**30)

    def clock_share(self, activity: Activity) -> float:
        """The share of its boost clock that the GPU keeps in this activity: what throttling and the limit leave."""
        effects, gpu = self._effects, self._gpu
        wanted = gpu.idle_w + (gpu.limit_w - gpu.idle_w) * activity.power
        # Power goes with the square of the clock, about: the voltage falls with it.
        return effects.clock * min(1.0, math.sqrt(effects.power * gpu.limit_w / wanted))

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
        self.rested_ns = self.rested_ns + end - start if self.activity is IDLE else 0
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
        share = activity.power
        if self._effects.foreign is not None:
            share += 0.5 * self._effects.foreign.percent / 100 * (1 - share)
        target = min(gpu.idle_w + (gpu.limit_w - gpu.idle_w) * share, self._effects.power * gpu.limit_w)
        target *= self._effects.clock**2 if activity.busy else 1.0
        left = math.exp(-span / POWER_LAG_NS)
        # The lag solved exactly, so that the energy does not depend on how finely time was cut.
        self._energy_mj += (target * span + (self._power - target) * POWER_LAG_NS * (1 - left)) * 1e-6
        self._power = target + (self._power - target) * left
        at_rest = 30 + gpu.degrees_per_w * target
        self._temperature = at_rest + (self._temperature - at_rest) * math.exp(-span / HEAT_LAG_NS)

    def _sample(self, t: int) -> None:
        busy, memory = self._window(t)
        gpu, effects = self._gpu, self._effects
        used, processes = self.memory_used, [GpuProcess(self._pid, self.worker_memory)] if self.worker_memory else []
        if foreign := effects.foreign:
            share = foreign.percent / 100
            busy, memory = busy + share * (1 - busy), memory + 0.5 * share * (1 - memory)
            used += self.foreign_memory
            if foreign.listed:
                processes.append(GpuProcess(FOREIGN_PID, self.foreign_memory))
        self._write(
            GpuSample(
                t=t,
                gpu=0,
                memory_used=min(used, gpu.memory),
                utilization=round(100 * busy),
                memory_utilization=round(100 * memory),
                power_mw=round(self._power * 1000 * (1 + self._random.gauss(0, 0.004))),
                power_limit_mw=round(effects.power * gpu.limit_w * 1000),
                energy_mj=round(self._energy_mj),
                temperature_c=self._heat(),
                sm_clock_mhz=self._clock_mhz(busy),
                memory_clock_mhz=gpu.memory_mhz,
                throttle=self._throttle(busy),
                processes=processes if self._news(processes) else None,
                worker_memory=self.worker_memory or None,
            )
        )
        if effects.load is not None:
            cores = os.cpu_count() or 1
            self._write(HostSample(t=t, cpu=min(100.0, 100 * effects.load), load=effects.load * cores, worker_cpu=90.0))

    def _clock_mhz(self, busy: float) -> int:
        gpu = self._gpu
        if busy == 0:
            return gpu.idle_mhz
        # Boost steps down as the board nears its power limit.
        clock = gpu.boost_mhz - 15 * round(6 * max(0.0, self._power / gpu.limit_w - 0.7) / 0.3)
        return 15 * round(clock * self.clock_share(self.activity) / 15)

    def _throttle(self, busy: float) -> int:
        """NVML's reasons."""
        if busy == 0:
            return NVML_GPU_IDLE
        capped = self.clock_share(self.activity) < self._effects.clock
        return self._effects.throttle | (NVML_POWER_CAP if capped else 0)

    def _heat(self) -> int:
        hot = self._effects.throttle & (0x20 | 0x40)
        rested = SLOWDOWN_C - COOLING_C_S * self.rested_ns / 1e9
        return round(max(self._temperature, rested) if hot else self._temperature)

    def _news(self, processes: list[GpuProcess]) -> bool:
        """Whether the list is to be told: other processes than the last time, whatever each of them holds."""
        if [process.pid for process in processes] == [process.pid for process in self._told]:
            return False
        self._told = processes
        return True

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
