"""Models that accelerate spreads over devices, memory and disk: what it is asked, and where everything went."""

from __future__ import annotations

from typing import Any

from llava_tui.plan import DEVICE_MAPS, Plan
from llava_tui.plan_checks import memory_limits

_ELSEWHERE = ("cpu", "disk", "meta")
"""Where weights are kept that are computed with on another device."""


def options(plan: Plan, device_map: str, device: Any) -> dict[str, Any]:
    """What ``from_pretrained()`` is to be given; nothing where the whole model is moved to ``device`` afterwards."""
    if device_map == "none":
        return {}
    if device_map not in DEVICE_MAPS:
        return {"device_map": {"": str(device)}}
    given: dict[str, Any] = {"device_map": device_map}
    if limits := memory_limits(plan):
        given["max_memory"] = {_named(place): size for place, size in limits.items()}
    if plan.offload:
        given["offload_folder"] = plan.offload
    return given


def is_placed(model: Any) -> bool:
    """Whether its weights are where they are to stay."""
    return bool(getattr(model, "hf_device_map", None)) or getattr(model, "is_quantized", False)


def places(model: Any) -> dict[str, str]:
    """The device of each module that was placed; "disk" for what is read whenever it is used."""
    found = getattr(model, "hf_device_map", None) or {}
    return {name: f"cuda:{place}" if isinstance(place, int) else str(place) for name, place in found.items()}


def devices(model: Any, device: Any) -> set[str]:
    """What a model computes on that takes its inputs on ``device``: its accelerators, or that."""
    return {place for place in places(model).values() if place not in _ELSEWHERE} or {str(device)}


def entry(torch: Any, model: Any, device: Any) -> Any:
    """Where a model takes its inputs: ``device``, or the accelerator that its first modules are on."""
    used = [place for place in places(model).values() if place not in _ELSEWHERE]
    return torch.device(used[0]) if used and device.type != "cpu" and str(device) not in used else device


def _named(device: str) -> int | str:
    """As accelerate names devices: accelerators by their number."""
    kind, _, number = device.partition(":")
    return kind if kind in ("cpu", "mps") else int(number or 0)
