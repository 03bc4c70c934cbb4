"""The browser of sessions."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from llava_tui.tui import actions
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.page import Page


class SessionsScreen(ActionScreen):
    """The browser of sessions."""

    NAME = "sessions"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("sessions")]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def compose(self) -> ComposeResult:
        """The page and the footer."""
        yield Page(id="page")
        yield LineCanvas(id="footer")
