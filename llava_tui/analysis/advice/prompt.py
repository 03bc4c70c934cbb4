"""Rule 4: prompts that are mostly pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llava_tui.analysis.advice.piece import Advice, Change
from llava_tui.analysis.advice.seen import DECODE, PREFILL, Seen
from llava_tui.analysis.roofline import Work, stage_cost
from llava_tui.costs import Underived
from llava_tui.units import percent

PREFILL_SHARE, IMAGE_SHARE = 0.40, 0.80


def pictures(seen: Seen) -> Iterator[Advice]:
    """4. Prefill is mostly pictures: fewer frames, or fewer tokens of one."""
    share, work = seen.share(PREFILL), seen.work
    if share <= PREFILL_SHARE or not work.prompt_tokens or not work.image_tokens:
        return
    part = work.image_tokens / work.prompt_tokens
    if part <= IMAGE_SHARE:
        return
    evidence = (
        f"prefill is {percent(share)} of the run",
        f"{work.image_tokens:,.0f} of {work.prompt_tokens:,.0f} prompt tokens are pictures ({percent(part)})",
    )
    frames = seen.axis("frames")
    if frames < 2:
        yield seen.advice(
            "pool",
            4,
            title="prefill is mostly one picture: pool its tokens, or keep its features",
            evidence=evidence,
            remedy="pooled image tokens, a smaller input side, features or KV cache kept from prompt to prompt",
            bound=share,
            command="llava-tui run --from {session} --model POOLED_MODEL --headless",
        )
        return
    fewer = frames // 2
    ratio = frames_ratio(seen, fewer)
    yield seen.advice(
        "fewer-frames",
        4,
        title=f"prefill is mostly pictures: {fewer} instead of {frames} frames",
        evidence=evidence,
        remedy="fewer frames where the answer allows it; else pooling, or reuse of features or of the KV cache",
        gain=None if ratio is None else 1 - ratio,
        bound=share + seen.share("encode") + seen.share("frames"),
        change=Change("frames", frames, fewer),
    )


def frames_ratio(seen: Seen, frames: int) -> float | None:
    """Time of a run at ``frames`` over that now: steps 1 and 2 by their fit, else in proportion, prefill and decode by
    what they ask of the hardware."""
    now, work = seen.axis("frames"), seen.work
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
        prefill = _flops(seen, less) / _flops(seen, work)
    except (Underived, ZeroDivisionError):
        prefill = (less.prompt_tokens or 0.0) / work.prompt_tokens
    here, there = seen.step_floor(), seen.step_floor(prompt_tokens=less.prompt_tokens)
    decode = there / here if here and there else 1.0
    encode = part
    if (fit := seen.fit("encode")) is not None and fit.a + fit.b * now > 0:
        encode = min(max((fit.a + fit.b * frames) / (fit.a + fit.b * now), 0.0), 1.0)
    saved = seen.median("frames") * (1 - part) + seen.median("encode") * (1 - encode)
    saved += seen.median(PREFILL) * (1 - prefill) + seen.median(DECODE) * (1 - decode)
    return 1 - saved / seen.wall


def _flops(seen: Seen, work: Work) -> float:
    """Of the prefill, as the case's attention computes it."""
    cost = stage_cost(seen.made, work, "prefill")
    if cost is None:
        return 0.0
    return cost.dense if seen.setting("attention").startswith("eager") else cost.flops
