"""How long a plan will take and what memory, before anything was run: from earlier sessions where there are such, else
from what the hardware could do at best."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llava_tui import architecture, costs, dataset, models, presets
from llava_tui.forecast import forecast
from llava_tui.host_memory import host_free
from llava_tui.plan import DEMO, NAMED, Case, Plan

if TYPE_CHECKING:
    from llava_tui.analysis.peaks import Peaks
    from llava_tui.session.store import SessionInfo

WARM_UPS, ROUNDS = (3, 20), 10
"""What ``auto`` comes to: the least and the most warm-up runs, the least rounds."""
SELF_TEST = 10
"""Runs: five pairs."""
CHARACTERS = 4
"""Of a prompt, a token, roughly."""
SIMULATED = {
    "a100": "A100-SXM4-80GB",
    "h100": "H100 80GB HBM3",
    "rtx-4090": "GeForce RTX 4090",
    "rtx-3090": "GeForce RTX 3090",
    "t4": "T4",
}
"""The simulated GPUs by the name that peaks are kept by."""
STOOD_FOR = "llava-1.5-7b"
"""What the simulator simulates, whatever it is called."""


Range = tuple[int, int]
"""The least and the most."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to be expected of a plan, loading left out."""

    runs: Range
    """Of every kind."""
    seconds: tuple[float, float] | None
    """Of the session's own time, simulated where that is; ``None``: not known before the first run."""
    scale: float
    """Real seconds a second of it; 0: as fast as possible."""
    floor: bool
    """Whether the time is the least that the hardware allows, not what was measured."""
    time_from: str
    """Where the time is from, in words."""
    memory: float | None
    """Bytes, of the case that takes most; at least."""
    memory_from: str
    items: int = 0
    """Of a data set; 0: it has none, and its inputs are measured again and again."""
    short: tuple[str, ...] = ()
    """Cases that do not fit into memory, or may not, and what to do."""


class _CaseSummary(msgspec.Struct):
    measured: int = 0
    wall: float = 0.0
    memory: float | None = None


class _Summary(msgspec.Struct):
    cases: dict[str, _CaseSummary] = {}


def rounds_of(plan: Plan, case: Case, items: int = 0) -> Range:
    """Measured rounds of a case. Of ``items`` a plan's rounds are passes over all of them, in batches."""
    if items:
        passes = 1 if plan.rounds == "auto" else plan.rounds
        return (passes * dataset.rounds_of(items, case.batch, plan.processes),) * 2
    return (min(ROUNDS, plan.max_rounds), plan.max_rounds) if plan.rounds == "auto" else (plan.rounds, plan.rounds)


def others_of(plan: Plan, case: Case) -> Range:
    """Runs of a case that are not of a round: warm-up and cross-check; the first case's cold start, self-test and
    profile too."""
    warm = WARM_UPS if plan.warmup == "auto" else (plan.warmup, plan.warmup)
    once = 1
    if case == plan.cases()[0]:
        real = plan.pipeline != "simulated"
        once += 1 + (SELF_TEST if plan.self_test and real else 0) + plan.profile
    return warm[0] + once, warm[1] + once


def _seconds(plan: Plan, walls: Mapping[Case, float], items: int) -> tuple[float, float]:
    """Of the session's own time, simulated where that is."""
    round_ = sum(walls.values())
    limit = math.inf if plan.time_limit_s is None else plan.time_limit_s + round_  # a round that has begun is finished
    low, high = (
        sum(wall * others_of(plan, case)[end] for case, wall in walls.items())
        + min(sum(wall * rounds_of(plan, case, items)[end] for case, wall in walls.items()), limit)
        for end in (0, 1)
    )
    return low, high


def estimate(plan: Plan, sessions: Sequence[SessionInfo]) -> Estimate:
    """For ``plan``, from ``sessions`` that were recorded here, the newest first. Reads small files, and the plan's data
    set. Raises :class:`~llava_tui.plan.PlanError` for one that cannot be used."""
    cases, items = plan.cases(), len(dataset.items_of(plan))
    least, most = (
        sum(others_of(plan, case)[end] + rounds_of(plan, case, items)[end] for case in cases) for end in (0, 1)
    )
    scale = plan.time_scale if plan.pipeline == "simulated" else 1.0
    told_of, names = _measured(plan, cases, sessions)
    known = {case: told.wall / 1e9 for case, told in told_of.items()}
    made, config = _architecture(plan)
    floors: dict[Case, float] = {}
    peaks = _peaks(plan, sessions)
    if len(known) < len(cases) and made is not None and peaks is not None:
        floors = {case: floor for case in cases if (floor := _floor(plan, case, made, config, peaks)) is not None}
    walls = floors | known
    seconds = None
    if len(walls) == len(cases):
        seconds = _seconds(plan, walls, items)
    if len(known) == len(cases):
        source = f"from {', '.join(names[:2])}" + (" and others" if len(names) > 2 else "")
    elif seconds is not None and peaks is not None:
        source = f"at least, by the peaks of {peaks.device}"
    else:
        source = "unknown until the first run"
    memory, memory_from, short = _memory(plan, config)
    held = [told.memory for told in told_of.values() if told.memory]
    if len(held) == len(cases) and plan.pipeline != "simulated":  # whose process holds no model
        memory, memory_from, short = max(held), source, ()
    floor = len(known) < len(cases)
    return Estimate((least, most), seconds, scale, floor, source, memory, memory_from, items, short)


# --- earlier sessions -----------------------------------------------------------------------------------------------


