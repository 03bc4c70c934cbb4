"""What the keys of the monitor act on: the session, where in its time the viewer is, and how it is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llava_tui.session.source import LocalSource
from llava_tui.tui.screens.base import ActionScreen

if TYPE_CHECKING:
    from llava_tui.session.source import Source
    from llava_tui.session.timeline import Timeline, View
    from llava_tui.tui.transport import Transport
    from llava_tui.tui.widgets.look import Look


class WatchingScreen(ActionScreen):
    """A screen on one session. Until the session is open, ``timeline``, ``look`` and ``transport`` are ``None``."""

    def __init__(self, path: Path, source: Source | None = None) -> None:
        """``path``: the session's folder; ``source``: where it comes from, if that is not all."""
        super().__init__()
        self.path = path
        self.source = source or LocalSource(path)
        self.timeline: Timeline | None = None
        self.look: Look | None = None
        self.transport: Transport | None = None

    @property
    def view(self) -> View | None:
        """The session at the time that is shown; ``None`` while it is being opened."""
        if self.timeline is None or self.transport is None:
            return None
        return self.timeline.at(self.transport.now())

    @property
    def live(self) -> bool:
        """Whether a worker is there."""
        return self.look is not None and self.look.live

    def redraw(self, *, at_once: bool = True) -> None:
        """Every part whose drawing may have changed; without ``at_once``, slow parts wait for their turn."""
        raise NotImplementedError

    def say(self, text: str, style: str = "accent") -> None:
        """In the log."""
        self.notice(text, {"bad": "error", "warn": "warning"}.get(style, "info"))

    def notice(self, text: str, level: str = "info") -> None:
        """Says something in this viewer's own log, at the time that is shown."""
        from llava_tui.tui.widgets.look import Notice

        view, look = self.view, self.look
        if view is not None and look is not None:
            new = Notice(view.t, text, level)
            look.notices = [*[old for old in look.notices if old != new][-20:], new]
            self.redraw()
