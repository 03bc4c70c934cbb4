"""Rules 5 and 12: attention, dtype and threads that the hardware would rather not have."""

from __future__ import annotations

from collections.abc import Iterator

from llava_tui.analysis.advice.piece import Advice, Change
from llava_tui.analysis.advice.seen import PREFILL, TOWER, Seen
from llava_tui.analysis.roofline import device_of
from llava_tui.costs import Underived
from llava_tui.units import percent

HALF_PAYS = 1.5
"""Times the float32 peak that a CPU's bfloat16 peak has to be."""
MATTERS = 0.20


def attention(seen: Seen) -> Iterator[Advice]:
    """5. Eager attention."""
    loaded = seen.setting("attention")
    if not loaded.startswith("eager"):
        return
    saved = 0.0
    try:
        if seen.work.prompt_tokens:
            cost = seen.made.prefill_cost(seen.work.prompt_tokens, seen.work.batch)
            saved = seen.share(PREFILL) * (1 - cost.flops / cost.dense)
    except Underived:
        pass
    yield seen.advice(
        "attention",
        5,
        title="attention is eager: use sdpa, or flash where there is a GPU",
        evidence=(
            f"the model was loaded with {loaded} attention, which computes the masked half too and writes every "
            "score to memory",
        ),
        remedy="--attention sdpa (flash_attention_2 on NVIDIA GPUs from Ampere on)",
        gain=saved or None,
        bound=seen.share(TOWER) + seen.share(PREFILL),
        change=Change("attention", "eager", "sdpa") if seen.settable else None,
        command="llava-tui run --from {session} --attention sdpa --headless",
    )


def precision(seen: Seen) -> Iterator[Advice]:
    """5. float32 where half precision is quicker."""
    if seen.dtype != "float32":
        return
    share = seen.model_share
    if seen.on_accelerator:
        yield _half(
            seen,
            "float32 on an accelerator: use half precision",
            f"weights and activations are float32 on {device_of(seen.view)}",
            "--dtype bfloat16 (float16 on boards before Ampere): half the bytes, and tensor cores",
            share / 2,
            share,
        )
        return
    peaks = seen.insight.roofline.peaks
    single, half = (peaks.of("float32"), peaks.of("bfloat16")) if peaks is not None else (None, None)
    if not single or not half or half < HALF_PAYS * single:
        return  # most CPUs emulate it
    yield _half(
        seen,
        "this CPU computes in bfloat16: use it",
        f"matrix products reach {half / single:.1f} × as much in bfloat16 as in float32 on this CPU, as measured; "
        "large ones, so nothing is predicted",
        "--dtype bfloat16: half the bytes, and the CPU's own instructions for it",
        None,
        share * max(1 - single / half, 0.5),
    )


def _half(seen: Seen, title: str, evidence: str, remedy: str, gain: float | None, bound: float) -> Advice:
    return seen.advice(
        "half",
        5,
        title=title,
        evidence=(evidence,),
        remedy=remedy,
        gain=gain,
        bound=bound,
        change=Change("dtype", "float32", "bfloat16") if seen.settable else None,
        command="llava-tui run --from {session} --dtype bfloat16 --headless",
    )


def threads(seen: Seen) -> Iterator[Advice]:
    """12. On a CPU: fewer threads than cores, or more."""
    usable = seen.model.extra.get("usable_cores")
    now = int(seen.setting("threads") or 0)
    share = seen.model_share
    if seen.on_accelerator or not seen.settable or not isinstance(usable, int) or not now or share < MATTERS:
        return
    if now == usable:
        return
    after = min(2 * now, usable) if now < usable else usable
    evidence = [
        f"threads that torch computes with: {now}; cores that the worker may use: {usable} of "
        f"{seen.view.header.host.cores}"
    ]
    if now < usable:
        evidence.append(
            f"{percent(share)} of the run is the model's; how much of that threads share is not known: nothing is "
            "predicted"
        )
    yield seen.advice(
        "threads",
        12,
        title=f"{'cores stand idle' if now < usable else 'threads wait for each other'}: {after} instead of {now}",
        evidence=tuple(evidence),
        remedy=f"--threads {after}",
        bound=share * (1 - now / after) if now < usable else share,
        change=Change("threads", now, after),
    )
