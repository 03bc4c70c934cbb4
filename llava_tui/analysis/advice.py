"""What would make a run faster: a trigger, its evidence, the gain to expect, and the command that puts it to the test.

A gain is told as the share of the run's time that it saves. It is bounded by Amdahl's law: no more than the share of
the part that the change touches. The rules and their thresholds are those of ``docs/advice.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llava_tui.analysis.insights import CaseInsight, Fit, Insights
from llava_tui.analysis.roofline import (
    DECODE_STEP,
    Work,
    architecture_of,
    case_value,
    device_of,
    dtype_of,
    stage_cost,
    work_of,
)
from llava_tui.analysis.trust import Reason, Trust
from llava_tui.costs import Architecture, Underived
from llava_tui.events import ModelFacts, Profile
from llava_tui.session.timeline import View

BANDWIDTH_BOUND = 0.60
FAR_FROM_BANDWIDTH = 0.40
LAUNCH_BOUND = 0.70
"""Kernel time / span below which launches leave gaps."""
FOUR_BIT = 1.9
"""What 4-bit weights gave in decode (gpt-fast: 104.9 → 196.8 tok/s), not the 4 that bytes alone promise."""
OVERHEAD_SHARE = 0.5
NEAR_FLOOR, FAR_FROM_FLOOR = 0.6, 0.3
"""MFU of a frame in the vision tower."""
ENCODE_MATTERS = 0.05
PREFILL_SHARE, IMAGE_SHARE = 0.40, 0.80
FIRST_STEP_SHARE = 0.15
FRAGMENTED = 1.3
FRAGMENT_LEAST = 256 << 20
"""Bytes reserved and not used below which nobody minds."""
RESERVE = 0.05
"""Share of a GPU's memory that is left alone."""
LARGEST_TRIAL = 8
"""Times the batch that was measured."""


@dataclass(frozen=True, slots=True)
class Change:
    """One sweep axis, two values: what a verifying session runs side by side."""

    axis: str
    before: int | str
    after: int | str


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice on one case."""

    id: str
    rule: int
    """Its number in docs/advice.md; 0: measure again."""
    case: str
    title: str
    evidence: tuple[str, ...]
    remedy: str
    gain: float | None
    """Share of the time that it is expected to save, of :attr:`metric`; ``None``: not known, or not about time."""
    bound: float | None
    """The most it can save (Amdahl): the share of the part that it touches."""
    metric: str
    """What gain and bound are about: "wall" (one run), or "wall per sequence" (one run / batch)."""
    change: Change | None
    """What ``advise --verify`` runs beside the baseline; ``None`` where the worker has no axis for it."""
    command: str
    """``{session}`` stands for the session."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What the rules look at."""

    view: View
    insight: CaseInsight
    model: ModelFacts
    dtype: str
    attention: str
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
        """Whether the worker can set attention and dtype on the model case by case."""
        return self.view.header.pipeline == "llava"

    def share(self, path: str) -> float:
        """Of the run, 0 where it is not known."""
        row = self.insight.table.row(path)
        return max(row.share or 0.0, 0.0) if row is not None else 0.0

    def median(self, path: str) -> float:
        row = self.insight.table.row(path)
        return max(row.summary.median or 0.0, 0.0) if row is not None else 0.0

    def axis(self, name: str) -> int:
        value = case_value(self.view, self.id, name)
        return value if isinstance(value, int) else 1

    def kernels(self, path: str) -> float | None:
        """Kernel time / span of a stage in the profiled run; ``None`` without one."""
        for stage in self.profile.stages if self.profile is not None else []:
            if stage.path == path and stage.span and stage.operators is not None:
                return stage.operators / stage.span
        return None