def _measured(
    plan: Plan, cases: Sequence[Case], sessions: Sequence[SessionInfo]
) -> tuple[dict[Case, _CaseSummary], list[str]]:
    """What sessions of the same model on this machine measured of each case, and those sessions."""
    found: dict[Case, _CaseSummary] = {}
    names: list[str] = []
    for info in sessions:
        if len(found) == len(cases):
            break
        if not _alike(plan, info):
            continue
        try:
            summary = msgspec.json.decode((info.path / "summary.json").read_bytes(), type=_Summary)
        except (OSError, msgspec.MsgspecError, RecursionError):
            continue
        for case in cases:
            told = summary.cases.get(case.id)
            if case not in found and told is not None and told.measured > 0 and told.wall > 0:
                found[case] = told
                names.append(info.notes.name or info.id)
    return found, list(dict.fromkeys(names))


def _alike(plan: Plan, info: SessionInfo) -> bool:
    """Whether what that session measured would be measured again: the same model, set up alike, on this machine."""
    header = info.header
    if header is None or header.provenance == "imported":
        return False
    if plan.pipeline != "simulated" and not _here(info):
        return False
    wanted, defaults = (msgspec.json.decode(each.to_json()) for each in (plan, Plan()))
    before = defaults | header.plan
    fields = ("pipeline", "model", "weights", "device", "simulated_gpu", "threads", *NAMED)
    return all(before.get(field) == wanted[field] for field in fields)


def _here(info: SessionInfo) -> bool:
    """Whether it was recorded on this machine; containers get a new name each."""
    return info.header is not None and info.header.host.hostname == socket.gethostname()


# --- what the hardware could do -------------------------------------------------------------------------------------


def _architecture(plan: Plan) -> tuple[costs.Architecture | None, dict[str, Any]]:
    config = config_of(plan)
    if not config:
        return None, {}
    return costs.architecture(config, dtype_of(plan, config)), config


def config_of(plan: Plan) -> dict[str, Any]:
    """The model's, where it is on this machine."""
    if plan.pipeline == "simulated":
        preset = presets.find(STOOD_FOR)
        return preset.config if preset is not None else {}
    if plan.model == DEMO:
        return {}
    try:
        if plan.weights == "random":
            return models.config_of(plan.model, plan.pipeline)[0]
        folder = models.resolve(plan.model)
        return models.read_config(folder, plan.model) if folder is not None else {}
    except (models.ModelError, OSError):
        return {}


def dtype_of(plan: Plan, config: dict[str, Any]) -> str:
    named = plan.dtype.split(",")[0]
    if named != "auto":
        return named
    if plan.pipeline == "simulated":
        return "float16"
    return str(config.get("dtype") or config.get("torch_dtype") or "float16") if device_of(plan) != "cpu" else "float32"


def device_of(plan: Plan) -> str:
    kind = plan.device.split(":")[0]
    return kind if kind != "auto" else "cuda" if _boards() else "cpu"


def _boards() -> list[str]:
    """Names of the NVIDIA GPUs, from the driver's own files."""
    found = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found


def _peaks(plan: Plan, sessions: Sequence[SessionInfo]) -> Peaks | None:
    from llava_tui import measured_peaks
    from llava_tui.analysis.peaks import peaks_of

    if plan.pipeline == "simulated":
        return peaks_of(SIMULATED.get(plan.simulated_gpu, ""))
    if device_of(plan) == "cuda":
        boards = _boards()
        number = plan.device.partition(":")[2]
        at = int(number) if number.isdigit() else 0
        return peaks_of(boards[at], measured_peaks.load()) if at < len(boards) else None
    here = next((info for info in sessions if _here(info)), None)
    if device_of(plan) == "cpu" and here is not None and here.header is not None:
        return peaks_of(here.header.host.cpu, measured_peaks.load())
    return None


def _prompt(plan: Plan, case: Case, config: dict[str, Any]) -> float | None:
    tokens = architecture.image_tokens(config, case.frames, plan.media)
    return tokens + len(plan.prompt) / CHARACTERS if tokens is not None else None


def _floor(plan: Plan, case: Case, made: costs.Architecture, config: dict[str, Any], peaks: Peaks) -> float | None:
    """Seconds that the model's own stages take at least; decoding and preparing frames come on top."""
    from llava_tui.analysis.roofline import floor_of

    flops = peaks.of(dtype_of(plan, config)) or peaks.of("float16")
    prompt = _prompt(plan, case, config)
    if flops is None or prompt is None:
        return None
    pictures = case.frames * case.batch
    try:
        stages = [
            (made.vision_cost(pictures), 1),
            (made.projector_cost(pictures), 1),
            (made.prefill_cost(prompt, case.batch), 1),
            (made.decode_cost(prompt + case.new_tokens / 2, case.batch), max(case.new_tokens - 1, 0)),
        ]
    except costs.Underived:
        return None
    return sum(times * floor_of(cost, flops, peaks.bandwidth)[0] for cost, times in stages) / 1e9


def _memory(plan: Plan, config: dict[str, Any]) -> tuple[float | None, str, tuple[str, ...]]:
    """Of the case that takes most, where that is from, and which cases do not fit or may not."""
    here = plan.pipeline != "simulated" and device_of(plan) == "cpu"
    free = host_free() if here else None
    expected = forecast(plan, config, dtype_of(plan, config), free, "this machine") if config else ()
    if not expected:
        return None, "unknown until the first run", ()
    short = tuple(f"{each.case} {each.problem}" for each in expected if each.problem)
    return max(each.total for each in expected), "weights, cache and activations, by estimate", short
