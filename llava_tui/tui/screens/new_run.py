"""The form of a new run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from llava_tui.tui import actions
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.page import Page


class NewRunScreen(ActionScreen):
    """The form of a new run."""

    NAME = "new-run"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("new-run")]

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        super().__init__()
        self.folder = folder
        self.values = values

    def compose(self) -> ComposeResult:
        """The page and the footer."""
        yield Page(id="page")
        yield LineCanvas(id="footer")
