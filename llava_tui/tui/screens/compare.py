"""Two to six sessions or cases beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from llava_tui.tui import actions
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.page import Page


class CompareScreen(ActionScreen):
    """Two to six sessions or cases beside each other."""

    NAME = "compare"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("compare")]

    def __init__(self, folder: Path, references: list[str]) -> None:
        super().__init__()
        self.folder = folder
        self.references = references

    def compose(self) -> ComposeResult:
        """The page and the footer."""
        yield Page(id="page")
        yield LineCanvas(id="footer")