def advise(view: View, found: Insights, trust: Trust | None = None, case: str | None = None) -> tuple[Advice, ...]:
    """Advice on ``case`` (else the one that takes longest), the largest gain first.

    Throttled: cooling, and nothing else. Trust below C: measuring again, and nothing else.
    """
    insight = case_of(found, case)
    if insight is None:
        return ()
    if trust is not None and (throttled := trust.named("throttled")) is not None:
        return (_cool(insight.case, throttled),)
    if trust is not None and not trust.sound:
        return (_measure_again(insight.case, trust, view.header.provenance == "imported"),)
    model = view.model
    if model is None:
        return ()
    seen = _Case(
        view=view,
        insight=insight,
        model=model,
        dtype=dtype_of(view, insight.case),
        attention=str(case_value(view, insight.case, "attention") or model.attention),
        made=architecture_of(model, dtype_of(view, insight.case)),
        work=work_of(view, insight.case),
        fits=found.fits,
        profile=view.fact(Profile),
        wall=insight.table.wall.summary.median or 0.0,
    )
    if seen.wall <= 0:
        return ()
    given = [advice for rule in _RULES for advice in rule(seen)]
    return tuple(sorted(given, key=lambda advice: -(advice.gain or 0.0)))


def case_of(found: Insights, case: str | None = None) -> CaseInsight | None:
    """The case that advice is about: ``case``, else the one that takes longest."""
    measured = [each for each in found.cases if each.table.n and case in (None, each.case)]
    return max(measured, key=lambda each: each.table.wall.summary.median or 0.0, default=None)


# --- what comes before any other advice ---------------------------------------------------------------------------


def _cool(case: str, throttled: Reason) -> Advice:
    return Advice(
        id="cool",
        rule=9,
        case=case,
        title="the GPU throttles: cool it first",
        evidence=(throttled.text,),
        remedy="mend airflow, ambient temperature or the power supply, or lower the power limit so that clocks hold; "
        "until then no other advice means anything",
        gain=None,
        bound=None,
        metric="wall",
        change=None,
        command="llava-tui run --from {session} --rounds auto --headless",
    )


def _measure_again(case: str, trust: Trust, imported: bool) -> Advice:
    again = "llava-tui run --from {session} --rounds auto --headless"
    return Advice(
        id="measure-again",
        rule=0,
        case=case,
        title=f"trust is {trust.grade}: measure again before anything is changed",
        evidence=tuple(reason.text for reason in trust.reasons if reason.level != "note"),
        remedy="take away what the badge names, then run the same plan again",
        gain=None,
        bound=None,
        metric="wall",
        change=None,
        command="llava-tui run --model MODEL --input VIDEO --rounds auto --headless" if imported else again,
    )


# --- the rules ----------------------------------------------------------------------------------------------------


def _bandwidth(seen: _Case) -> Iterator[Advice]:
    """1. Decode reads weights as fast as memory gives them."""
    step = seen.insight.roofline.stage(DECODE_STEP)
    if step is None or step.mbu is None or step.mbu < BANDWIDTH_BOUND:
        return
    share = seen.share("generate.decode")
    evidence = (
        f"decode reaches {step.mbu:.0%} of the memory bandwidth ({_gb(step.bytes)} a step in {_ms(step.median)}, "
        f"floor {_ms(step.floor or 0.0)})",
        f"decode is {share:.0%} of the run",
    )
    if not seen.made.quantization:
        yield Advice(
            id="quantise",
            rule=1,
            case=seen.id,
            title="decode is bandwidth-bound: quantise the weights",
            evidence=evidence,
            remedy=f"4-bit weights gave {FOUR_BIT} × in decode elsewhere, not 4 ×; speculative decoding helps the same",
            gain=share * (1 - 1 / FOUR_BIT),
            bound=share,
            metric="wall",
            change=None,
            command="llava-tui run --from {session} --model QUANTISED_CHECKPOINT --headless",
        )
    batch = seen.axis("batch")
    ratio = _batch_ratio(seen, 2 * batch)
    if ratio is not None and _largest_batch(seen, least=2 * batch) is not False:
        yield Advice(
            id="batch",
            rule=1,
            case=seen.id,
            title="decode is bandwidth-bound: share each reading of the weights in a batch",
            evidence=evidence,
            remedy="time a sequence falls, time a run rises: right where throughput counts",
            gain=min(1 - ratio, share),
            bound=share,
            metric="wall per sequence",
            change=Change("batch", batch, 2 * batch),
            command="",
        )


