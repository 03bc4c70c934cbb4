"""What a session says, case by case: read and worked out aside, drawn on a page that scrolls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from llava_tui.tui import actions
from llava_tui.tui.screens.paging import ToldScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line, clip, join
from llava_tui.tui.widgets.signs import GRADE_STYLES, MARKS

if TYPE_CHECKING:
    from llava_tui.analysis.whole import Analysis
    from llava_tui.session.timeline import View
    from llava_tui.tui.widgets.analysis_page import Told

AGAIN_S = 10.0
"""A live session is worked out again when so long has passed and runs have ended."""
SHARE = 0.02
"""Of the time, at most, for that: a long session takes a while."""


@dataclass(slots=True)
class Analysed:
    """What was read and worked out, aside."""

    view: View
    whole: Analysis
    status: str
    cases: list[str]
    told: dict[str, Told] = field(default_factory=dict)
    """By case; each is worked out when it is first asked for."""

    @property
    def runs(self) -> int:
        """How many it is of."""
        return self.view.runs.n

    @property
    def first(self) -> str:
        """The case to begin with: the one that advice is most worth on."""
        return self.whole.advised or (self.cases[0] if self.cases else "")


def read(path: Path, folder: Path) -> Analysed:
    """The session in ``path``, as far as it has been written. Raises
    :class:`~llava_tui.session.reader.SessionError`."""
    from llava_tui.analysis.steps import case_ids
    from llava_tui.report.analysis import read as analysed
    from llava_tui.session import store

    view, whole = analysed(path, folder)
    return Analysed(view, whole, store.status(path), case_ids(view))


def tell(found: Analysed, case: str) -> Told:
    """What the page says of ``case``."""
    from llava_tui.analysis.trust import badge
    from llava_tui.analysis.whole import analyze
    from llava_tui.measured_peaks import load
    from llava_tui.report.advice_lines import command, nothing
    from llava_tui.session.reader import safe_text
    from llava_tui.tui.widgets.analysis_page import Told

    view, whole = found.view, found.whole
    one = whole if case == whole.advised else analyze(view, load(), case or None, None, found.status)
    model = view.model
    parts = [model.name, model.dtype, model.attention, model.device] if model is not None else [view.header.model]
    return Told(
        session=view.header.id,
        provenance=view.header.provenance,
        model=" · ".join(dict.fromkeys(safe_text(part) for part in parts if part)),
        missing=missing(view, case, found.status),
        whole=whole,
        one=one,
        case=case,
        trust=badge(view, case, found.status) if case else None,
        commands=tuple(command(advice, view.header.id) for advice in one.advice),
        quiet=nothing(view),
    )


def missing(view: View, case: str, status: str) -> str:
    """Why nothing can be told of the case, and what to do about it; "" where something was measured."""
    runs = view.runs
    measured = runs.where(kind="measured", outcome="ok")
    if (measured & runs.where(case=case) if case else measured).any():
        return ""
    reason = str(view.states.row(-1)["reason"]) if view.states.n else ""
    if status in ("running", "paused"):
        return f"the session is {view.state}: what it says comes with its first measured runs"
    if not runs.n:
        why = f": {reason}" if reason else ""
        return f"the session {_ENDED.get(status, 'ended')} before any run{why}; nothing can be said of it"
    if measured.any():
        return f"no run of {case} was measured; the next case may have been (v)"
    why = f" ({reason})" if reason else ""
    return (
        f"the session {_ENDED.get(status, 'ended')} before a measured run{why}: "
        f"run it again with llava-tui run --from {view.header.id}"
    )


_ENDED = {"failed": "failed", "stopped": "was stopped", "interrupted": "was interrupted", "finished": "ended"}


class AnalysisScreen(ToldScreen):
    """Reads aside, then shows one case at a time; a live session is read again now and then."""

    NAME = "analysis"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("analysis")]
    CSS = "AnalysisScreen { layout: vertical; overflow: hidden; }"

    def __init__(self, path: Path, folder: Path, case: str) -> None:
        """``case``: the one to begin with; "": the one that takes longest."""
        super().__init__()
        self.path = path
        self.folder = folder
        self.case = case
        self.found: Analysed | None = None
        self.busy = ""
        """What is being done aside."""
        self.problem = ""
        self._notice = ""
        self._due = 0.0

    def on_mount(self) -> None:
        """Says what is being done, and does it aside."""
        self.call_after_refresh(self._begin)
        self.set_interval(1.0, self._look_again)

    def _begin(self) -> None:
        self._aside(f"reading {self.path.name} …", lambda: read(self.path, self.folder))

    def _aside(self, what: str, work: Callable[[], Analysed]) -> None:
        """Does ``work`` and tells the case in a thread, one at a time."""
        if self.busy:
            return
        self.busy = what
        wanted = self.case
        app = self.app

        def do() -> None:
            began = time.monotonic()
            found: Analysed | str
            case = wanted
            try:
                found = work()
                case = wanted if wanted in found.cases else found.first
                if case not in found.told:
                    found.told[case] = tell(found, case)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is shown instead of the page
                found = str(error) or type(error).__name__
            took = time.monotonic() - began
            if app.is_running:
                app.call_later(self._show, found, case, took)

        self.redraw()
        threading.Thread(target=do, name="analysis", daemon=True).start()

    def _show(self, found: Analysed | str, case: str, took: float) -> None:
        self.busy = ""
        if not self.is_attached:
            return
        self._due = time.monotonic() + max(AGAIN_S, took / SHARE)
        if isinstance(found, str):
            self.problem = found
        else:
            self.problem, self.found, self.case = "", found, case
        self.redraw()

    def _look_again(self) -> None:
        """Of a live session, when it is time and something was measured since; once more when it has ended."""
        if self.live and not self.busy and time.monotonic() >= self._due and self.app.screen is self:
            self.do_again()

    @property
    def live(self) -> bool:
        """Whether what is shown was a session that still goes on."""
        return self.found is not None and self.found.status in ("running", "paused")

    def conditions(self) -> set[str]:
        """A session that has ended says nothing new."""
        return {"live"} if self.live else set()

    # --- drawing ----------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """All of it; what did not change is not painted."""
        width = self.size.width
        if not width:
            return
        self.query_one("#heading", LineCanvas).show([self._heading(width)])
        told = self.found.told.get(self.case) if self.found is not None else None
        if told is not None:
            from llava_tui.tui.widgets.analysis_page import draw_analysis

            self.scrolled.set_lines(draw_analysis(told, width))
        else:
            self.show_words(self.problem or self.busy, "bad" if self.problem else "dim", width)
        self.draw_footer()

    def _heading(self, width: int) -> Line:
        parts: list[Line] = [[(" ANALYSIS", "strong")]]
        found = self.found
        if self._notice:
            # It is what was asked for last: the rest gives way.
            parts.append([(clip(self._notice, max(width - 12, 0)), "accent")])
        if found is not None:
            glyph, word, style = MARKS.get(found.status, ("", found.status.upper(), "strong"))
            parts.append([(f"{glyph} {word}", style)])
            told = found.told.get(self.case)
            if told is not None and told.trust is not None and told.trust.grade is not None:
                grade = told.trust.grade
                parts.append([("trust ", "dim"), (grade, GRADE_STYLES.get(grade, "bad"))])
            if self.case:
                place = f"  {found.cases.index(self.case) + 1}/{len(found.cases)}" if len(found.cases) > 1 else ""
                parts.append([("case ", "dim"), (self.case + place, "text")])
            if self.live:
                parts.append([(f"as of run {max(found.runs - 1, 0)}", "dim")])
        if self.busy and found is not None:
            parts.append([(self.busy, "dim")])
        parts.append([(self.path.name, "dim")])
        return join(parts, 2, width)

    # --- actions ----------------------------------------------------------------------------------------------------

    def do_case(self) -> None:
        """The next case."""
        found = self.found
        if found is None or self.busy or len(found.cases) < 2:
            return
        at = found.cases.index(self.case) if self.case in found.cases else -1
        self.case = found.cases[(at + 1) % len(found.cases)]
        self._notice = ""
        self.scrolled.to_end(last=False)
        if self.case in found.told:
            self.redraw()
        else:
            self._aside(f"working out {self.case} …", lambda: found)

    def do_again(self) -> None:
        """Reads what was measured since."""
        if self.found is None or not self.live:
            return
        found, path, folder = self.found, self.path, self.folder

        def work() -> Analysed:
            from llava_tui.session import store

            new = found.view.timeline.poll() or store.status(path) != found.status
            return read(path, folder) if new else found

        self._aside("looking again …", work)

    def do_copy_markdown(self) -> None:
        """What `llava-tui analyze --markdown` prints."""
        if self.found is None:
            return
        from llava_tui.report.analysis import as_markdown

        self.app.copy_to_clipboard(as_markdown(self.found.view, self.found.whole))
        self.say("copied as Markdown")

    def do_copy_verify(self) -> None:
        """The command of the first piece of advice."""
        told = self.found.told.get(self.case) if self.found is not None else None
        if told is None or not told.commands:
            self.say("there is no advice to try")
            return
        self.app.copy_to_clipboard(told.commands[0])
        self.say(f"copied: {told.commands[0]}")

    def say(self, text: str, style: str = "accent") -> None:
        """In the heading, until the next case."""
        self._notice = text
        self.redraw()
