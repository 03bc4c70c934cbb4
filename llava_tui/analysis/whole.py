"""Everything that can be said of one session: insights, trust, advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llava_tui.analysis.advice import Advice, advise, case_of, withheld
from llava_tui.analysis.footprint import Footprint, footprint
from llava_tui.analysis.insights import Insights, insights
from llava_tui.analysis.peaks import Peaks
from llava_tui.analysis.steps import case_ids
from llava_tui.analysis.trust import Trust, badge
from llava_tui.session.timeline import View


@dataclass(frozen=True, slots=True)
class Analysis:
    insights: Insights
    trust: dict[str, Trust]
    """By case."""
    footprints: dict[str, Footprint]
    """Memory and energy, by case."""
    advice: tuple[Advice, ...]
    advised: str
    """The case that the advice is about; "" without a measured one."""
    withheld: tuple[Advice, ...] = ()
    """Advice that is not given because the figures are to be measured again first; for whoever insists."""

    @property
    def doubt(self) -> str:
        """Why advice is withheld, in a line; "" where none is."""
        trust = self.trust.get(self.advised)
        if not self.withheld or trust is None:
            return ""
        return f"trust is {trust.grade}" + (f": {trust.reasons[0].text}" if trust.reasons else "")


def analyze(
    view: View,
    measured_peaks: Mapping[str, Peaks] | None = None,
    case: str | None = None,
    beside: View | None = None,
    status: str = "",
) -> Analysis:
    """The session as it was at ``view.t``; of all its cases, or of ``case`` alone. See
    :func:`~llava_tui.analysis.insights.insights`; ``status`` as for :func:`~llava_tui.analysis.trust.badge`.

    Raises :class:`ValueError` for a case that the session does not have."""
    if case and case not in (known := case_ids(view)):
        raise ValueError(f"{view.header.id} has no case {case!r}; it has {', '.join(known) or 'none yet'}")
    found = insights(view, measured_peaks, case, beside)
    trust = {each.case: badge(view, each.case, status) for each in found.cases if each.table.n}
    footprints = {case: footprint(view, case) for case in trust}
    about = case_of(found)
    advised = about.case if about is not None else ""
    asked = (view, found, trust.get(advised), advised or None)
    return Analysis(found, trust, footprints, advise(*asked), advised, withheld(*asked))
