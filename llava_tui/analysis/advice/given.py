"""Which advice is given on a session: cooling or measuring again before anything else, then what the rules say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llava_tui.analysis.advice import before, decode, encode, memory, prompt, settings
from llava_tui.analysis.advice.piece import Advice
from llava_tui.analysis.advice.seen import Seen, look
from llava_tui.analysis.insights import CaseInsight, Insights
from llava_tui.analysis.trust import Trust
from llava_tui.session.timeline import View

RULES: tuple[Callable[[Seen], Iterator[Advice]], ...] = (
    decode.bandwidth,
    decode.launches,
    decode.copies,
    decode.tokens,
    encode.where_time_goes,
    encode.first_step,
    prompt.pictures,
    settings.attention,
    settings.precision,
    settings.threads,
    memory.largest_batch,
    memory.fragments,
)


def advise(view: View, found: Insights, trust: Trust | None = None, case: str | None = None) -> tuple[Advice, ...]:
    """Advice on ``case`` (else the one that takes longest), the largest gain first.

    Throttled: cooling, and nothing else. Trust below C: measuring again, and nothing else.
    """
    insight = case_of(found, case)
    if insight is None:
        return ()
    first = before.first(insight.case, trust, view.header.provenance == "imported")
    return _by_rules(view, found, insight) if first is None else (first,)


def withheld(view: View, found: Insights, trust: Trust | None = None, case: str | None = None) -> tuple[Advice, ...]:
    """What :func:`advise` keeps back because it is to be measured again, or cooled, first: for whoever insists. Empty
    where it keeps nothing back, and for imported figures, which no worker here has made."""
    insight = case_of(found, case)
    if insight is None or view.header.provenance == "imported" or before.first(insight.case, trust) is None:
        return ()
    return _by_rules(view, found, insight)


def case_of(found: Insights, case: str | None = None) -> CaseInsight | None:
    """The case that advice is about: ``case``, else the one that takes longest."""
    measured = [each for each in found.cases if each.table.n and case in (None, each.case)]
    return max(measured, key=lambda each: each.table.wall.summary.median or 0.0, default=None)


def _by_rules(view: View, found: Insights, insight: CaseInsight) -> tuple[Advice, ...]:
    seen = look(view, found, insight)
    if seen is None:
        return ()
    given = [advice for rule in RULES for advice in rule(seen)]
    return tuple(sorted(given, key=lambda advice: -(advice.gain or 0.0)))
