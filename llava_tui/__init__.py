"""llava-tui: profile LLaVA-style vision-language models step by step, live in a terminal."""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's own would load typing: ctrl+c can be caught only once the command line is there
if TYPE_CHECKING:
    from pathlib import Path

    from llava_tui.analysis.comparison import Comparison
    from llava_tui.analysis.whole import Analysis
    from llava_tui.session.timeline import Timeline

__all__ = ["__version__", "analyze", "compare", "open"]


def open(path: str | Path, hints: bool = True) -> Timeline:
    """The timeline of the session in folder ``path``: ``.runs``, ``.stages``, ``.tokens``, ``.samples`` as columns.

    Without ``hints``, which drive a live picture and enter no statistic, a long session is read in a fraction of the
    time. Raises :class:`llava_tui.session.reader.SessionError` if there is no readable session.
    """
    from pathlib import Path

    from llava_tui.session.timeline import Timeline

    return Timeline.open(Path(path), hints)


def analyze(session: Timeline, case: str | None = None) -> Analysis:
    """What the session says: steps, extremes, frames, batch, trust, roofline, advice; of all its cases or of ``case``.

    Peaks that were measured on this machine are used where the data sheets do not know its hardware. Raises
    :class:`ValueError` for a case that the session does not have.
    """
    from llava_tui.analysis.whole import analyze as analyzed
    from llava_tui.measured_peaks import load

    return analyzed(session.now(), load(), case)


def compare(baseline: Timeline, *others: Timeline, delta: float = 0.01) -> list[Comparison]:
    """``others`` against ``baseline``, case by case; of one session alone, its cases against its first.

    ``delta`` is the relative effect that is worth a claim. Raises :class:`ValueError` where no case is common.
    """
    from llava_tui.analysis.comparison import Side
    from llava_tui.analysis.comparison import compare as compared

    return compared([Side(one.header.id, (one.now(),)) for one in (baseline, *others)], delta=delta)
