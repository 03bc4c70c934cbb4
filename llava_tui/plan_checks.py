"""Whether a plan can be run, as far as the plan alone tells: each field's range, and what does not go together."""

from __future__ import annotations

import re
from typing import Any

from llava_tui import plan as plans
from llava_tui.faults import problem
from llava_tui.plan import Plan, PlanError

_SIZE = re.compile(rf"({plans.DEVICE}|\d+)=(\d+(?:\.\d+)?)([KMGT]i?B)")


def check(plan: Plan) -> None:
    """Raises :class:`PlanError` naming the first field that cannot be run, and how to mend it."""
    _model(plan)
    _settings(plan)
    _placing(plan)
    _axes(plan)
    _course(plan)
    _simulation(plan)


def memory_limits(plan: Plan) -> dict[str, int]:
    """``max_memory`` in bytes, by device. Raises :class:`PlanError`."""
    limits: dict[str, int] = {}
    for part in filter(None, plan.max_memory.split(",")):
        found = _SIZE.fullmatch(part)
        if found is None:
            raise PlanError(f"max_memory: {part!r} is no device and size; write it like cuda:0=10GiB,cpu=20GiB")
        device, (count, unit) = found[1], found.groups()[-2:]
        device = f"cuda:{device}" if device.isdigit() else device
        if device in limits:
            raise PlanError(f"max_memory: {device} is named twice")
        limits[device] = int(float(count) * (1024 if "i" in unit else 1000) ** ("KMGT".index(unit[0]) + 1))
    return limits


def _model(plan: Plan) -> None:
    _choice("pipeline", plan.pipeline, plans.PIPELINES)
    _choice("grouping", plan.grouping, plans.GROUPINGS)
    _choice("media", plan.media, plans.MEDIA)
    _choice("simulated_gpu", plan.simulated_gpu, plans.SIMULATED_GPUS)
    if plan.grouping != "pipeline" and plan.pipeline != "eventgpt":
        raise PlanError("grouping: only EventGPT has several; add --pipeline eventgpt")
    if plan.weights == "random" and plan.pipeline == "simulated":
        raise PlanError("weights: a simulation has none; leave it out")
    if not plan.inputs and not plan.dataset:
        raise PlanError("inputs: nothing to run on; give --input PATH")
    if not plan.model:
        raise PlanError("model: empty; give a folder, a hub id, or 'demo'")
    if plan.media != "auto" and plan.pipeline != "llava":
        raise PlanError(f"media: {plan.pipeline} has no choice of it; leave it out")


def _settings(plan: Plan) -> None:
    """What is set on a loaded model."""
    for setting, choices in plans.NAMED.items():
        named = getattr(plan, setting).split(",")
        for value in named:
            if setting == "device_map" and value != "auto" and re.fullmatch(plans.DEVICE, value):
                continue
            several = len(named) > 1 and setting != "device_map"
            _choice(setting, value, tuple(c for c in choices if c != "auto") if several else choices)
        _different(setting, named)
    for setting, (least, most) in plans.NUMBERED.items():
        values: tuple[int, ...] = getattr(plan, setting)
        if not all(least <= value <= most for value in values):
            raise PlanError(f"{setting}: {_join(values)}: give numbers from {least} to {most}")
        _different(setting, values)
    if "dynamic" in plan.cache.split(",") and "off" not in plan.compile.split(","):
        raise PlanError("cache: nothing can be compiled for a dynamic cache, it grows with each token; use static")
    if plan.pipeline == "simulated":
        plain = Plan()
        changed = [each for each in plans.SETTINGS if getattr(plan, each) != getattr(plain, each)]
        if any(name not in ("dtype", "attention") or "," in getattr(plan, name) for name in changed):
            raise PlanError(f"{', '.join(plans.SETTINGS)}: a simulation has none to change; leave them out")


