"""How a run ended, in words: errors of every kind become an outcome and a reason that its user can read."""

from __future__ import annotations

import traceback
from typing import Any

from llava_tui.needs import Needs
from llava_tui.pipelines.base import Cancelled, PipelineError
from llava_tui.session.reader import safe_text
from llava_tui.units import size
from llava_tui.worker.memory import is_out_of_memory
from llava_tui.worker.recorder import Spans

REASON_LIMIT = 500


class Untrusted(Exception):
    """A run whose figures would not mean what they say (it encoded twice, its tokens differ from generate()'s)."""


def failure(error: Exception, stopped: str) -> tuple[str, str]:
    """Outcome and reason of a run that raised; ``stopped`` says who cut it short. The traceback goes to worker.log: for
    a user it is noise."""
    if isinstance(error, Cancelled):
        return "cancelled", stopped or "cancelled"
    text = safe_text(str(error), REASON_LIMIT).strip()
    if isinstance(error, (PipelineError, Untrusted)):
        return "failed", text or type(error).__name__
    traceback.print_exception(error)
    # The frames hold the run's tensors; without this they would outlive it.
    traceback.clear_frames(error.__traceback__)
    if is_out_of_memory(error):
        return "out-of-memory", "out of memory" + (f": {text}" if text else "")
    return "failed", f"{type(error).__name__}: {text}" if text else type(error).__name__


def footprint(held: dict[str, int], spans: Spans | None, needed: Needs | None) -> dict[str, Any]:
    """Of a run that had too little memory: what was held when it failed (:func:`llava_tui.worker.memory.holding`), the
    stage that it failed in, the most that was held until then, and what was predicted. Bytes."""
    told: dict[str, Any] = dict(held)
    if spans is not None:
        told |= {"stage": spans.last} if spans.last else {}
        for name, peaks in (("allocated_peak", spans.allocated), ("rss_peak", spans.rss_peaks)):
            if known := [peak for peak in peaks if peak is not None]:
                told[name] = max(known)
    if needed is not None:
        told |= {"cache_predicted": round(needed.cache), "activations_predicted": round(needed.activations)}
    return told


def with_footprint(reason: str, told: dict[str, Any]) -> str:
    """The reason of such a run, with what its user wants to know of it."""
    parts = [f"in {told['stage']}"] if "stage" in told else []
    if "allocated" in told:
        parts.append(f"{size(told['allocated'])} allocated, {size(told.get('reserved'))} reserved")
    elif "allocated_peak" in told:
        parts.append(f"{size(told['allocated_peak'])} allocated at most")
    elif "rss" in told:
        parts.append(f"{size(told['rss'])} resident")
    if "free" in told:
        parts.append(f"{size(told['free'])} free" + (f" of {size(told['total'])}" if "total" in told else ""))
    if "cache_predicted" in told:
        needed = told["cache_predicted"] + told["activations_predicted"]
        parts.append(f"the case takes about {size(needed)} beside the weights")
    return f"{reason} [{'; '.join(parts)}]" if parts else reason


def named(reasons: dict[str, str]) -> str:
    """Why cases failed, in one line: all of them where there are few reasons."""
    return "; ".join(f"{case}: {reason}" for case, reason in list(reasons.items())[:3]) + (
        f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    )


def difference(own: list[list[int]], reference: list[list[int]]) -> str:
    """Where two runs' tokens part, in words."""
    start = "cross-check failed: split run and plain generate() disagree: "
    if len(own) != len(reference):
        return f"{start}{len(own)} sequences against {len(reference)}"
    for sequence, (ours, theirs) in enumerate(zip(own, reference, strict=True)):
        for place, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b:
                return f"{start}token {place + 1} of sequence {sequence + 1} is {a} against {b}"
        if len(ours) != len(theirs):
            return f"{start}sequence {sequence + 1} has {len(ours)} tokens against {len(theirs)}"
    return start + "unknown difference"
