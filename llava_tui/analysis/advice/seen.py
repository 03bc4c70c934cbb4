"""What the rules look at: one case of a session, and what its model asks of the hardware."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llava_tui.analysis.advice.piece import Advice
from llava_tui.analysis.insights import CaseInsight, Fit, Insights
from llava_tui.analysis.roofline import (
    DECODE_STEP,
    StageRoof,
    Work,
    architecture_of,
    case_value,
    dtype_of,
    quantization_of,
    stage_cost,
    work_of,
)
from llava_tui.costs import Architecture, Underived
from llava_tui.events import ModelFacts, Profile
from llava_tui.session.timeline import View

MODEL_STAGES = ("encode.vision_tower", "encode.projector", "generate.prefill", "generate.decode")
"""What the model itself computes; the rest of a run is the host's."""
DECODE, PREFILL, TOWER = "generate.decode", "generate.prefill", "encode.vision_tower"


@dataclass(frozen=True, slots=True)
class Seen:
    """A case with measured runs. Shares are of a run's wall time, 0…1; times in ns."""

    view: View
    insight: CaseInsight
    model: ModelFacts
    dtype: str
    made: Architecture
    work: Work
    fits: tuple[Fit, ...]
    profile: Profile | None
    wall: float

    @property
    def id(self) -> str:
        return self.insight.case

    @property
    def on_accelerator(self) -> bool:
        return not self.model.device.startswith("cpu")

    @property
    def settable(self) -> bool:
        """Whether the worker can change the loaded model (attention, dtype, cache, …) case by case."""
        return self.view.header.pipeline == "llava"

    @property
    def step(self) -> StageRoof | None:
        """One decode step against its roofs; ``None`` where it is not known what a step asks for."""
        return self.insight.roofline.stage(DECODE_STEP)

    @property
    def near(self) -> float | None:
        """How much of a decode step its floor explains: MBU, or floor / time where what is read may stay in a cache."""
        step = self.step
        if step is None or not step.median:
            return None
        return step.mbu if step.mbu is not None else step.floor / step.median if step.floor else None

    @property
    def model_share(self) -> float:
        """Of the run, what the model itself computes."""
        return sum(self.share(path) for path in MODEL_STAGES)

    def share(self, path: str) -> float:
        """Of the run, 0 where it is not known."""
        row = self.insight.table.row(path)
        return max(row.share or 0.0, 0.0) if row is not None else 0.0

    def median(self, path: str) -> float:
        """0 where it is not known."""
        row = self.insight.table.row(path)
        return max(row.summary.median or 0.0, 0.0) if row is not None else 0.0

    def axis(self, name: str) -> int:
        """The case's place on an axis of whole numbers."""
        value = case_value(self.view, self.id, name)
        return value if isinstance(value, int) else 1

    def setting(self, name: str) -> str:
        """What the case set on the model, else how it was loaded; "" where neither is known."""
        own = case_value(self.view, self.id, name)
        loaded = self.model.attention if name == "attention" else self.model.extra.get(name)
        return str(own or loaded or "")

    def kernels(self, path: str) -> float | None:
        """Kernel time / span of a stage in the profiled run; ``None`` without one."""
        for stage in self.profile.stages if self.profile is not None else []:
            if stage.path == path and stage.span and stage.operators is not None:
                return stage.operators / stage.span
        return None

    @property
    def profiled(self) -> str:
        """Of which case the profiled run was, in words, where it was another."""
        return f" (of {self.profile.case})" if self.profile is not None and self.profile.case != self.id else ""

    def fit(self, path: str) -> Fit | None:
        """T = a + b F of a stage, where this case is one of several that differ in frames alone."""
        return next((fit for fit in self.fits if fit.path == path and self.id in fit.cases), None)

    def most(self, column: str) -> float:
        """Bytes at the allocator's highest ("allocated", "reserved") over the case's stages; 0 where not known."""
        stages = self.view.stages
        return _most(stages[column][stages.where(case=self.id, kind="measured", outcome="ok")])

    def memory_used(self) -> float:
        """Bytes of the GPU's memory in use at the highest, all processes together; 0 where not known."""
        return _most(self.view.samples["memory_used"])

    def step_floor(self, **work: Any) -> float | None:
        """What a decode step would take at best, of this case's work but for what is named; by its bytes alone where
        peaks are not known. Good for ratios only."""
        try:
            cost = stage_cost(self.made, replace(self.work, **work), DECODE_STEP)
        except Underived:
            return None
        if cost is None:
            return None
        peaks = self.insight.roofline.peaks
        flops = peaks.of(self.dtype) if peaks is not None else None
        if peaks is None or flops is None:
            return cost.bytes
        return max(cost.flops / flops, cost.bytes / peaks.bandwidth)

    def advice(self, id_: str, rule: int, **fields: Any) -> Advice:
        """Advice on this case."""
        return Advice(id=id_, rule=rule, case=self.id, **fields)


def look(view: View, found: Insights, insight: CaseInsight) -> Seen | None:
    """The case of ``insight``; ``None`` where the session does not say which model ran, or nothing was measured."""
    model, wall = view.model, insight.table.wall.summary.median or 0.0
    if model is None or wall <= 0:
        return None
    dtype = dtype_of(view, insight.case)
    return Seen(
        view=view,
        insight=insight,
        model=model,
        dtype=dtype,
        made=architecture_of(model, dtype, quantization_of(view, insight.case)),
        work=work_of(view, insight.case),
        fits=found.fits,
        profile=view.fact(Profile),
        wall=wall,
    )


def _most(values: Any) -> float:
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0
