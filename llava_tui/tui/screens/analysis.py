"""What a session says."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from llava_tui.tui import actions
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.page import Page


class AnalysisScreen(ActionScreen):
    """What a session says."""

    NAME = "analysis"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("analysis")]

    def __init__(self, path: Path, folder: Path, case: str) -> None:
        super().__init__()
        self.path = path
        self.folder = folder
        self.case = case

    def compose(self) -> ComposeResult:
        """The page and the footer."""
        yield Page(id="page")
        yield LineCanvas(id="footer")
