"""Rules 0 and 9: what comes before any other advice."""

from __future__ import annotations

from llava_tui.analysis.advice.piece import Advice
from llava_tui.analysis.trust import Trust

AGAIN = "llava-tui run --from {session} --rounds auto --headless"


def first(case: str, trust: Trust | None, imported: bool = False) -> Advice | None:
    """Cooling where it was throttled, measuring again where trust is below C; ``None`` where figures can be built
    on."""
    if trust is None:
        return None
    if (throttled := trust.named("throttled")) is not None:
        return Advice(
            id="cool",
            rule=9,
            case=case,
            title="the GPU throttles: cool it first",
            evidence=(throttled.text,),
            remedy="mend airflow, ambient temperature or the power supply, or lower the power limit so that clocks "
            "hold; until then no other advice means anything",
            command=AGAIN,
        )
    if trust.sound:
        return None
    return Advice(
        id="measure-again",
        rule=0,
        case=case,
        title=f"trust is {trust.grade}: measure again before anything is changed",
        evidence=tuple(reason.text for reason in trust.reasons if reason.level != "note"),
        remedy="take away what the badge names, then run the same plan again",
        command="llava-tui run --model MODEL --input VIDEO --rounds auto --headless" if imported else AGAIN,
    )
