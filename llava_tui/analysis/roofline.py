"""What the hardware could do at best with the model that ran, beside what it did: floors, MFU, MBU.

FLOPs and bytes come from the model's config (``llava_tui.costs``), peaks from ``peaks``. MFU = FLOP / (time × peak),
MBU = bytes / (time × bandwidth). A stage that took less than its floor was not timed right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llava_tui.analysis.measures import case_values
from llava_tui.analysis.peaks import Peaks
from llava_tui.analysis.steps import StepTable
from llava_tui.costs import DTYPE_BYTES, Architecture, Cost, Underived, architecture
from llava_tui.events import ModelFacts
from llava_tui.session.timeline import View

CACHED_BYTES = 512 << 20
"""Less than this may stay in a processor's cache from one step to the next, so memory sets no floor."""
SLACK = {False: 0.90, True: 0.75}
"""A time below this share of the floor is impossible, by data-sheet peaks and by measured ones: boards boost above the
clock of their data sheet, and a benchmark does not reach a processor's very best."""

Bound = Literal["compute", "memory"]


@dataclass(frozen=True, slots=True)
class StageRoof:
    """One stage (or, for decode, one step of it as well) against its roofs. Times in ns; ``None``: not known."""

    path: str
    title: str
    flops: float
    bytes: float
    median: float
    floor: float | None
    mfu: float | None
    mbu: float | None
    """``None`` as well where what is read is so little that it may stay in a cache."""
    bound: Bound | None
    """Which roof the floor is from."""
    impossible: bool
    """It took less than the roofline allows: a timing bug, or peaks of another device."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """A case against the roofs. ``stages`` in the tree's order, the decode step (:data:`DECODE_STEP`) last."""

    device: str
    peaks: Peaks | None
    dtype: str
    stages: tuple[StageRoof, ...]
    unknown: tuple[str, ...]
    """What could not be derived, and why, a line each."""

    def stage(self, leaf: str) -> StageRoof | None:
        """The row whose path ends in ``leaf`` ("prefill", "vision_tower", :data:`DECODE_STEP`)."""
        return next((row for row in self.stages if row.path.rsplit(".", 1)[-1] == leaf), None)


DECODE_STEP = "decode_step"
"""Path of the row of one decode step, by the time per output token."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a case consists of, by medians over its measured runs."""

    batch: int
    pictures: float | None
    """That went through the vision tower, all sequences together."""
    prompt_tokens: float | None
    """Of one sequence, image tokens included."""
    image_tokens: float | None
    new_tokens: float | None


def work_of(view: View, case: str) -> Work:
    """The case's work from its measured runs."""
    runs = view.runs
    mask = runs.where(case=case, kind="measured", outcome="ok")

    def middle(column: str) -> float | None:
        values = np.asarray(runs[column], dtype=np.float64)[mask]
        values = values[np.isfinite(values)]
        return float(np.median(values)) if values.size else None

    pictures = middle("frames")
    some = np.flatnonzero(mask)
    if some.size and isinstance(facts := runs.value("facts", int(some[0])), dict):
        told = facts.get("pictures")
        pictures = float(told) if isinstance(told, int) and told > 0 else pictures
    return Work(
        batch=int(case_value(view, case, "batch") or 1),
        pictures=pictures,
        prompt_tokens=middle("prompt_tokens"),
        image_tokens=middle("image_tokens"),
        new_tokens=middle("new_tokens"),
    )


def case_value(view: View, case: str, axis: str) -> int | float | str | None:
    """A case's value on a sweep axis; ``None`` where no schedule tells."""
    return case_values(view, case).get(axis)


def device_of(view: View) -> str:
    """The name of what the model ran on, as peaks are kept by it; "" before it is known."""
    model = view.model
    if model is None:
        return ""
    # "CPU" tells nothing of which; the host's does.
    return view.header.host.cpu if model.device.startswith("cpu") else model.device_name or model.device


def dtype_of(view: View, case: str) -> str:
    """What the case's runs computed in: its own setting, else the model's; "" before a model is known."""
    own = case_value(view, case, "dtype")
    return str(own) if own else view.model.dtype if view.model is not None else ""


_QUANTISED: dict[str, dict[str, Any]] = {
    "bnb-8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "bnb-4bit": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "torchao-int8": {"quant_method": "torchao", "quant_type": "int8"},
    "torchao-int8-dynamic": {"quant_method": "torchao", "quant_type": "int8"},
    "torchao-int4": {"quant_method": "torchao", "quant_type": "int4"},
}
"""What a config says of weights that are quantised as a plan names it."""
_INT8_PRODUCTS = ("bnb-8bit", "torchao-int8-dynamic")
"""Quantizations that multiply int8 by int8, on units whose peak no table here has."""


def quantization_of(view: View, case: str) -> str:
    """How the case's weights were quantised when they were loaded; "" where they were not."""
    model = view.model
    told = case_value(view, case, "quantization") or (model.extra.get("quantization") if model is not None else "")
    return str(told) if told in _QUANTISED else ""


