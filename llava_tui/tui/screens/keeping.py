"""What is done to sessions from a list of them: named, noted, pinned, deleted."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava_tui.tui.screens.paging import PagedScreen
from llava_tui.tui.widgets.cells import clip
from llava_tui.tui.widgets.session_table import name_of

if TYPE_CHECKING:
    from llava_tui.session.store import SessionInfo

UNFINISHED = ("stopped", "interrupted", "failed")
"""Conditions in which a data set may not be done."""
EDITED = 2000
"""Characters of a note that can still be edited in one line."""


class KeepingScreen(PagedScreen):
    """A screen on which sessions are chosen. What takes time is done aside, then said, and looked at."""

    folder: Path
    baseline: list[Path]
    """The sessions that are pinned."""

    @abstractmethod
    def current(self) -> SessionInfo | None:
        """The session that the cursor is on."""

    @abstractmethod
    def chosen(self) -> list[SessionInfo]:
        """Those that are marked, in that order; where none is, the one that the cursor is on."""

    @abstractmethod
    def look(self) -> None:
        """Looks aside at what is new in the folder."""

    def do_rename(self) -> None:
        """Asks for a name."""
        if (here := self.current()) is not None:
            self._ask_for("name", here, here.notes.name, lambda text: {"name": text.strip()})

    def do_tags(self) -> None:
        """Asks for tags."""
        if (here := self.current()) is not None:
            tags = " ".join(here.notes.tags)
            self._ask_for("tags", here, tags, lambda text: {"tags": tuple(dict.fromkeys(text.split()))})

    def do_note(self) -> None:
        """Asks for a note; its line ends are shown as ⏎."""
        here = self.current()
        if here is None:
            return
        if len(here.notes.note) > EDITED:
            self.say(f"the note is too long to be edited here: edit {here.path / 'notes.json'}", "bad")
            return
        note = here.notes.note.replace("\n", "⏎")
        self._ask_for("note", here, note, lambda text: {"note": text.replace("⏎", "\n").strip()})

    def _ask_for(self, label: str, info: SessionInfo, value: str, change: Callable[[str], dict[str, Any]]) -> None:
        from llava_tui.tui.widgets.overlays import Prompt

        def answered(text: str | None) -> None:
            if text is not None and text != value:
                self._aside(f"{label} of {name_of(info)}", lambda: _note(info.path, change(text)))

        self.app.push_screen(Prompt(label, value), answered)

    def do_pin(self) -> None:
        """Those that are marked, or this one, become the baseline; the baseline alone is unpinned."""
        some = [info.path for info in self.chosen() if info.header is not None]
        if not some:
            return
        wanted = [] if set(some) == set(self.baseline) else some

        def pin() -> str:
            from llava_tui.report.sides import pin as pinned

            pinned(self.folder, wanted)
            return f"the baseline is {', '.join(path.name for path in wanted)}" if wanted else "no baseline any more"

        self._aside("baseline", pin)

    def conditions(self) -> set[str]:
        """Whether the session that the cursor is on can be gone on with."""
        here = self.current()
        unfinished = here is not None and here.header is not None and here.header.dataset is not None
        return {"unfinished"} if unfinished and here is not None and here.status in UNFINISHED else set()

    def do_go_on(self) -> None:
        """Starts a worker on what is left of the data set, and opens the monitor; what another machine began is asked
        about first, for its times and those from here are not comparable."""
        from llava_tui import starting
        from llava_tui.tui.widgets.overlays import Question

        here = self.current()
        if here is None:
            return

        def answered(answer: str | None) -> None:
            if answer:
                self._go_on(here)

        if host := starting.foreign_host(here.path):
            what = (
                f"{clip(name_of(here), 30)} began on {clip(host, 30)}: times from here are not comparable with its own"
            )
            self.app.push_screen(Question(what, [("y", "go on", "go on")]), answered)
        else:
            self._go_on(here)

    def _go_on(self, info: SessionInfo) -> None:
        from llava_tui import starting

        self.say(f"going on with {name_of(info)} …", "dim")
        app = self.app

        def run() -> None:
            try:
                worker = starting.resume(info.path, ["llava-tui", "run", "--resume", str(info.path)])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said
                if app.is_running:
                    app.call_later(self._went_on, None, str(error) or type(error).__name__)
                return
            if app.is_running:
                app.call_later(self._went_on, info.path, "")
            worker.wait()  # so that it is not left a zombie

        threading.Thread(target=run, name="resume", daemon=True).start()

    def _went_on(self, path: Path | None, problem: str) -> None:
        if not self.is_attached:
            return
        if path is None:
            self.say(problem, "bad")
        else:
            self.say("")
            if self.app.screen is self:
                self.tui.open_session(path)
        self.look()

    def do_delete(self) -> None:
        """Asks, then deletes; what runs stays, with the reason."""
        from llava_tui.tui.widgets.overlays import Question

        some = self.chosen()
        if not some:
            return
        if len(some) == 1 and some[0].status in ("running", "paused"):
            self.say(f"{name_of(some[0])} is running: stop it first (enter opens it, s stops it)", "bad")
            return
        what = clip(name_of(some[0]), 40) if len(some) == 1 else f"{len(some)} sessions"

        def answered(answer: str | None) -> None:
            if answer:
                self._aside("deleting", lambda: _delete(info.path for info in some))

        self.app.push_screen(Question(f"Delete {what} for good?", [("y", "delete", "delete")]), answered)

    def _aside(self, what: str, work: Callable[[], str]) -> None:
        """Does ``work`` in a thread, says what it returns or raises, and looks again."""
        self.say(f"{what} …", "dim")
        app = self.app

        def run() -> None:
            try:
                said, style = work(), "accent"
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said
                said, style = str(error) or type(error).__name__, "bad"
            if app.is_running:
                app.call_later(done, said, style)

        def done(said: str, style: str) -> None:
            if self.is_attached:
                self.say(said, style)
                self.look()

        threading.Thread(target=run, name="sessions", daemon=True).start()


def _note(path: Path, change: dict[str, Any]) -> str:
    """Changes that and nothing else of what is noted by now, which may be another viewer's."""
    from msgspec.structs import replace

    from llava_tui.session import store
    from llava_tui.session.reader import read_notes

    store.set_notes(path, replace(read_notes(path), **change))
    return f"noted: {' '.join(change)}"


def _delete(paths: Iterable[Path]) -> str:
    """All that can be; what cannot is in the message."""
    from llava_tui.session import store
    from llava_tui.session.reader import SessionError

    gone, kept = 0, []
    for path in paths:
        try:
            store.delete(path)
            gone += 1
        except SessionError as error:
            kept.append(str(error))
    if kept:
        raise SessionError("; ".join([*([f"{gone} deleted"] if gone else []), *kept]))
    return "deleted" if gone == 1 else f"{gone} deleted"