def _launches(seen: _Case) -> Iterator[Advice]:
    """2. The GPU waits for the host to launch kernels."""
    step = seen.insight.roofline.stage(DECODE_STEP)
    if not seen.on_accelerator or step is None or step.mbu is None or step.mbu >= FAR_FROM_BANDWIDTH:
        return
    kernels = seen.kernels("generate.decode")
    if kernels is not None and kernels >= LAUNCH_BOUND:
        return
    share = seen.share("generate.decode")
    low = (
        f"decode reaches {step.mbu:.0%} of the memory bandwidth (floor {_ms(step.floor or 0.0)} of {_ms(step.median)})"
    )
    if kernels is None:
        yield Advice(
            id="profile",
            rule=2,
            case=seen.id,
            title="decode may be launch-bound: look at it under the microscope",
            evidence=(low, "what part of decode kernels take is not known: this session has no profiled run"),
            remedy="kernel time below 70 % of the span means launches; above it, slow kernels",
            gain=None,
            bound=share,
            metric="wall",
            change=None,
            command="llava-tui run --from {session} --profile --headless",
        )
        return
    yield Advice(
        id="compile",
        rule=2,
        case=seen.id,
        title="decode is launch-bound: static cache and compile (CUDA graphs)",
        evidence=(low, f"kernels run in {kernels:.0%} of decode's span, by the profiled run{_of(seen)}"),
        remedy="one graph a step instead of a launch a kernel; what kernels take remains",
        gain=share * (1 - kernels),
        bound=share,
        metric="wall",
        change=None,
        command="llava-tui run --from {session} --profile --headless",
    )


def _of(seen: _Case) -> str:
    """Of which case the profiled run was, where it was another."""
    return f" (of {seen.profile.case})" if seen.profile is not None and seen.profile.case != seen.id else ""


def _encode(seen: _Case) -> Iterator[Advice]:
    """3. Where the time of step 2 goes: T = a + b F."""
    share = seen.share("encode")
    fit = _fit(seen, "encode")
    if fit is None or share < ENCODE_MATTERS:
        return
    frames = seen.axis("frames")
    whole = fit.a + fit.b * frames
    line = f"encode takes {_ms(fit.a)} + {_ms(fit.b)} a frame (frames {', '.join(map(str, fit.frames))})"
    if fit.a_low is not None:
        line += f"; the constant lies in {_ms(fit.a_low)} … {_ms(fit.a_high or 0.0)}"
    certain = fit.a_low is None or fit.a_low > 0
    if whole > 0 and fit.a / whole > OVERHEAD_SHARE and certain:
        overhead = share * fit.a / whole
        yield Advice(
            id="encode-overhead",
            rule=3,
            case=seen.id,
            title="step 2 is overhead more than frames",
            evidence=(line, f"the constant is {fit.a / whole:.0%} of step 2 at {frames} frames"),
            remedy="what does not grow with frames: preprocessing set up each run, copies, launches",
            gain=overhead / 2,
            bound=overhead,
            metric="wall",
            change=None,
            command="llava-tui run --from {session} --profile --headless",
        )
    tower = _fit(seen, "encode.vision_tower")
    peaks = seen.insight.roofline.peaks
    flops = peaks.of(seen.dtype) if peaks is not None else None
    if tower is None or tower.b <= 0 or flops is None:
        return
    try:
        each = seen.made.vision_cost(1).flops * seen.work.batch
    except Underived:
        return
    mfu = each / (tower.b / 1e9 * flops)
    part = seen.share("encode.vision_tower")
    if mfu < FAR_FROM_FLOOR and part > ENCODE_MATTERS:
        yield Advice(
            id="encode-kernels",
            rule=3,
            case=seen.id,
            title="the vision tower is far from what the device can do",
            evidence=(f"a further frame takes {_ms(tower.b)} in the vision tower: MFU {mfu:.0%}",),
            remedy="half precision if it runs in float32, sdpa or flash attention, more frames in one go",
            gain=part * (1 - mfu / NEAR_FLOOR) / 2,
            bound=part,
            metric="wall",
            change=None,
            command="llava-tui run --from {session} --attention sdpa --headless",
        )
    elif mfu >= NEAR_FLOOR and part > ENCODE_MATTERS:
        yield Advice(
            id="encode-floor",
            rule=3,
            case=seen.id,
            title="the vision tower is near its floor: nothing is left there",
            evidence=(f"a further frame takes {_ms(tower.b)} in the vision tower: MFU {mfu:.0%}",),
            remedy="look elsewhere, or encode fewer frames",
            gain=None,
            bound=part * (1 - min(mfu, 1.0)),
            metric="wall",
            change=None,
            command="llava-tui analyze {session}",
        )


