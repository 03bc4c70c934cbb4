"""A screen that is a page to scroll through."""

from __future__ import annotations

from abc import abstractmethod

from textual.app import ComposeResult

from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line, fit, wrap
from llava_tui.tui.widgets.page import Page


class PagedScreen(ActionScreen):
    """Moves the one page that its keys are about."""

    @property
    def scrolled(self) -> Page:
        """The page."""
        return self.query_one(Page)

    def do_up(self) -> None:
        """A line up."""
        self.scrolled.move(-1)

    def do_down(self) -> None:
        """A line down."""
        self.scrolled.move(1)

    def do_page_up(self) -> None:
        """A page up."""
        self.scrolled.page(-1)

    def do_page_down(self) -> None:
        """A page down."""
        self.scrolled.page(1)

    def do_top(self) -> None:
        """To the first line."""
        self.scrolled.to_end(last=False)

    def do_bottom(self) -> None:
        """To the last line."""
        self.scrolled.to_end(last=True)


class ToldScreen(PagedScreen):
    """A heading, a page below it, and the footer: what is told of sessions that were read aside."""

    @abstractmethod
    def redraw(self) -> None:
        """All of it; what did not change is not painted."""

    def compose(self) -> ComposeResult:
        """The heading, the page and the footer."""
        yield LineCanvas(id="heading")
        yield Page(id="page")
        yield LineCanvas(id="footer")

    def on_resize(self) -> None:
        """Another width, other lines."""
        self.call_after_refresh(self.redraw)

    def show_words(self, text: str, style: str, width: int) -> None:
        """A sentence in place of the page."""
        lines: list[Line] = [[(" " + line, style)] for line in wrap(text, max(width - 2, 1))]
        self.scrolled.set_lines([fit(line, width) for line in lines])
