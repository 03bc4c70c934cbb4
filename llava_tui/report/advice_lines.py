"""A piece of advice in words: what it gains, why, and the command that tries it."""

from __future__ import annotations

from llava_tui import units
from llava_tui.analysis.advice import Advice
from llava_tui.session.timeline import View


def command(advice: Advice, session: str) -> str:
    """What puts a piece of advice to the test, as one types it."""
    if advice.change is not None:
        return f"llava-tui advise {session} --verify --only {advice.id} --case {advice.case}"
    return advice.command.replace("{session}", session)


def nothing(view: View) -> str:
    """Why there is no advice."""
    if view.model is None:
        return "none: the session does not say which model ran"
    return "nothing stands out: no rule's threshold is crossed"


def advice_lines(number: int, advice: Advice, session: str) -> list[str]:
    """A piece of advice: title and gain, evidence, what to do, the command."""
    what = "" if advice.metric == "wall" else f" ({advice.metric})"
    gain = f"saves about {units.percent(advice.gain)}{what}" if advice.gain is not None else "gain not known"
    if advice.bound is not None:
        gain += f", at most {units.percent(advice.bound)}"
    elif advice.gain is None:
        gain = ""
    lines = [f"{number}. {advice.title}" + (f" — {gain}" if gain else "")]
    lines += [f"   because {line}" for line in advice.evidence]
    lines.append(f"   do      {advice.remedy}")
    lines.append(f"   {'verify ' if advice.change is not None else 'try    '} {command(advice, session)}")
    return lines
