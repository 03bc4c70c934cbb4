"""Rules 7 and 8: what the device's memory would hold, and what it holds for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llava_tui.analysis.advice.piece import Advice, Change
from llava_tui.analysis.advice.seen import DECODE, Seen
from llava_tui.costs import Underived
from llava_tui.units import percent, size

FRAGMENTED = 1.3
FRAGMENT_LEAST = 256 << 20
"""Bytes reserved and not used below which nobody minds."""
RESERVE = 0.05
"""Share of a GPU's memory that is left alone."""
LARGEST_TRIAL = 8
"""Times the batch that was measured."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many sequences would fit."""

    batch: int
    evidence: tuple[str, ...]


def largest_batch(seen: Seen) -> Iterator[Advice]:
    """7. How large a batch would fit."""
    batch, step = seen.axis("batch"), seen.step
    room = room_of(seen)
    if room is None or room.batch < 2 * batch or step is None or step.bound != "memory":
        return
    trial = batch * 2 ** int(math.log2(min(room.batch / batch, LARGEST_TRIAL)))
    ratio, share = batch_ratio(seen, trial), seen.share(DECODE)
    yield seen.advice(
        "largest-batch",
        7,
        title=f"a batch of about {room.batch} fits, {batch} was run",
        evidence=room.evidence,
        remedy=f"sweep up to it; {trial} is tried here",
        gain=None if ratio is None else min(1 - ratio, share),
        bound=share,
        metric="wall per sequence",
        change=Change("batch", batch, trial),
    )


def fragments(seen: Seen) -> Iterator[Advice]:
    """8. The allocator holds much more than is used."""
    allocated, reserved = seen.most("allocated"), seen.most("reserved")
    if not allocated or not reserved or reserved / allocated <= FRAGMENTED or reserved - allocated < FRAGMENT_LEAST:
        return
    yield seen.advice(
        "fragmentation",
        8,
        title="the allocator's memory is fragmented",
        evidence=(
            f"reserved {size(reserved)}, at most {size(allocated)} in use: {reserved / allocated:.2f} × "
            f"(limit {FRAGMENTED})",
        ),
        remedy="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; it frees memory, not time",
        command="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True llava-tui run --from {session} --headless",
    )


def batch_ratio(seen: Seen, batch: int) -> float | None:
    """Time a sequence at ``batch`` over that now: decode by its bytes or FLOPs, all else in proportion."""
    here, there = seen.step_floor(), seen.step_floor(batch=batch)
    if here is None or there is None:
        return None
    decode = seen.median(DECODE)
    grown = batch / seen.work.batch
    return ((seen.wall - decode) * grown + decode * there / here) / (seen.wall * grown)


def room_of(seen: Seen) -> Room | None:
    """How many sequences fit the GPU; ``None`` where its memory, or what a sequence takes of it, is not known."""
    total = _memory(seen)
    if total is None or seen.model.weights_bytes is None or not seen.work.prompt_tokens:
        return None
    try:
        cached = seen.made.kv_bytes * (seen.work.prompt_tokens + (seen.work.new_tokens or 0))
    except Underived:
        return None
    # What a sequence takes beside its cache, by the peak that was seen; the driver's own is in the samples' figure.
    highest = seen.most("allocated") or seen.memory_used()
    beside = (highest - seen.model.weights_bytes) / seen.work.batch - cached if highest else 0.0
    activations = max(beside, 0.1 * cached)
    free = total * (1 - RESERVE) - seen.model.weights_bytes
    return Room(
        int(free // (cached + activations)),
        (
            f"{size(free)} are free beside the weights, {percent(RESERVE)} left alone",
            f"a sequence takes {size(cached)} of KV cache ({size(seen.made.kv_bytes)} a token) and about "
            f"{size(activations)} of activations",
        ),
    )


def _memory(seen: Seen) -> float | None:
    """Of the one GPU of this session, bytes."""
    totals = [device.memory_total for device in seen.view.devices.values() if device.memory_total]
    return float(totals[0]) if len(totals) == 1 and seen.on_accelerator else None
