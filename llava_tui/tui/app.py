"""The terminal program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from textual.app import App, SystemCommand
from textual.screen import Screen

from llava_tui.tui import theme
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.terminal import Hangup, require, sequences

if TYPE_CHECKING:
    from textual.geometry import Region

    from llava_tui.tui.clock import ViewerClock
    from llava_tui.tui.widgets.canvas import LineCanvas


class LlavaTui(App[None]):
    """Opens a screen on a session. Nothing that measures runs in this process."""

    TITLE = "llava-tui"
    CSS = "Screen { background: $background; color: $foreground; }"
    INLINE_PADDING = 0

    def __init__(
        self,
        path: Path,
        *,
        fps: float = 4.0,
        ascii: bool = False,
        low_bandwidth: bool = False,
        clock: ViewerClock | None = None,
    ) -> None:
        """``low_bandwidth``: the terminal's own colours, and fewer paints. ``clock`` and the rest as in
        :class:`MonitorScreen`."""
        super().__init__()
        self._session = path
        self._fps = fps
        self._low_bandwidth = low_bandwidth
        self._clock = clock
        self.last_words = ""
        for entry in theme.themes():
            self.register_theme(entry)
        self.theme = theme.preferred(low_bandwidth)
        if ascii:
            self._filters.append(theme.AsciiFilter())

    def get_default_screen(self) -> Screen[Any]:
        """The monitor is the first screen: an empty one before it would be laid out and painted for nothing."""
        return MonitorScreen(
            self._session, fps=self._fps, low_bandwidth=self._low_bandwidth, clock=self._clock, paint=self.paint
        )

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: the actions that are offered, then the themes."""
        if isinstance(screen, MonitorScreen):
            for action in screen.offered():
                yield SystemCommand(action.title, action.help, lambda id_=action.id: screen.action_act(id_))
        yield SystemCommand("theme", "Choose among all colour themes", self.action_change_theme)

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


def run_monitor(path: Path, *, fps: float = 4, ascii: bool = False, low_bandwidth: bool = False) -> None:
    """Shows the session in folder ``path`` until the user leaves: live while its worker runs, else at its end.

    Raises :class:`~llava_tui.session.reader.SessionError` where there is no terminal, and for a folder that cannot be
    read as a session. When the terminal goes away the process ends.
    """
    require()
    app = LlavaTui(Path(path), fps=fps, ascii=ascii, low_bandwidth=low_bandwidth)
    hangup = Hangup(lambda: leave(app))
    hangup.watch()
    try:
        app.run(mouse=not low_bandwidth)
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
