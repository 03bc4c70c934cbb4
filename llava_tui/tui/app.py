"""The terminal program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from textual.app import App, SystemCommand
from textual.screen import Screen

from llava_tui.tui import actions, keymap, theme
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.terminal import Hangup, require, sequences

if TYPE_CHECKING:
    from textual.geometry import Region

    from llava_tui.tui.form import Form
    from llava_tui.tui.screens.monitor import MonitorScreen
    from llava_tui.tui.widgets.canvas import LineCanvas


class LlavaTui(App[None]):
    """The screens on a folder of sessions. Nothing that measures runs in this process."""

    TITLE = "llava-tui"
    CSS = "Screen { background: $background; color: $foreground; }"
    INLINE_PADDING = 0

    def __init__(
        self,
        path: Path | None = None,
        *,
        folder: Path | None = None,
        first: Callable[[], Screen[Any]] | None = None,
        fps: float = 4.0,
        ascii: bool = False,
        low_bandwidth: bool = False,
        read_only: bool = False,
        keymap: dict[str, tuple[str, ...]] | None = None,
        **monitor: Any,
    ) -> None:
        """Begins with the monitor on the session in folder ``path``, else with the screen that ``first`` makes, else
        with the browser of ``folder``. ``low_bandwidth``: the terminal's own colours, and fewer paints. ``keymap``:
        other keys, by the action's id. ``read_only``: nothing can be changed or steered. ``monitor``: more for the
        first :class:`MonitorScreen`, like ``clock``."""
        super().__init__()
        self.folder = folder if folder is not None else Path(path).parent if path is not None else Path()
        """The folder of sessions that is browsed."""
        self.actions = actions.Actions(keymap, read_only=read_only)
        self.fps = fps
        self.low_bandwidth = low_bandwidth
        self._path = path
        self._first = first
        self._monitor = monitor
        self.last_words = ""
        self.planned: Form | None = None
        """What was typed into the form of a new run, as long as the app lives."""
        for entry in theme.themes():
            self.register_theme(entry)
        self.theme = theme.preferred(low_bandwidth)
        self.set_keymap(self.actions.textual_keymap())
        if ascii:
            self._filters.append(theme.AsciiFilter())

    def get_default_screen(self) -> Screen[Any]:
        """The first screen that is wanted: an empty one before it would be laid out and painted for nothing."""
        if self._path is not None:
            return self.monitor(self._path, **self._monitor)
        return self._first() if self._first is not None else self.browser()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: the actions that are offered, then the themes."""
        if isinstance(screen, ActionScreen):
            for action in screen.offered():
                if not action.key_matters:
                    yield SystemCommand(action.title, action.help, lambda id_=action.id: screen.action_act(id_))
        yield SystemCommand("theme", "Choose among all colour themes", self.action_change_theme)

    # --- from screen to screen --------------------------------------------------------------------------------------

    def monitor(self, path: Path, **options: Any) -> MonitorScreen:
        """The monitor on the session in folder ``path``."""
        from llava_tui.tui.screens.monitor import MonitorScreen

        return MonitorScreen(path, fps=self.fps, low_bandwidth=self.low_bandwidth, paint=self.paint, **options)

    def browser(self) -> Screen[Any]:
        """The sessions of this app's folder."""
        from llava_tui.tui.screens.sessions import SessionsScreen

        return SessionsScreen(self.folder)

    def open_session(self, path: Path, **options: Any) -> None:
        """The monitor on the session in folder ``path``; ``options`` as :class:`MonitorScreen` takes them."""
        self.push_screen(self.monitor(path, **options))

    def open_compare(self, references: Sequence[str]) -> None:
        """Compares sides as `llava-tui compare` names them: the first is the baseline. None: the pinned one, if any."""
        from llava_tui.tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(self.folder, list(references)))

    def open_analysis(self, path: Path, case: str = "") -> None:
        """What the session in folder ``path`` says; ``case``: of that case alone."""
        from llava_tui.tui.screens.analysis import AnalysisScreen

        self.push_screen(AnalysisScreen(path, self.folder, case))

    def open_new_run(self, values: dict[str, Any] | None = None) -> None:
        """The form of a new run, filled with the plan ``values`` (as in a session's header) or with defaults."""
        from llava_tui.tui.screens.new_run import NewRunScreen

        self.push_screen(NewRunScreen(self.folder, values or {}))

    def refused(self, why: str) -> None:
        """The screen on top has nothing to show: back to the one before, which says why; the first one ends the
        program."""
        if len(self.screen_stack) == 1:
            self.exit(return_code=2, message=why)
            return
        self.pop_screen()
        if isinstance(self.screen, ActionScreen):
            self.screen.say(why, "bad")

    def do_new_run(self) -> None:
        """A new run from nothing."""
        self.open_new_run()

    def do_sessions(self) -> None:
        """Back to the browser, or to a first one."""
        wanted = next((at for at, one in enumerate(self.screen_stack) if getattr(one, "NAME", "") == "sessions"), None)
        if wanted is None:
            # The first screen was never pushed, so that Textual cannot take it away.
            go = self.push_screen if len(self.screen_stack) == 1 else self.switch_screen
            go(self.browser())
        else:
            for _ in range(len(self.screen_stack) - 1 - wanted):
                self.pop_screen()

    def do_escape(self) -> None:
        """To the screen before; where there is none, to the browser."""
        if len(self.screen_stack) > 1:
            self.pop_screen()
        elif getattr(self.screen, "NAME", "") != "sessions":
            self.do_sessions()

    def do_theme(self) -> None:
        """The next of our themes."""
        order = (theme.DARK, theme.LIGHT, theme.TERMINAL)
        now = self.theme
        self.theme = order[(order.index(now) + 1) % len(order)] if now in order else order[0]

    def do_help(self) -> None:
        """The keys of the screen on top."""
        from llava_tui.tui.widgets.overlays import HelpOverlay

        if isinstance(self.screen, ActionScreen):
            self.push_screen(HelpOverlay(self.screen.offered()))

    do_keys = do_help

    def on_mount(self) -> None:
        """Back from the shell nothing is shown of what was there, and Textual would paint only what changes."""
        self.app_resume_signal.subscribe(self, lambda _: self.do_redraw())

    def do_redraw(self) -> None:
        """Every cell, whether it changed or not."""
        whole = self.screen._compositor.render_update(full=True, screen_stack=self._background_screens)
        self._display(self.screen, whole)

    def do_suspend(self) -> None:
        """Stops this process, as ctrl+z does elsewhere."""
        self.action_suspend_process()

    def do_quit(self) -> None:
        """Leaves."""
        self.exit()

    do_leave = do_quit

    async def action_quit(self) -> None:
        """Textual's own ctrl+q, which goes before every screen's: leaves as the screen leaves."""
        screen = next((one for one in reversed(self.screen_stack) if isinstance(one, ActionScreen)), None)
        leave = getattr(screen, "do_leave", None) or getattr(screen, "do_quit", None) or self.do_quit
        leave()

    def exit(self, result: None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """Ends the program; ``message`` is printed on the normal screen, as text."""
        if message is not None:
            self.last_words = str(message)
        super().exit(result, return_code)

    def paint(self, changes: list[tuple[LineCanvas, list[Region]]]) -> None:
        """Repaints the changed cells of canvases on the screen that is on top, and no other cell.

        Textual's compositor renders every widget between the first and the last change, and rewrites each changed line
        from its widget's left edge: several times the work and the bytes. What it does later, it does from the same
        canvases.
        """
        driver = self._driver
        covered = any(canvas.screen is not self.screen for canvas, _ in changes)
        if covered or driver is None or self.is_headless or self._batch_count or self.screen._layout_required:
            for canvas, regions in changes:
                canvas.refresh(*regions)
            return
        pieces = [piece for canvas, regions in changes for piece in canvas.pieces(regions)]
        if pieces:
            self._begin_update()
            driver.write(sequences(pieces, self.console))
            self._end_update()
            driver.flush()


def run_monitor(
    path: Path,
    *,
    fps: float = 4,
    ascii: bool = False,
    low_bandwidth: bool = False,
    folder: Path | None = None,
    **more: Any,
) -> None:
    """Shows the session in folder ``path`` until the user leaves: live while its worker runs, else to be replayed.
    Raises as :func:`run`."""
    options: dict[str, Any] = {"fps": fps, "ascii": ascii, "low_bandwidth": low_bandwidth, "folder": folder}
    run(lambda keymap: LlavaTui(Path(path), keymap=keymap, **options, **more), mouse=not low_bandwidth)


def run_browser(
    folder: Path, *, fps: float = 4, ascii: bool = False, low_bandwidth: bool = False, read_only: bool = False
) -> None:
    """Shows the sessions in ``folder`` until the user leaves. Raises as :func:`run`."""
    options: dict[str, Any] = {"fps": fps, "ascii": ascii, "low_bandwidth": low_bandwidth, "read_only": read_only}
    run(lambda keymap: LlavaTui(folder=Path(folder), keymap=keymap, **options), mouse=not low_bandwidth)


def run(make: Callable[[dict[str, tuple[str, ...]]], LlavaTui], *, mouse: bool) -> None:
    """Runs the app that ``make`` returns for the user's keymap until the user leaves. When the terminal goes away the
    process ends.

    Raises :class:`~llava_tui.session.reader.SessionError` where there is no terminal, for a folder that cannot be read
    as a session, and for a keymap file that is wrong.
    """
    require()
    app = make(keymap.read())
    hangup = Hangup(lambda: leave(app))
    hangup.watch()
    try:
        app.run(mouse=mouse)
    finally:
        hangup.unwatch()
    if hangup.gone:
        os._exit(hangup.code)
    if app.return_code == 2:
        from llava_tui.session.reader import SessionError

        raise SessionError(app.last_words)
    if app.last_words:
        print(app.last_words, file=sys.stderr)  # noqa: T201


def leave(app: LlavaTui) -> None:
    """Asks the app to end, from a signal handler or another thread."""
    loop = getattr(app, "_loop", None)
    if loop is not None and loop.is_running():
        loop.call_soon_threadsafe(app.exit)