def _placing(plan: Plan) -> None:
    """Where weights go, and what they are."""
    limits = memory_limits(plan)
    if not re.fullmatch(plans.DEVICE, plan.device):
        raise PlanError(f"device: {plan.device!r} names none; give auto, cpu, cuda, cuda:1, mps or xpu")
    if not 1 <= plan.processes <= 64:
        raise PlanError(f"processes: {plan.processes} is outside 1…64")
    if plan.processes > 1:
        if plan.pipeline == "simulated":
            raise PlanError("processes: a simulation is of one process; leave it out")
        if ":" in plan.device:
            kind = plan.device.split(":")[0]
            raise PlanError(f"processes: each rank has a device of its own, and {plan.device} is one; use {kind}")
        if plan.device_map != "none":
            raise PlanError(
                "processes: each rank has a device of its own, and device_map takes them all; use one of both"
            )
    if plan.offload and plan.device_map == "none":
        raise PlanError("offload: only a device map leaves weights over; add --device-map auto")
    if plan.pipeline == "simulated" and (limits or plan.offload):
        raise PlanError("max_memory, offload: a simulation has no weights; leave them out")
    if plan.pipeline == "eventgpt":
        for name in ("quantization", "device_map", "resolution", "vision_attention"):
            if getattr(plan, name) != getattr(Plan(), name):
                raise PlanError(f"{name}: EventGPT is put together from parts, as a whole it takes none; leave it out")
    if plan.weights == "random" and plan.device_map != "none":
        raise PlanError("device_map: random weights are made on one device; use --device, or --weights pretrained")


def _axes(plan: Plan) -> None:
    for axis in plans.AXES:
        values: tuple[int, ...] = getattr(plan, axis)
        least, most = plans.LEAST[axis], plans.MOST[axis]
        if axis == "frames" and plan.pipeline != "llava":
            least = 1
        if not values:
            raise PlanError(f"{axis}: no value given; give at least one, like {axis} = [4]")
        for value in values:
            if not least <= value <= most:
                raise PlanError(f"{axis}: {value} is outside {least}…{most}")
        _different(axis, values)


def _course(plan: Plan) -> None:
    if plan.rounds != "auto" and plan.rounds < 1:
        raise PlanError(f"rounds: {plan.rounds} measures nothing; give 1 or more, or auto")
    if not 10 <= plan.max_rounds <= 100_000:
        raise PlanError(f"max_rounds: {plan.max_rounds} is outside 10…100000; give a smaller number as rounds")
    if not 0.0001 <= plan.delta <= 0.5:
        raise PlanError(f"delta: {plan.delta:g} is outside 0.0001…0.5; 0.01 is ±1 %")
    if plan.time_limit_s is not None and not plan.time_limit_s > 0:
        raise PlanError(f"time_limit_s: {plan.time_limit_s:g} leaves no time to measure; give seconds above 0")
    if plan.warmup != "auto" and plan.warmup < 0:
        raise PlanError(f"warmup: {plan.warmup} is below 0; 0 means no warm-up runs")
    if not 0.1 <= plan.sample_hz <= 100:
        raise PlanError(f"sample_hz: {plan.sample_hz:g} is outside 0.1…100 Hz; NVML itself refreshes at 1 to 6 Hz")


def _simulation(plan: Plan) -> None:
    if plan.profile and plan.pipeline == "simulated":
        raise PlanError("profile: a simulation has no operators to look at; leave it out")
    if not (0 <= plan.time_scale <= 1000):
        raise PlanError(f"time_scale: {plan.time_scale:g} is outside 0…1000; 1 is real time, 0 as fast as possible")
    if plan.faults and plan.pipeline != "simulated":
        raise PlanError("faults: only a simulation goes wrong on purpose; add --pipeline simulated")
    for fault in plan.faults:
        if why := problem(fault):
            raise PlanError(f"faults: {why}")


def _choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise PlanError(f"{field}: {value!r} is not one of {', '.join(choices)}")


def _different(field: str, values: Any) -> None:
    if len(set(values)) != len(values):
        raise PlanError(f"{field}: {_join(values)} names a value twice; each case runs once a round anyway")


def _join(values: Any) -> str:
    return ", ".join(str(value) for value in values)
