"""What is read of the machine: the lines of ``telemetry.jsonl``, which the sampler writes, and what the worker saw of
the GPUs before it loaded anything. Memory is bytes; ``None`` says "not known" and is never written as 0."""

from __future__ import annotations

import msgspec

from llava_tui.lines import Event


class GpuProcess(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    pid: int
    memory: int | None = None
    kind: str = "compute"


class GpuState(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A GPU before anything was loaded onto it."""

    gpu: int
    name: str = ""
    memory_free: int | None = None
    memory_total: int | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_mw: int | None = None
    utilization: float | None = None
    throttle: int | None = None
    foreign: list[GpuProcess] | None = None
    """Processes of others; ``None`` where they are not told."""


class GpuDevice(Event, frozen=True, kw_only=True, omit_defaults=True, tag="gpu.device", gc=False):
    """What does not change about a GPU; written once a GPU, before its first sample."""

    gpu: int
    name: str = ""
    uuid: str = ""
    memory_total: int | None = None
    memory_reserved: int | None = None
    """What the driver keeps of it for itself, beside every sample's ``memory_used``."""
    driver: str = ""
    cuda: str = ""
    pcie: str = ""
    """Link generation and width ("gen 4 ×16")."""
    mig: bool | None = None
    ecc: bool | None = None
    source: str = "nvml"
    """``simulated`` where no driver was asked."""


class GpuSample(Event, frozen=True, kw_only=True, omit_defaults=True, tag="gpu", gc=False):
    """One reading. A field that is ``None`` has its reason in the newest :class:`GpuAbsent` before it."""

    gpu: int
    memory_used: int | None = None
    utilization: float | None = None
    """Percent of the driver's own window (1/6 to 1 s) in which a kernel ran."""
    memory_utilization: float | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    energy_mj: int | None = None
    """Total since the driver was loaded."""
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle: int | None = None
    """NVML clocks-event reasons, a bit mask."""
    pcie_tx_kbs: int | None = None
    pcie_rx_kbs: int | None = None
    processes: list[GpuProcess] | None = None
    """Written only when it changed since the last sample that had it."""
    worker_memory: int | None = None
    """The worker's own memory on this GPU, by its PID; ``None`` where PIDs do not match (containers)."""


class GpuAbsent(Event, frozen=True, kw_only=True, omit_defaults=True, tag="gpu.absent", gc=False):
    """Why fields are ``None``: the whole map, told again whenever it changes. ``gpu`` −1: no GPU can be asked at all,
    with the reason under ``"*"``; a lost GPU has ``"*"`` too."""

    gpu: int
    reasons: dict[str, str]


class HostSample(Event, frozen=True, kw_only=True, omit_defaults=True, tag="host", gc=False):
    cpu: float | None = None
    """Percent of all cores."""
    memory_used: int | None = None
    memory_total: int | None = None
    load: float | None = None
    """1-minute load average."""
    worker_cpu: float | None = None
    """Percent of one core."""
    worker_rss: int | None = None


TelemetryEvent = GpuDevice | GpuSample | GpuAbsent | HostSample