def peak_flops(view: View, case: str, peaks: Peaks | None) -> float | None:
    """What ``peaks`` say of the units that the case's products are computed on; ``None`` where they do not."""
    if peaks is None or quantization_of(view, case) in _INT8_PRODUCTS:
        return None
    return peaks.of(dtype_of(view, case))


def architecture_of(model: ModelFacts, dtype: str = "", quantization: str = "") -> Architecture:
    """The sizes of the model that was loaded, run in ``dtype`` (else its own), quantised as a plan names it."""
    config = model.config | ({"quantization_config": _QUANTISED[quantization]} if quantization in _QUANTISED else {})
    return architecture(config, dtype or model.dtype, model.parameters)


def roofline(view: View, table: StepTable, peaks: Peaks | None) -> Roofline:
    """The case of ``table`` against ``peaks`` (``None``: not known; FLOPs and bytes are told even so)."""
    model = view.model
    if model is None or not model.config:
        why = "the model's config is not in the session" if model is not None else "no model was loaded"
        return Roofline(device_of(view), peaks, "", (), (why,))
    dtype = dtype_of(view, table.case)
    made, work = architecture_of(model, dtype, quantization_of(view, table.case)), work_of(view, table.case)
    unknown = [f"{name}: {why}" for name, why in made.missing.items()]
    flops = peak_flops(view, table.case, peaks)
    if peaks is None:
        unknown.append(
            f"peaks: {device_of(view) or 'the device'} is not in the table; llava-tui doctor --measure-peaks"
        )
    elif flops is None:
        of = "of int8 products" if quantization_of(view, table.case) in _INT8_PRODUCTS else f"in {dtype}"
        unknown.append(f"peaks: none {of} for {peaks.device}")
    if dtype not in DTYPE_BYTES:
        unknown.append(f"dtype: bytes of {dtype} are not known; 2 are taken")

    rows = []
    for row in table.rows:
        leaf = row.path.rsplit(".", 1)[-1]
        if row.summary.median is None:
            continue
        try:
            cost = stage_cost(made, work, leaf)
        except Underived:
            continue
        if cost is not None:
            steps = (work.new_tokens or 2) - 1 if leaf == "decode" else 1
            rows.append(_against(row.path, row.title, cost, row.summary.median, peaks, flops, steps))
    if table.tpot.median and work.prompt_tokens and (work.new_tokens or 0) > 1:
        try:
            cost = stage_cost(made, work, DECODE_STEP)
        except Underived:
            cost = None
        if cost is not None:
            rows.append(_against(DECODE_STEP, "decode, a token", cost, table.tpot.median, peaks, flops))
    return Roofline(device_of(view), peaks, dtype, tuple(rows), tuple(dict.fromkeys(unknown)))


def stage_cost(made: Architecture, work: Work, leaf: str) -> Cost | None:
    """What one execution of a stage asks for; ``None`` for stages that have no such figure (host stages), and where a
    run did not tell how much there was to do. Raises :class:`~llava_tui.costs.Underived`."""
    if leaf in ("vision_tower", "projector") and work.pictures:
        return made.vision_cost(work.pictures) if leaf == "vision_tower" else made.projector_cost(work.pictures)
    if not work.prompt_tokens:
        return None
    if leaf == "prefill":
        return made.prefill_cost(work.prompt_tokens, work.batch)
    if leaf in ("decode", DECODE_STEP) and (work.new_tokens or 0) > 1:
        steps = (work.new_tokens or 0) - 1
        # Cost is linear in the context, so the middle step stands for all. The i-th step sees prompt + i tokens.
        step = made.decode_cost(work.prompt_tokens + (steps + 1) / 2, work.batch)
        return step if leaf == DECODE_STEP else step.times(steps)
    return None


def floor_of(cost: Cost, flops: float, bandwidth: float, steps: float = 1) -> tuple[float, Bound]:
    """The least time in ns that ``cost`` takes, and which roof says so. ``steps``: executions that ``cost`` is the sum
    of; what one of them moves may stay in a cache if it is little."""
    compute = cost.flops / flops * 1e9
    memory = cost.bytes / bandwidth * 1e9 if cost.bytes / steps > CACHED_BYTES else 0.0
    return (memory, "memory") if memory > compute else (compute, "compute")


def _against(
    path: str, title: str, cost: Cost, median: float, peaks: Peaks | None, flops: float | None, steps: float = 1
) -> StageRoof:
    if peaks is None or flops is None or median <= 0:
        return StageRoof(path, title, cost.flops, cost.bytes, median, None, None, None, None, False)
    cached = cost.bytes / steps <= CACHED_BYTES
    floor, bound = floor_of(cost, flops, peaks.bandwidth, steps)
    return StageRoof(
        path=path,
        title=title,
        flops=cost.flops,
        bytes=cost.bytes,
        median=median,
        floor=floor,
        mfu=cost.flops / (median / 1e9 * flops),
        mbu=None if cached else cost.bytes / (median / 1e9 * peaks.bandwidth),
        bound=bound,
        impossible=median < floor * SLACK[peaks.measured],
    )
