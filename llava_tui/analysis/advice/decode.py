"""Rules 1, 2, 10 and 11: what holds a decode step up, and how many of them there are."""

from __future__ import annotations

from collections.abc import Iterator

from llava_tui.analysis.advice.memory import batch_ratio, room_of
from llava_tui.analysis.advice.piece import Advice, Change
from llava_tui.analysis.advice.seen import DECODE, Seen
from llava_tui.analysis.roofline import CACHED_BYTES
from llava_tui.costs import Underived
from llava_tui.units import duration, percent, size

BANDWIDTH_BOUND = 0.60
FAR_FROM_FLOOR = 0.40
LAUNCH_BOUND = 0.70
"""Kernel time / span below which launches leave gaps."""
FOUR_BIT = 1.9
"""What 4-bit weights gave in decode (gpt-fast: 104.9 → 196.8 tok/s), not the 4 that bytes alone promise."""
MATTERS = 0.20
"""Share of a run below which nothing is tried on decode without a reason from its roofline."""
COPIED = 0.05
"""Part of what a step moves that a dynamic cache's copies have to be."""
MOSTLY = 0.50
FEWEST = 8
"""New tokens below which fewer are no answer."""


def bandwidth(seen: Seen) -> Iterator[Advice]:
    """1. Decode reads weights as fast as memory gives them."""
    step = seen.step
    if step is None or step.mbu is None or step.mbu < BANDWIDTH_BOUND:
        return
    share = seen.share(DECODE)
    evidence = (
        f"decode reaches {percent(step.mbu)} of the memory bandwidth ({size(step.bytes)} a step in "
        f"{duration(step.median)}, floor {duration(step.floor)})",
        f"decode is {percent(share)} of the run",
    )
    if not seen.made.quantization:
        # What gave that much is torchao's; its kernel takes bfloat16 on CUDA alone.
        how = "torchao-int4" if seen.dtype == "bfloat16" and seen.on_accelerator else "bnb-4bit"
        yield seen.advice(
            "quantise",
            1,
            title="decode is bandwidth-bound: quantise the weights",
            evidence=evidence,
            remedy=f"4-bit weights gave {FOUR_BIT} × in decode elsewhere, not 4 ×; speculative decoding helps the same",
            gain=share * (1 - 1 / FOUR_BIT),
            bound=share,
            change=Change("quantization", "none", how) if seen.settable else None,
            command=f"llava-tui run --from {{session}} --quantization {how} --headless",
        )
    batch = seen.axis("batch")
    ratio = batch_ratio(seen, 2 * batch)
    if ratio is not None:
        title = "decode is bandwidth-bound: share each reading of the weights in a batch"
        yield from _twice_the_batch(seen, title, evidence, min(1 - ratio, share), share)


def launches(seen: Seen) -> Iterator[Advice]:
    """2. A step takes much longer than its floor: somebody waits for the host to launch its operators."""
    near, share, step = seen.near, seen.share(DECODE), seen.step
    if step is None or seen.setting("compile") not in ("", "off"):
        return
    if near is None:
        if not seen.on_accelerator and share >= MATTERS:
            yield _compile(seen, _unknown_floor(seen), None, share)
        return
    kernels = seen.kernels(DECODE)
    if near >= FAR_FROM_FLOOR or (kernels is not None and kernels >= LAUNCH_BOUND):
        return
    # However it is launched, a step does not come below its floor.
    bound = share * (1 - near)
    far = (
        f"a token takes {duration(step.median)}, the roofline's floor is {duration(step.floor)}"
        if step.mbu is None
        else f"decode reaches {percent(near)} of the memory bandwidth (floor {duration(step.floor)} of "
        f"{duration(step.median)})"
    )
    if seen.on_accelerator and kernels is None:
        yield seen.advice(
            "profile",
            2,
            title="decode may be launch-bound: look at it under the microscope",
            evidence=(far, "what part of decode kernels take is not known: this session has no profiled run"),
            remedy="kernel time below 70 % of the span means launches; above it, slow kernels",
            bound=share,
            command="llava-tui run --from {session} --profile --headless",
        )
    gain, evidence = None, (far, _filled(seen, kernels))
    if seen.on_accelerator and kernels is not None:
        gain = min(share * (1 - kernels), bound)
    yield _compile(seen, evidence, gain, bound)
    if kernels is not None or not seen.on_accelerator:
        title = "decode is far from its floor: sequences of a batch share its launches"
        yield from _twice_the_batch(seen, title, evidence, None, bound / 2)


