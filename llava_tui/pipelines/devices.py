"""The device that a model runs on: which it is, made current, and what it is called."""

from __future__ import annotations

import os
from typing import Any

from llava_tui.pipelines.base import PipelineError, first_line


def choose(torch: Any, wanted: str) -> Any:
    """The device that is wanted, made current: an accelerator by its number, for a name without one means another
    device in every place that asks for the current one. Raises :class:`PipelineError`."""
    try:
        if wanted != "auto":
            device = torch.device(wanted)
            torch.empty(1, device=device)
            return _make_current(torch, device)
        if torch.accelerator.is_available():
            return _make_current(torch, torch.accelerator.current_accelerator())
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise PipelineError(
            f"device {wanted}: cannot be used here: {first_line(error)}; try --device auto, or cpu"
        ) from None
    return torch.device("cpu")


def _make_current(torch: Any, device: Any) -> Any:
    module: Any = None if device.type in ("cpu", "meta") else torch.get_device_module(device.type)
    if not hasattr(module, "set_device"):  # there is one of its kind at most
        return device
    index = module.current_device() if device.index is None else device.index
    module.set_device(index)
    return torch.device(device.type, index)


def name_of(torch: Any, device: Any) -> str:
    """As its driver calls it; its kind where there is no such name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return str(device.type).upper()


def uuid_of(torch: Any, device: Any) -> str:
    """By which the driver knows the GPU, whatever number it has for torch; "" where torch does not tell."""
    if device.type != "cuda":
        return ""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def sdpa_backends(torch: Any) -> str:
    """The kernels that scaled dot-product attention may choose from."""
    backends = torch.backends.cuda
    enabled = {
        "flash": backends.flash_sdp_enabled,
        "mem_efficient": backends.mem_efficient_sdp_enabled,
        "cudnn": backends.cudnn_sdp_enabled,
        "math": backends.math_sdp_enabled,
    }
    return ", ".join(name for name, is_enabled in enabled.items() if is_enabled()) or "none"


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has where it is pinned, or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
