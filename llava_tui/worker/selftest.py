"""What measuring costs, told at the start of every session: the same run bare and instrumented, in pairs.

Bare is the pipeline with a probe that only hears control, the hooks that tell stages and hear control still on the
model; instrumented is a run as it is measured. What is told is the cost of marks, tokens and hints. Within a pair
everything else is the same, the seed too; which of the two comes first alternates, so that a drift falls on both.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from llava_tui import units
from llava_tui.events import SelfTest

PAIRS = 5
PROMISED = 0.01
"""The overhead above which the session says so."""


def order() -> tuple[bool, ...]:
    """Whether each run of the test is bare, in order."""
    return tuple(bare for pair in range(PAIRS) for bare in ((True, False) if pair % 2 == 0 else (False, True)))


def result(t: int, case: str, bare: Sequence[int], instrumented: Sequence[int], reason: str = "") -> SelfTest:
    """The outcome of pairs of wall times (ns). Fewer than :data:`PAIRS` of them make no figure.

    With five pairs no interval reaches 95 %: what is told is the smallest and the largest of them, and how often such
    an interval holds the true median.
    """
    pairs = min(len(bare), len(instrumented))
    bare, instrumented = list(bare[:pairs]), list(instrumented[:pairs])
    if pairs < PAIRS or reason:
        reason = reason or f"{pairs} of {PAIRS} pairs were run"
        return SelfTest(t=t, case=case, bare=bare, instrumented=instrumented, reason=reason)
    over = [after / before - 1 for before, after in zip(bare, instrumented, strict=True)]
    median, low, high = statistics.median(over), min(over), max(over)
    return SelfTest(
        t=t,
        case=case,
        bare=bare,
        instrumented=instrumented,
        overhead=median,
        low=low,
        high=high,
        coverage=1 - 2 * 0.5**pairs,
        verdict="within" if median <= PROMISED else "above" if low > PROMISED else "unclear",
    )


def words(test: SelfTest) -> str:
    """A warning for the session's log; "" where there is nothing to warn of."""
    if test.verdict not in ("above", "unclear") or test.overhead is None or test.low is None or test.high is None:
        return ""
    sure = "" if test.verdict == "above" else ", or the machine is too noisy to tell"
    over, low, high = (units.change(value, 2) for value in (test.overhead, test.low, test.high))
    return f"measuring costs {over} ({low} … {high}) on {test.case}: more than {PROMISED * 100:g} %{sure}"