def _frames(seen: _Case) -> Iterator[Advice]:
    """4. Prefill is mostly pictures."""
    share, work = seen.share("generate.prefill"), seen.work
    if share <= PREFILL_SHARE or not work.prompt_tokens or not work.image_tokens:
        return
    pictures = work.image_tokens / work.prompt_tokens
    if pictures <= IMAGE_SHARE:
        return
    evidence = (
        f"prefill is {share:.0%} of the run",
        f"{work.image_tokens:,.0f} of {work.prompt_tokens:,.0f} prompt tokens are pictures ({pictures:.0%})",
    )
    frames = seen.axis("frames")
    if frames < 2:
        yield Advice(
            id="pool",
            rule=4,
            case=seen.id,
            title="prefill is mostly one picture: pool its tokens, or keep its features",
            evidence=evidence,
            remedy="pooled image tokens, a smaller input side, features or KV cache kept from prompt to prompt",
            gain=None,
            bound=share,
            metric="wall",
            change=None,
            command="llava-tui run --from {session} --model POOLED_MODEL --headless",
        )
        return
    fewer = frames // 2
    ratio = _frames_ratio(seen, fewer)
    yield Advice(
        id="fewer-frames",
        rule=4,
        case=seen.id,
        title=f"prefill is mostly pictures: {fewer} instead of {frames} frames",
        evidence=evidence,
        remedy="fewer frames where the answer allows it; else pooling, or reuse of features or of the KV cache",
        gain=None if ratio is None else 1 - ratio,
        bound=share + seen.share("encode") + seen.share("frames"),
        metric="wall",
        change=Change("frames", frames, fewer),
        command="",
    )


def _precision(seen: _Case) -> Iterator[Advice]:
    """5. Eager attention, or float32 on a GPU."""
    model_share = sum(
        seen.share(path) for path in ("encode.vision_tower", "encode.projector", "generate.prefill", "generate.decode")
    )
    if seen.attention.startswith("eager"):
        share = seen.share("encode.vision_tower") + seen.share("generate.prefill")
        saved = 0.0
        try:
            if seen.work.prompt_tokens:
                cost = seen.made.prefill_cost(seen.work.prompt_tokens, seen.work.batch)
                saved = seen.share("generate.prefill") * (1 - cost.flops / cost.dense)
        except Underived:
            pass
        yield Advice(
            id="attention",
            rule=5,
            case=seen.id,
            title="attention is eager: use sdpa, or flash where there is a GPU",
            evidence=(
                f"the model was loaded with {seen.attention} attention, which computes the masked half too and "
                "writes every score to memory",
            ),
            remedy="--attention sdpa (flash_attention_2 on NVIDIA GPUs from Ampere on)",
            gain=saved or None,
            bound=share,
            metric="wall",
            change=Change("attention", "eager", "sdpa") if seen.settable else None,
            command="llava-tui run --from {session} --attention sdpa --headless",
        )
    if seen.on_accelerator and seen.dtype == "float32":
        yield Advice(
            id="half",
            rule=5,
            case=seen.id,
            title="float32 on an accelerator: use half precision",
            evidence=(f"weights and activations are float32 on {device_of(seen.view)}",),
            remedy="--dtype bfloat16 (float16 on boards before Ampere): half the bytes, and tensor cores",
            gain=model_share / 2,
            bound=model_share,
            metric="wall",
            change=Change("dtype", "float32", "bfloat16") if seen.settable else None,
            command="llava-tui run --from {session} --dtype bfloat16 --headless",
        )


