"""What a plan comes to, as lines: whether it can run, its cases, how long it will take, and how else to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava_tui import units
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left, wrap

if TYPE_CHECKING:
    from llava_tui.plan import Plan
    from llava_tui.tui.estimate import Estimate, Range

LABEL = 10
CASES = 200
"""Cases that are named."""
SHORT = 3
"""Cases whose want of memory is told."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The form as it stands."""

    help: str
    """Of the field that is being edited."""
    plan: Plan | None
    """``None`` where there cannot be such a plan."""
    problem: str = ""
    """Why it cannot run."""
    checked: bool = False
    """Whether inputs and model were looked at."""
    estimate: Estimate | None = None
    """``None`` while it is worked out."""
    command: str = ""
    toml: str = ""
    left_out: str = ""
    """Fields that the plan came with and that are not known here."""


def draw_planned(planned: Planned, width: int) -> list[Line]:
    """All of it; what matters most first."""
    lines: list[Line] = [*_wrapped(planned.help, width, "accent"), []]

    def say(label: str, text: str, style: str = TEXT, most: int = 0) -> None:
        told = wrap(text, max(width - LABEL - 1, 8))
        if most and len(told) > most:
            told = [*told[: most - 1], told[most - 1][: max(width - LABEL - 3, 0)] + " …"]
        for index, line in enumerate(told):
            lines.append([(" " + left("" if index else label, LABEL), "dim"), (line, style)])

    if planned.problem:
        say("✗ cannot", planned.problem, "bad")
    elif planned.plan is not None:
        say("✓ can run" if planned.checked else "checking …", "" if planned.checked else "model and inputs", "good")
        if not planned.checked:
            lines[-1] = [(" " + left("checking", LABEL), "dim"), ("model and inputs …", "dim")]
    if planned.left_out:
        say("left out", f"{planned.left_out}: not known to this version", "warn")
    if planned.plan is None:
        return [fit(line, width) for line in lines]
    cases = planned.plan.cases()
    names = " ".join(case.id for case in cases[:CASES]) + (" …" if len(cases) > CASES else "")
    say("cases", f"{len(cases)}: {names}", most=3)
    if len(loads := planned.plan.loads()) > 1:
        named = "; ".join(map(str, loads[:CASES]))
        say("loads", f"{len(loads)}; cases interleave as far as memory holds them: {named}", most=4)
    if planned.estimate is not None and planned.estimate.items:
        say("items", f"{planned.estimate.items:,}, {units.counted(*_passes(planned.plan))} over them")
    if planned.estimate is None:
        say("time", "…", "dim")
    else:
        say("runs", f"{_range(planned.estimate.runs)} of all kinds")
        say("time", time_in_words(planned.estimate))
        memory = planned.estimate.memory
        figure = f"{units.size(memory)} ({planned.estimate.memory_from})" if memory else ""
        say("memory", figure or planned.estimate.memory_from)
        for problem in planned.estimate.short[:SHORT]:
            say("⚠ memory", problem, "warn")
    for label, text in (("f6 command", planned.command), ("f7 TOML", planned.toml)):
        lines += [[], [(" " + label, "dim")]]
        # Nothing but plan and line ends: wrapped anywhere, since words in quotation marks are long.
        for part in text.strip().split("\n"):
            lines += [[("   " + line, TEXT)] for line in wrap(part, max(width - 4, 8)) or [""]]
    return [fit(line, width) for line in lines]


def _passes(plan: Plan) -> tuple[int, str, str]:
    return (plan.rounds if isinstance(plan.rounds, int) else 1), "pass", "passes"


def time_in_words(estimate: Estimate) -> str:
    """``4:10 … 21:03 (from demo), and loading``."""
    if estimate.seconds is None:
        return estimate.time_from
    low, high = (span(second) for second in estimate.seconds)
    own = low if low == high else f"{low} … {high}"
    sign = "≥ " if estimate.floor else ""
    source = estimate.time_from.removeprefix("at least, ")
    if estimate.scale == 0:
        return f"as fast as possible; {sign}{own} simulated ({source})"
    if estimate.scale != 1:
        real = " … ".join(dict.fromkeys(span(second * estimate.scale) for second in estimate.seconds))
        return f"{sign}{real}; {own} simulated ({source})"
    return f"{sign}{own} ({source}), loading on top"


def span(seconds: float) -> str:
    """Seconds as people plan with them: ``8 s``, ``4 min``, ``2 h 10 min``, ``3 days``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{round(hours / 24)} days"


def _range(values: Range) -> str:
    low, high = values
    return str(low) if low == high else f"{low} … {high}"


def _wrapped(text: str, width: int, style: str) -> list[Line]:
    return [[(" " + line, style)] for line in wrap(text, max(width - 2, 8))]