def _unknown_floor(seen: Seen) -> tuple[str, ...]:
    return (
        f"decode is {percent(seen.share(DECODE))} of the run, {duration(seen.insight.table.tpot.median)} a token",
        "how near that is to what this machine can do is not known (llava-tui doctor --measure-peaks tells): nothing "
        "is predicted",
    )


def _filled(seen: Seen, kernels: float | None) -> str:
    """What is known of the gaps between operators."""
    if kernels is None:
        return "what part of it launches and Python take is not known: nothing is predicted"
    what = "kernels run" if seen.on_accelerator else "operators take"
    line = f"{what} in {percent(kernels)} of decode's span, by the profiled run{seen.profiled}"
    if seen.on_accelerator:
        return line
    # The profiler itself costs microseconds an operator, which on a CPU is what an operator costs.
    return line.replace("take in", "take") + "; the profiler's own cost is in the rest: nothing is predicted"


def _compile(seen: Seen, evidence: tuple[str, ...], gain: float | None, bound: float) -> Advice:
    """A static cache and a compiled step."""
    graphs = " (CUDA graphs)" if seen.on_accelerator else ""
    return seen.advice(
        "compile",
        2,
        title=f"decode {'is' if gain is not None else 'may be'} launch-bound: static cache and compile{graphs}",
        evidence=evidence,
        remedy="--compile on: one compiled step instead of a launch an operator, on a static cache; it compiles once "
        "a case, which takes up to minutes and is no part of the figures",
        gain=gain,
        bound=bound,
        change=Change("compile", "off", "on") if seen.settable else None,
        command="llava-tui run --from {session} --compile off,on --headless",
    )


def _twice_the_batch(
    seen: Seen, title: str, evidence: tuple[str, ...], gain: float | None, bound: float
) -> Iterator[Advice]:
    """Where it fits, as far as that is known."""
    batch, room = seen.axis("batch"), room_of(seen)
    if room is not None and room.batch < 2 * batch:
        return
    yield seen.advice(
        "batch",
        1 if gain is not None else 2,
        title=title,
        evidence=evidence,
        remedy="time a sequence falls, time a run rises: right where throughput counts",
        gain=gain,
        bound=bound,
        metric="wall per sequence",
        change=Change("batch", batch, 2 * batch),
    )


def copies(seen: Seen) -> Iterator[Advice]:
    """10. A dynamic cache is copied whole for every token: what a static one spares."""
    step, work = seen.step, seen.work
    if step is None or not work.prompt_tokens or seen.setting("cache") == "static" or not seen.settable:
        return
    try:
        cached = work.batch * seen.made.kv_bytes * (work.prompt_tokens + (work.new_tokens or 0) / 2)
    except Underived:
        return
    copied = 2 * cached  # read and written
    if copied < COPIED * (step.bytes + copied):
        return
    share, near, peaks = seen.share(DECODE), seen.near, seen.insight.roofline.peaks
    bound, gain = share * (1 - min(near or 0.0, 1.0)), None
    evidence = [f"the dynamic cache is copied for every token: {size(copied)} beside the {size(step.bytes)} of a step"]
    if peaks is not None and copied > CACHED_BYTES:
        gain = min(share * copied / peaks.bandwidth * 1e9 / step.median, bound)
    else:
        evidence.append("whether that crosses the memory bus is not known: nothing is predicted")
    yield seen.advice(
        "static-cache",
        10,
        title="keep the KV cache in one place: a static cache",
        evidence=tuple(evidence),
        remedy="--cache static: room for the whole answer from the start, written in place; attention then reads all "
        "of that room, masked",
        gain=gain,
        bound=bound,
        change=Change("cache", "dynamic", "static"),
    )


def tokens(seen: Seen) -> Iterator[Advice]:
    """11. Most of the run is writing the answer."""
    share, count, table = seen.share(DECODE), seen.axis("new_tokens"), seen.insight.table
    if share <= MOSTLY or count < FEWEST:
        return
    fewer = count // 2
    yield seen.advice(
        "fewer-tokens",
        11,
        title=f"decode is most of the run: {fewer} instead of {count} new tokens",
        evidence=(f"decode is {percent(share)} of the run, {duration(table.tpot.median)} a token",),
        remedy="a shorter answer where that will do: ask for one, or stop at the end of the first sentence",
        gain=share * (count - fewer) / (count - 1),
        bound=share,
        change=Change("new_tokens", count, fewer),
    )
