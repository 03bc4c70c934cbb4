"""How a run ended, in words: errors of every kind become an outcome and a reason that its user can read."""

from __future__ import annotations

import traceback

from llava_tui.pipelines.base import Cancelled, PipelineError
from llava_tui.session.reader import safe_text
from llava_tui.worker.memory import is_out_of_memory

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
