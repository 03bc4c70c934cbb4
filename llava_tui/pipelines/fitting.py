"""Whether a model's weights fit into memory, found out before anything is allocated: too late, the kernel ends the
process without a word."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from llava_tui.events import GpuDevice
from llava_tui.host_memory import host_free
from llava_tui.plan import Load, Plan
from llava_tui.units import size

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def largest_gpu() -> int | None:
    """Bytes of memory of the largest NVIDIA GPU; ``None`` where there is no GPU. Loads the driver's library only."""
    from llava_tui.telemetry.nvml import Nvml

    devices = [event for event in Nvml(0).start() if isinstance(event, GpuDevice)]
    return max((device.memory_total or sys.maxsize for device in devices), default=None)


def dtypes(plan: Plan, config: dict[str, Any], kind: str) -> list[str]:
    """What a model of ``config`` is kept in on a ``kind`` of device (cpu, cuda, …): each dtype that the plan names."""
    if plan.dtype != "auto":
        return plan.dtype.split(",")
    if kind == "cpu":
        return ["float32"]  # half precision is emulated on most CPUs
    text = config.get("text_config") or {}
    named = next((part[key] for part in (config, text) for key in ("dtype", "torch_dtype") if part.get(key)), "")
    return [named if named in BYTES else "float32"]


def refusal(model: str, parameters: int, dtypes: list[str], free: int, where: str) -> str:
    """Why ``parameters`` parameters in one of ``dtypes`` do not fit into ``free`` bytes ``where``, and how to mend it;
    "" if they do: what does not fit together is loaded one after the other. Weights alone: what a run needs beside
    them depends on its case."""
    widest = max(dtypes, key=BYTES.__getitem__)
    needed = parameters * BYTES[widest]
    if needed <= free:
        return ""
    least = parameters * min(BYTES.values())
    mend = "use --dtype bfloat16" if least <= free else "use a smaller model or a device with more memory"
    return (
        f"{model}: {parameters:,} parameters in {widest} need {size(needed)}, "
        f"{where} has {size(free)} free; {mend}" + (f" ({size(least)})" if least <= free else "")
    )


def together(sizes: Mapping[Load, int], room: int) -> tuple[tuple[Load, ...], ...]:
    """Groups of models that are in memory at the same time, in the order of ``sizes`` (bytes of each): one joins the
    group before it while that takes no more than ``room`` bytes."""
    groups: list[list[Load]] = []
    left = 0
    for load, needed in sizes.items():
        if not groups or needed > left:
            groups.append([])
            left = room
        groups[-1].append(load)
        left -= needed
    return tuple(map(tuple, groups))


def free(torch: Any, device: Any) -> tuple[int, str]:
    """Bytes that are free on a device, and the name of the place."""
    module: Any = None if device.type in ("cpu", "meta") else torch.get_device_module(device.type)
    if hasattr(module, "mem_get_info"):
        return int(module.mem_get_info(device)[0]), str(device)
    return host_free(), "this machine"  # which other accelerators without memory of their own share
