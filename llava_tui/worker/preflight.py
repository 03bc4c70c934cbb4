"""What the machine is like before the first run: what makes figures doubtful from the start is said there."""

from __future__ import annotations

import os
from collections.abc import Sequence

from llava_tui.events import GpuProcess, GpuSample, GpuState, Preflight
from llava_tui.units import counted, size
from llava_tui.worker.facts import governor
from llava_tui.worker.rules import HEAT_BITS, throttling
from llava_tui.worker.vitals import Vitals

BUSY = 10.0
"""Percent of utilization from which on a GPU that we do not use yet is somebody else's."""


def inspect(
    t: int,
    vitals: Vitals | None,
    loaded_from: int,
    load: float,
    simulated: bool,
    short: Sequence[str] = (),
) -> Preflight:
    """The machine by its first readings. ``loaded_from``: ``t`` at which our own memory may have come onto a GPU: who
    was there before is not us, even where PIDs are those of another namespace (containers). ``load``: the load average
    before anything was loaded; ``short``: what may not fit into memory. Warnings of GPUs are of those that the model is
    on."""
    ours = vitals.ours if vitals is not None else None
    gpus: list[GpuState] = []
    absent = "nothing watches the machine"
    if vitals is not None:
        gpus = [_state(vitals, gpu, sample, loaded_from) for gpu, sample in sorted(vitals.first.items())]
        absent = "" if gpus else vitals.absent.get(-1, {}).get("*", "no reading yet")
    cores = os.cpu_count() or 1
    # A simulation does not depend on the machine it runs on.
    host = [] if simulated else _host_warnings(load, cores, governor())
    return Preflight(
        t=t,
        load=None if simulated else round(load, 2),
        cores=cores,
        governor="" if simulated else governor(),
        gpus=gpus,
        absent=absent,
        warnings=[*short, *host]
        + [warning for gpu in gpus if ours is None or gpu.gpu in ours for warning in _gpu_warnings(gpu)],
    )


def _state(vitals: Vitals, gpu: int, sample: GpuSample, loaded_from: int) -> GpuState:
    device = vitals.devices.get(gpu)
    total, free = device.memory_total if device is not None else None, None
    if device is not None and total is not None and sample.memory_used is not None:
        free = total - (device.memory_reserved or 0) - sample.memory_used
    return GpuState(
        gpu=gpu,
        name=device.name if device is not None else "",
        memory_free=free,
        memory_total=total,
        temperature_c=sample.temperature_c,
        sm_clock_mhz=sample.sm_clock_mhz,
        memory_clock_mhz=sample.memory_clock_mhz,
        power_limit_mw=sample.power_limit_mw,
        utilization=sample.utilization,
        throttle=sample.throttle,
        foreign=_foreign(vitals, gpu, loaded_from),
    )


def _foreign(vitals: Vitals, gpu: int, loaded_from: int) -> list[GpuProcess] | None:
    t, processes = vitals.processes.get(gpu, (0, None))
    own = os.getpid()
    if processes is None or (t >= loaded_from and own not in vitals.pids):
        return None  # One of them may be us, by a number that we do not know.
    return [process for process in processes if process.pid != own]


def _host_warnings(load: float, cores: int, governor: str) -> list[str]:
    found = []
    if load > cores:
        on = f"{load:.1f} on {counted(cores, 'core')}"
        found.append(f"load average was {on} before loading: what else runs here disturbs times")
    if governor not in ("", "performance"):
        found.append(f"the CPU governor is {governor}: its clock changes with the load, and short steps with it")
    return found


def _gpu_warnings(gpu: GpuState) -> list[str]:
    name, found = f"GPU {gpu.gpu}", []
    if gpu.foreign:
        held = [process.memory for process in gpu.foreign if process.memory is not None]
        memory = f", {size(sum(held))}" if held else ""
        pids = ", ".join(str(process.pid) for process in gpu.foreign[:4]) + ("…" if len(gpu.foreign) > 4 else "")
        found.append(f"{name} is used by others (pid {pids}{memory}): times will vary")
    elif gpu.utilization is not None and gpu.utilization > BUSY:
        found.append(f"{name} is {gpu.utilization:.0f} % busy before anything ran: somebody else uses it")
    if (gpu.throttle or 0) & HEAT_BITS:
        found.append(f"{name} is throttled before anything ran: {throttling(gpu.throttle or 0)}")
    return found