def _first_step(seen: _Case) -> Iterator[Advice]:
    """6. Frames are decoded while the device waits."""
    share = seen.share("frames")
    if not seen.on_accelerator or share <= FIRST_STEP_SHARE:
        return
    yield Advice(
        id="prefetch",
        rule=6,
        case=seen.id,
        title="step 1 holds up the accelerator: decode ahead",
        evidence=(f"step 1 is {share:.0%} of the run, and nothing runs on the device meanwhile",),
        remedy="decode on threads and prefetch the next clip, pinned and non-blocking copies: what overlaps is hidden",
        gain=min(share, 1 - share),
        bound=share,
        metric="wall",
        change=None,
        command="llava-tui compare {session} SESSION_WITH_PREFETCH",
    )


def _batch(seen: _Case) -> Iterator[Advice]:
    """7. How large a batch would fit."""
    batch = seen.axis("batch")
    largest = _largest_batch(seen)
    step = seen.insight.roofline.stage(DECODE_STEP)
    if not isinstance(largest, _Room) or largest.batch < 2 * batch:
        return
    if step is None or step.bound != "memory":
        return
    trial = batch * 2 ** int(math.log2(min(largest.batch / batch, LARGEST_TRIAL)))
    ratio = _batch_ratio(seen, trial)
    share = seen.share("generate.decode")
    yield Advice(
        id="largest-batch",
        rule=7,
        case=seen.id,
        title=f"a batch of about {largest.batch} fits, {batch} was run",
        evidence=largest.evidence,
        remedy=f"sweep up to it; {trial} is tried here",
        gain=None if ratio is None else min(1 - ratio, share),
        bound=share,
        metric="wall per sequence",
        change=Change("batch", batch, trial),
        command="",
    )


def _fragments(seen: _Case) -> Iterator[Advice]:
    """8. The allocator holds much more than is used."""
    stages = seen.view.stages
    mask = stages.where(case=seen.id, kind="measured", outcome="ok")
    allocated, reserved = _most(stages["allocated"][mask]), _most(stages["reserved"][mask])
    if not allocated or not reserved or reserved / allocated <= FRAGMENTED or reserved - allocated < FRAGMENT_LEAST:
        return
    yield Advice(
        id="fragmentation",
        rule=8,
        case=seen.id,
        title="the allocator's memory is fragmented",
        evidence=(
            f"reserved {_gb(reserved)}, at most {_gb(allocated)} in use: {reserved / allocated:.2f} × (limit 1.3)",
        ),
        remedy="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; it frees memory, not time",
        gain=None,
        bound=None,
        metric="wall",
        change=None,
        command="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True llava-tui run --from {session} --headless",
    )


_RULES: tuple[Callable[[_Case], Iterator[Advice]], ...] = (
    _bandwidth,
    _launches,
    _encode,
    _frames,
    _precision,
    _first_step,
    _batch,
    _fragments,
)


# --- what the gains are worked out from ---------------------------------------------------------------------------


def _batch_ratio(seen: _Case, batch: int) -> float | None:
    """Time a sequence at ``batch`` over that now: decode by its bytes or FLOPs, all else in proportion."""
    here, there = _step_floor(seen, seen.work), _step_floor(seen, replace(seen.work, batch=batch))
    if here is None or there is None:
        return None
    decode = seen.median("generate.decode")
    grown = batch / seen.work.batch
    return ((seen.wall - decode) * grown + decode * there / here) / (seen.wall * grown)


