"""Rules 3 and 6: where the time before the language model goes."""

from __future__ import annotations

from collections.abc import Iterator

from llava_tui.analysis.advice.piece import Advice
from llava_tui.analysis.advice.seen import TOWER, Seen
from llava_tui.analysis.insights import Fit
from llava_tui.costs import Underived
from llava_tui.units import duration, percent

OVERHEAD_SHARE = 0.5
NEAR_FLOOR, FAR_FROM_FLOOR = 0.6, 0.3
"""MFU of a frame in the vision tower."""
MATTERS = 0.05
FIRST_STEP_SHARE = 0.15


def where_time_goes(seen: Seen) -> Iterator[Advice]:
    """3. T = a + b F of step 2: a large a is overhead, b tells how near the floor a frame is."""
    fit = seen.fit("encode")
    if fit is None or seen.share("encode") < MATTERS:
        return
    yield from _overhead(seen, fit)
    yield from _tower(seen)


def _overhead(seen: Seen, fit: Fit) -> Iterator[Advice]:
    frames = seen.axis("frames")
    whole = fit.a + fit.b * frames
    certain = fit.a_low is None or fit.a_low > 0
    if whole <= 0 or fit.a / whole <= OVERHEAD_SHARE or not certain:
        return
    line = f"encode takes {duration(fit.a)} + {duration(fit.b)} a frame (frames {', '.join(map(str, fit.frames))})"
    if fit.a_low is not None:
        line += f"; the constant lies in {duration(fit.a_low)} … {duration(fit.a_high)}"
    overhead = seen.share("encode") * fit.a / whole
    yield seen.advice(
        "encode-overhead",
        3,
        title="step 2 is overhead more than frames",
        evidence=(line, f"the constant is {percent(fit.a / whole)} of step 2 at {frames} frames"),
        remedy="what does not grow with frames: preprocessing set up each run, copies, launches",
        gain=overhead / 2,
        bound=overhead,
        command="llava-tui run --from {session} --profile --headless",
    )


def _tower(seen: Seen) -> Iterator[Advice]:
    mfu, share, fit = _frame_mfu(seen), seen.share(TOWER), seen.fit(TOWER)
    if mfu is None or fit is None or share <= MATTERS:
        return
    evidence = (f"a further frame takes {duration(fit.b)} in the vision tower: MFU {percent(mfu)}",)
    if mfu < FAR_FROM_FLOOR:
        yield seen.advice(
            "encode-kernels",
            3,
            title="the vision tower is far from what the device can do",
            evidence=evidence,
            remedy="half precision if it runs in float32, sdpa or flash attention, more frames in one go",
            gain=share * (1 - mfu / NEAR_FLOOR) / 2,
            bound=share,
            command="llava-tui run --from {session} --attention sdpa --headless",
        )
    elif mfu >= NEAR_FLOOR:
        yield seen.advice(
            "encode-floor",
            3,
            title="the vision tower is near its floor: nothing is left there",
            evidence=evidence,
            remedy="look elsewhere, or encode fewer frames",
            bound=share * (1 - min(mfu, 1.0)),
            command="llava-tui analyze {session}",
        )


def _frame_mfu(seen: Seen) -> float | None:
    """MFU of a further frame in the vision tower; ``None`` where it cannot be worked out."""
    fit, peaks = seen.fit(TOWER), seen.insight.roofline.peaks
    flops = peaks.of(seen.dtype) if peaks is not None else None
    if fit is None or fit.b <= 0 or flops is None:
        return None
    try:
        each = seen.made.vision_cost(1).flops * seen.work.batch
    except Underived:
        return None
    return each / (fit.b / 1e9 * flops)


def first_step(seen: Seen) -> Iterator[Advice]:
    """6. Frames are decoded while the device waits."""
    share = seen.share("frames")
    if not seen.on_accelerator or share <= FIRST_STEP_SHARE:
        return
    yield seen.advice(
        "prefetch",
        6,
        title="step 1 holds up the accelerator: decode ahead",
        evidence=(f"step 1 is {percent(share)} of the run, and nothing runs on the device meanwhile",),
        remedy="decode on threads and prefetch the next clip, pinned and non-blocking copies: what overlaps is hidden",
        gain=min(share, 1 - share),
        bound=share,
        command="llava-tui compare {session} SESSION_WITH_PREFETCH",
    )
