"""A run is started from a screen: checked once more, its session made, and the monitor opened on it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import App

from llava_tui.tui.screens.base import ActionScreen

if TYPE_CHECKING:
    from llava_tui.plan import Plan


class StartingScreen(ActionScreen):
    """A screen with a plan. What takes time is done aside, and said."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.plan: Plan | None = None
        """What is to be run; ``None`` where there cannot be such a plan."""
        self.problem = ""
        """Why there cannot."""
        self.starting = False
        self._leaving = False

    @abstractmethod
    def take(self, prepared: Plan | str) -> None:
        """The plan as it was resolved and checked, or why it cannot be run."""

    def words(self, plan: Plan) -> list[str]:
        """The command line that does the same."""
        from llava_tui.command_line import arguments
        from llava_tui.session.finding import sessions_folder

        where = [] if sessions_folder() == self.folder.absolute() else ["--sessions", str(self.folder.absolute())]
        return ["llava-tui", *where, *arguments(plan)]

    def do_start(self) -> None:
        """Checks once more, makes the session and opens the monitor on it."""
        if self.starting:
            return
        if self.plan is None:
            self.say(f"it cannot start: {self.problem}", "bad")
            return
        self.starting = True
        self.say("checking model and inputs …")
        threading.Thread(target=self._start, args=(self.app, self.plan), name="start-run", daemon=True).start()

    def _start(self, app: App[Any], plan: Plan) -> None:
        from llava_tui import starting

        def tell(done: Any, *what: Any) -> None:
            if app.is_running:
                app.call_later(done, *what)

        try:
            prepared = starting.prepared_aside(plan)
            tell(self._stage, "starting the worker …")
            path, worker = starting.start(self.folder, prepared, self.words(prepared))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the form stays
            tell(self._failed, str(error) or type(error).__name__)
            return
        tell(self._started, path)
        worker.wait()  # so that it is not left a zombie

    def _stage(self, text: str) -> None:
        if self.is_attached:
            self.say(text)

    def _failed(self, why: str) -> None:
        self.starting = False
        if self._leaving:
            self.app.exit(message=why)
        elif self.is_attached:
            self.say("it did not start", "bad")
            self.take(why)

    def _started(self, path: Path) -> None:
        self.starting = False
        if self._leaving:
            self.app.exit(message=f"the run goes on; llava-tui attach {path.name}")
        elif self.is_attached:
            while self.app.screen is not self:  # the keys, a list
                self.app.pop_screen()
            self.app.switch_screen(self.tui.monitor(path))

    def do_leave(self) -> None:
        """Leaves; a run that is being started is first seen to have begun."""
        if self.starting:
            self._leaving = True
            self.say("leaving as soon as the worker is there …")
        else:
            self.app.exit()
