"""The browser of sessions."""

from __future__ import annotations

import datetime
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.timer import Timer

from llava_tui.tui import actions
from llava_tui.tui.choosing import Choosing
from llava_tui.tui.screens.keeping import KeepingScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import TEXT, Line, fit
from llava_tui.tui.widgets.page import Page
from llava_tui.tui.widgets.preview import Preview
from llava_tui.tui.widgets.session_table import (
    Entry,
    SessionTable,
    draw_columns,
    draw_entry,
    draw_heading,
)

if TYPE_CHECKING:
    from llava_tui.session.store import SessionInfo
    from llava_tui.tui.catalogue import Catalogue
    from llava_tui.tui.digests import Digests

EVERY_S = 2.0
"""How often it is looked what is new."""
EVERY_LOW_S = 6.0
SHARE = 0.02
"""Of the time that looking may take: on a slow file system it is done less often."""
AT_REST_S = 0.15
"""The cursor has to stay that long before what it is on is read."""
MOST = 6
"""Sides of a comparison."""


class SessionsScreen(KeepingScreen):
    """Lists a folder's sessions, follows what happens to them, and does with them what the keys ask."""

    NAME = "sessions"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("sessions")]
    CSS = """
    SessionsScreen { layout: vertical; overflow: hidden; }
    SessionsScreen #body { height: 1fr; width: 1fr; }
    SessionsScreen #list { height: 1fr; width: 1fr; }
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.infos: list[SessionInfo] | None = None
        """Every session, live ones first, then the newest; ``None`` before the folder was read."""
        self.shown: list[SessionInfo] = []
        """Those that the filter lets through, in the order that is chosen."""
        self.baseline: list[Path] = []
        """The sessions that are pinned."""
        self.marks: dict[Path, None] = {}
        """The sessions marked, in that order."""
        self.choosing = Choosing()
        # Kept here: within a container they are not found before that is mounted.
        self.table = SessionTable(id="table")
        self._body = Container(id="body")
        self._columns = LineCanvas(id="columns")
        self._preview = Preview(id="preview")
        self._catalogue: Catalogue | None = None
        self._digests: Digests | None = None
        self._said: tuple[str, str] = ("", TEXT)
        self._looking = False
        self._look_again = False
        self._not_before = 0.0
        self._rest: Timer | None = None

    # --- building ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The heading; the list, and the preview beside or below it; the footer."""
        self._arrange()  # before they are there: whatever is laid out anew is painted twice
        yield LineCanvas(id="heading")
        with self._body:
            with Vertical(id="list"):
                yield self._columns
                yield self.table
            yield self._preview
        yield LineCanvas(id="footer")

    def on_mount(self) -> None:
        """Paints at once, and reads the folder aside."""
        width = self.app.size.width
        self.query_one("#heading", LineCanvas).begin([self._heading(width)])
        self.query_one("#footer", LineCanvas).begin([self.footer_line(width)])
        self.call_after_refresh(self.look)
        self.set_interval(EVERY_LOW_S if self.tui.low_bandwidth else EVERY_S, self._tick)

    def on_unmount(self) -> None:
        """Nobody waits for what is still being read."""
        if self._digests is not None:
            self._digests.end()

    def on_screen_resume(self) -> None:
        """Back from another screen: much may have happened."""
        if self.infos is not None:
            self.look()
            self.redraw()

    def on_resize(self) -> None:
        """Another size, another arrangement."""
        self._arrange()
        self.call_after_refresh(self.redraw)

    def _arrange(self) -> None:
        self._body.styles.layout = "horizontal" if self._preview.take_room(self.app.size) else "vertical"

    # --- what there is ----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.app.screen is self and time.monotonic() >= self._not_before:
            self.look()

    def look(self) -> None:
        """Looks aside at what is new in the folder."""
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        threading.Thread(target=self._look, args=(self.app,), name="list-sessions", daemon=True).start()

    def _look(self, app: App[Any]) -> None:
        from llava_tui.tui.catalogue import Catalogue

        found: list[SessionInfo] | str | None
        began = time.monotonic()
        try:
            if self._catalogue is None:
                self._catalogue = Catalogue(self.folder)
            found = self._catalogue.refresh()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown in place of the list
            found = str(error) or type(error).__name__
        if app.is_running:
            app.call_later(self._looked, found, time.monotonic() - began)

    def _looked(self, found: list[SessionInfo] | str | None, took: float) -> None:
        self._looking = False
        self._not_before = time.monotonic() + took / SHARE
        if not self.is_attached:
            return
        if self._look_again:
            self._look_again = False
            self.look()
        if isinstance(found, str):
            self.infos = self.infos or []
            self.say(found, "bad")
            self.redraw()
        elif found is not None:
            self.infos = found
            here = {info.path for info in found}
            self.marks = {path: None for path in self.marks if path in here}
            self._relist()

    def _relist(self) -> None:
        """Orders and filters anew; the cursor stays on its session, and that on its line."""
        table, here = self.table, self.current()
        before = table.cursor
        infos = self.infos or []
        self.baseline = sorted(info.path for info in infos if info.notes.baseline)
        self.shown = self.choosing.of(infos)
        places = {info.path: index for index, info in enumerate(self.shown)}
        if here is not None and (at := places.get(here.path)) is not None:
            table.cursor = at
            table.top += at - before
        table.set_rows(len(self.shown), self._draw_row)
        self.redraw()

    def current(self) -> SessionInfo | None:
        """The session that the cursor is on."""
        at = self.table.cursor
        return self.shown[at] if at < len(self.shown) else None

    def chosen(self) -> list[SessionInfo]:
        """Those that are marked, in that order; where none is, the one that the cursor is on."""
        by_path = {info.path: info for info in self.infos or []}
        marked = [by_path[path] for path in self.marks if path in by_path]
        here = self.current()
        return marked or ([here] if here is not None else [])

    # --- what is read whole -----------------------------------------------------------------------------------------

    def _want(self) -> None:
        """Once the cursor rests: what the rows in sight and the preview have to know."""
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(AT_REST_S, self._ask)

    def _ask(self) -> None:
        self._rest = None
        self._draw_preview()
        if self._digests is None:
            from llava_tui.tui.digests import Digests

            self._digests = Digests(partial(self._tell, self.app))
        here = self.current()
        seen = [self.shown[at] for at in self.table.seen() if at < len(self.shown)]
        readable = [info for info in seen if info.header is not None and not info.problem]
        self._digests.want(readable, here if here in readable else None, self.baseline)

    def _tell(self, app: App[Any], path: Path) -> None:
        if app.is_running:
            app.call_later(self._digested, path)

    def _digested(self, path: Path) -> None:
        if self.is_attached:
            self.table.set_rows(len(self.shown), self._draw_row)
            here = self.current()
            if here is not None and here.path == path:
                self._draw_preview()

    # --- drawing ----------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Everything; what did not change paints nothing."""
        heading, columns = self.query_one("#heading", LineCanvas), self._columns
        heading.show([self._heading(heading.size.width)])
        columns.show([draw_columns(columns.size.width)])
        if self.shown:
            self.table.set_rows(len(self.shown), self._draw_row)
        elif self.infos is not None:
            self.table.set_lines([[], [("  " + self._nothing(), "dim")]])
        self._draw_preview()
        self.draw_footer()
        if self.shown:
            self._want()

    def _nothing(self) -> str:
        if self.infos:
            return "no session holds all of these words; esc shows all again"
        return "no sessions yet: ctrl+n plans a run, `llava-tui demo` records a first one"

    def _entry(self, info: SessionInfo) -> Entry:
        digest = self._digests.of(info.path) if self._digests is not None else None
        return Entry(
            info,
            digest,
            marked=info.path in self.marks,
            baseline=info.notes.baseline,
            compared=bool(self.baseline),
        )

    def _draw_row(self, index: int, width: int, chosen: bool) -> Line:
        return draw_entry(self._entry(self.shown[index]), width, chosen, datetime.date.today())

    def _draw_preview(self) -> None:
        here = self.current()
        tables = self._digests.tables(here.path) if self._digests is not None and here is not None else None
        self._preview.show_session(self._entry(here) if here is not None else None, tables)

    def _heading(self, width: int) -> Line:
        said, style = self._said
        line: Line = [(" Sessions ", "strong"), (" ", TEXT)]
        if said:
            return fit([*line, (said, style)], width)
        if self.infos is None:
            return fit([*line, (f"reading {self.folder} …", "dim")], width)
        return draw_heading(self.infos, self.shown, len(self.marks), self.choosing, self.folder, width)

    def say(self, text: str, style: str = "accent") -> None:
        """In the heading, until the next key."""
        self._said = (" ".join(text.split()), style)
        heading = self.query_one("#heading", LineCanvas)
        heading.show([self._heading(heading.size.width)])

    @property
    def scrolled(self) -> Page:
        """The list."""
        return self.table

    # --- keys -------------------------------------------------------------------------------------------------------

    def offered(self) -> list[actions.Action]:
        """There is no way back from the first screen."""
        back = self.choosing.filter or self.marks or len(self.app.screen_stack) > 1
        return [entry for entry in super().offered() if back or entry.id != "escape"]

    def action_act(self, action: str, *key: str) -> None:
        """What was said has been read."""
        if self._said[0]:
            self.say("")
        super().action_act(action, *key)

    @on(Page.Chosen)
    def _moved(self) -> None:
        if self._rest is None:  # while a key is held down the preview waits
            self._draw_preview()
        self.draw_footer()
        self._want()

    @on(SessionTable.Scrolled)
    def _scrolled(self) -> None:
        self._want()

    @on(SessionTable.Opened)
    def _clicked_twice(self) -> None:
        self.do_open()

    def do_open(self) -> None:
        """The monitor on the session."""
        if (here := self._readable()) is not None:
            self.tui.open_session(here.path)

    def do_analysis(self) -> None:
        """What the session says."""
        if (here := self._readable()) is not None:
            self.tui.open_analysis(here.path)

    def do_compare(self) -> None:
        """Those that are marked, the first marked being the baseline; one alone with the pinned baseline, else its
        cases."""
        here, some = self.current(), self.chosen()
        if len(some) == 1 and here is not None and here is not some[0]:
            some.append(here)
        if bad := next((info for info in some if info.header is None), None):
            self.say(f"{bad.id} cannot be read: {bad.problem}", "bad")
        elif len(some) > MOST:
            self.say(f"{len(some)} are marked: at most {MOST} can be compared; space takes a mark away", "bad")
        elif some:
            self.tui.open_compare([str(info.path) for info in some])

    def do_rerun(self) -> None:
        """A new run, planned like the session."""
        here = self._readable()
        if here is not None and here.header is not None:
            self.tui.open_new_run(dict(here.header.plan))

    def do_mark(self) -> None:
        """Marks the session, or takes the mark away, and goes on to the next."""
        if (here := self.current()) is None:
            return
        if here.path in self.marks:
            del self.marks[here.path]
        else:
            self.marks[here.path] = None
        self.redraw()
        self.table.move(1)

    def do_order(self) -> None:
        """The next order."""
        self.choosing.next_order()
        self._relist()

    def do_escape(self) -> None:
        """First the filter goes, then the marks, then the screen, where there is one before."""
        if self.choosing.filter:
            self.choosing.filter = ""
            self._relist()
        elif self.marks:
            self.marks = {}
            self.redraw()
        else:
            self.tui.do_escape()

    def do_filter(self) -> None:
        """Asks for words, and shows at once in which sessions they occur."""
        from llava_tui.tui.widgets.overlays import Prompt

        before = self.choosing.filter

        def answered(text: str | None) -> None:
            self._filter_by(before if text is None else text)

        self.app.push_screen(
            Prompt("filter", before, hint="words: all have to occur", changed=self._filter_by), answered
        )

    def _filter_by(self, text: str) -> None:
        if text != self.choosing.filter:
            self.choosing.filter = text
            self._relist()

    def _readable(self) -> SessionInfo | None:
        """The session that the cursor is on, unless it is damaged, which is said."""
        here = self.current()
        if here is not None and (here.header is None or here.problem):
            self.say(f"{here.id} cannot be read: {here.problem}", "bad")
            return None
        return here
