"""The course of a rank above 0: it loads the model too, then runs what rank 0 says until that ends the session."""

from __future__ import annotations

from llava_tui.events import Command
from llava_tui.pipelines.base import PipelineError
from llava_tui.session.reader import safe_text
from llava_tui.worker.control import Control
from llava_tui.worker.course import STATES, Course
from llava_tui.worker.outcome import REASON_LIMIT


class Echo(Control):
    """Hears what viewers ask, and heeds what cuts a run short. Rank 0 answers, and decides all else."""

    def _answer(self, command: Command) -> None:
        if command.verb == "stop-now" and not self.stop_now:
            self.stop_now = f"stopped by {safe_text(command.author, 200) or 'a viewer'}"


class Follower(Course):
    """Its stream holds the runs of its rank, in step with those of rank 0: run by run the same numbers and cases."""

    def _leave_out(self, refused: dict[str, str]) -> None:
        """Rank 0 does, and says so."""

    def _course(self) -> tuple[str, str]:
        self._enter("starting")
        try:
            self._pipeline = pipeline = self._open_pipeline()
        except (PipelineError, ImportError) as error:
            problem = safe_text(str(error), REASON_LIMIT)
        else:
            problem = self._load(pipeline)
        if problem := self._ranks.agree("failed" if problem else "ok", problem).reason:
            return "failed", problem
        self._ranks.refuse(self._refused(pipeline).refused)
        self._ranks.listen = self._control.poll
        self._ranks.ending = lambda: bool(self._control.stop_now)
        while True:
            planned = self._ranks.hear()
            self._sink.require()
            if planned.kind == "load":
                self._load_next(pipeline, planned)
                continue
            self._enter(STATES[planned.kind])
            self._runs.execute(pipeline, planned)