def _frames_ratio(seen: _Case, frames: int) -> float | None:
    """Time of a run at ``frames`` over that now: steps 1 and 2 by their fit, else in proportion, prefill and decode by
    what they ask of the hardware."""
    now = seen.axis("frames")
    work = seen.work
    if not work.image_tokens or not work.prompt_tokens or not work.pictures:
        return None
    part = frames / now
    less = replace(
        work,
        pictures=work.pictures * part,
        image_tokens=work.image_tokens * part,
        prompt_tokens=work.prompt_tokens - work.image_tokens * (1 - part),
    )
    try:
        prefill = _flops(seen, less, "prefill") / _flops(seen, work, "prefill")
    except (Underived, ZeroDivisionError):
        prefill = (less.prompt_tokens or 0.0) / work.prompt_tokens
    here, there = _step_floor(seen, work), _step_floor(seen, less)
    decode = there / here if here and there else 1.0
    encode = part
    if (fit := _fit(seen, "encode")) is not None and fit.a + fit.b * now > 0:
        encode = min(max((fit.a + fit.b * frames) / (fit.a + fit.b * now), 0.0), 1.0)
    saved = seen.median("frames") * (1 - part) + seen.median("encode") * (1 - encode)
    saved += seen.median("generate.prefill") * (1 - prefill) + seen.median("generate.decode") * (1 - decode)
    return 1 - saved / seen.wall


def _flops(seen: _Case, work: Work, leaf: str) -> float:
    cost = stage_cost(seen.made, work, leaf)
    if cost is None:
        return 0.0
    return cost.dense if seen.attention.startswith("eager") else cost.flops


def _step_floor(seen: _Case, work: Work) -> float | None:
    """What a decode step of this work would take at best; without known peaks, its bytes."""
    try:
        cost = stage_cost(seen.made, work, DECODE_STEP)
    except Underived:
        return None
    if cost is None:
        return None
    peaks = seen.insight.roofline.peaks
    flops = peaks.of(seen.dtype) if peaks is not None else None
    if peaks is None or flops is None:
        return cost.bytes
    return max(cost.flops / flops, cost.bytes / peaks.bandwidth)


@dataclass(frozen=True, slots=True)
class _Room:
    batch: int
    evidence: tuple[str, ...]


def _largest_batch(seen: _Case, least: int = 0) -> _Room | bool | None:
    """How many sequences fit the GPU; ``None`` where its memory is not known. With ``least``: ``False`` if fewer do."""
    total = _memory(seen)
    if total is None or seen.model.weights_bytes is None or not seen.work.prompt_tokens:
        return None
    try:
        cached = seen.made.kv_bytes * (seen.work.prompt_tokens + (seen.work.new_tokens or 0))
    except Underived:
        return None
    peak = _most(seen.view.stages["allocated"][seen.view.stages.where(case=seen.id, kind="measured", outcome="ok")])
    samples = np.asarray(seen.view.samples["memory_used"], dtype=np.float64)
    highest = peak if peak else _most(samples)
    # What a sequence takes beside its cache, by the peak that was seen; the driver's own is in the samples' figure.
    beside = (highest - seen.model.weights_bytes) / seen.work.batch - cached if highest else 0.0
    activations = max(beside, 0.1 * cached)
    free = total * (1 - RESERVE) - seen.model.weights_bytes
    batch = int(free // (cached + activations))
    if least:
        return _Room(batch, ()) if batch >= least else False
    return _Room(
        batch,
        (
            f"{_gb(free)} are free beside the weights, {RESERVE:.0%} left alone",
            f"a sequence takes {_gb(cached)} of KV cache ({seen.made.kv_bytes / 2**20:.2f} MiB a token) and about "
            f"{_gb(activations)} of activations",
        ),
    )


def _memory(seen: _Case) -> float | None:
    """Of the one GPU of this session, bytes."""
    totals = [device.memory_total for device in seen.view.devices.values() if device.memory_total]
    return float(totals[0]) if len(totals) == 1 and seen.on_accelerator else None


def _fit(seen: _Case, path: str) -> Fit | None:
    return next((fit for fit in seen.fits if fit.path == path and seen.id in fit.cases), None)


def _most(values: Any) -> float:
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.max()) if finite.size else 0.0


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.3g} ms"


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
