"""The keys that ask the worker for something, and what it answered. They mean the run as it is now, whatever time is
shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from llava_tui.tui.screens.watching import WatchingScreen

if TYPE_CHECKING:
    from llava_tui.session.source import Source
    from llava_tui.session.timeline import View

PATIENCE_S = 3.0
"""After this long without an answer to a command, that is said."""


class RunControl(WatchingScreen):
    """Pause, stop, skip, more rounds, repeat."""

    def __init__(self, path: Path, source: Source | None = None) -> None:
        """As :class:`WatchingScreen`."""
        super().__init__(path, source)
        self._waiting: dict[str, tuple[str, int]] = {}
        """Commands that were not answered yet, by id: what was asked, and when."""

    @property
    def newest(self) -> View | None:
        """The session as far as it has been read."""
        return None if self.timeline is None else self.timeline.now()

    def do_pause(self) -> None:
        """Pause, or go on."""
        self.send("resume" if self.pausing() else "pause")

    def pausing(self) -> bool:
        """Whether the run is paused, or will be after the run that is going on."""
        view = self.newest
        if view is None:
            return False
        verbs = [row["verb"] for row in view.answers.rows(view.answers.where(accepted=True))[-64:]]
        asked = [verb for verb in verbs if verb in ("pause", "resume")]
        return view.state == "paused" or asked[-1:] == ["pause"]

    def do_stop(self) -> None:
        """Asks first."""
        from llava_tui.tui.widgets.overlays import Question

        self.app.push_screen(
            Question("Stop the run?", [("y", "after this run", "stop"), ("x", "now", "stop-now")]),
            self._stop_answered,
        )

    def _stop_answered(self, verb: str | None) -> None:
        if verb and self.live:
            self.send(verb)

    def do_skip(self) -> None:
        """What remains of the case that is running; asks first: it cannot be taken back."""
        from llava_tui.analysis.steps import current_case
        from llava_tui.tui.widgets.overlays import Question

        view = self.newest
        if view is None or not (case := current_case(view)):
            return

        def answered(answer: str | None) -> None:
            if answer and self.live:
                self.send("skip", case=case)

        self.app.push_screen(Question(f"Skip what remains of {case}?", [("y", "skip it", "skip")]), answered)

    def do_more(self) -> None:
        """One more round."""
        self.send("extend", rounds=1)

    def do_repeat(self) -> None:
        """One more run of the case that is shown."""
        view, look = self.view, self.look
        if view is not None and look is not None and (case := look.case_of(view)):
            self.send("repeat", case=case)

    def send(self, verb: str, *, case: str = "", rounds: int = 0) -> None:
        """Asks the worker."""
        from llava_tui.session.reader import SessionError

        try:
            command = self.source.send(verb, case=case, rounds=rounds)
        except SessionError as error:
            self.notice(str(error), "error")
            return
        self._waiting[command.id] = (verb, time.monotonic_ns())
        self.notice(f"{verb}: asked")

    def settle_answers(self) -> None:
        """Commands that were answered are not waited for; one that is not answered is told of once. An answer is in the
        session's own log; where that is shown as it was before, the viewer's own tells it."""
        view, newest = self.view, self.newest
        if not self._waiting or view is None or newest is None:
            return
        answers = newest.answers
        for index in range(max(answers.n - 64, 0), answers.n):
            if self._waiting.pop(str(answers["id"][index]), None) is not None and answers["t"][index] > view.t:
                row = answers.row(index)
                said = str(row["text"]) or ("done" if row["accepted"] else "refused")
                self.notice(f"{row['verb']}: {said}", "info" if row["accepted"] else "warning")
        late = [id_ for id_, (_, since) in self._waiting.items() if time.monotonic_ns() - since > PATIENCE_S * 1e9]
        for id_ in late:
            verb, _ = self._waiting.pop(id_)
            self.notice(f"{verb}: no answer from the worker yet", "warning")
