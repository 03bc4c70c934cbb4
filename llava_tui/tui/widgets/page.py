"""A canvas with more lines than it shows: scrolled by keys and the wheel, with a cursor where lines can be chosen."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.message import Message

from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line, cut, fit, width_of

WHEEL = 3
"""Lines a notch."""


class Page(LineCanvas):
    """Shows a window of the lines given to :meth:`set_lines`. A line wider than the widget is cut, not wrapped.

    Without a cursor :meth:`move` scrolls; with one (``choosing``) it moves the cursor and scrolls after it.
    """

    DEFAULT_CSS = "Page { height: 1fr; width: 1fr; }"

    class Chosen(Message):
        """A line was clicked, or the cursor moved onto it."""

        def __init__(self, page: Page, index: int, clicked: bool) -> None:
            super().__init__()
            self.page = page
            self.index = index
            self.clicked = clicked

    def __init__(self, *, id: str | None = None, choosing: bool = False) -> None:
        super().__init__(id=id)
        self.top = 0
        """The first line that is shown."""
        self.cursor = 0
        """The line chosen, where lines can be."""
        self._choosing = choosing
        self._all: Sequence[Line] = []

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Takes other lines, which nobody changes any more; the place is kept as far as it is still there."""
        self._all = lines
        self._settle()

    def move(self, by: int) -> None:
        """``by`` lines down, or up."""
        if self._choosing:
            self.choose(self.cursor + by)
        else:
            self.top += by
            self._settle()

    def page(self, by: int) -> None:
        """``by`` pages down, or up."""
        self.move(by * max(self.size.height - 1, 1))

    def to_end(self, last: bool) -> None:
        """To the last line, or the first."""
        self.move(len(self._all) if last else -len(self._all))

    def choose(self, index: int, *, clicked: bool = False) -> None:
        """Puts the cursor there, as near as can be."""
        before = self.cursor
        self.cursor = min(max(index, 0), max(len(self._all) - 1, 0))
        height = max(self.size.height, 1)
        self.top = min(max(self.top, self.cursor - height + 1), self.cursor)
        self._settle()
        if self.cursor != before or clicked:
            self.post_message(self.Chosen(self, self.cursor, clicked))

    @property
    def more(self) -> tuple[int, int]:
        """Lines above and below what is shown."""
        return self.top, max(len(self._all) - self.top - self.size.height, 0)

    def _settle(self) -> None:
        height, width = self.size.height, self.size.width
        self.cursor = min(max(self.cursor, 0), max(len(self._all) - 1, 0))
        self.top = min(max(self.top, 0), max(len(self._all) - max(height, 1), 0))
        if height and width:
            self.show([_wide(line, width) for line in self._all[self.top : self.top + height]])

    def on_resize(self) -> None:
        """Another height, another window."""
        if self._choosing:
            height = max(self.size.height, 1)
            self.top = min(max(self.top, self.cursor - height + 1), self.cursor)
        self._settle()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel scrolls; the cursor stays where it is, as far as it is seen."""
        event.stop()
        self._wheel(WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._wheel(-WHEEL)

    def _wheel(self, by: int) -> None:
        self.top += by
        self._settle()
        if self._choosing:
            seen = range(self.top, self.top + max(self.size.height, 1))
            if self.cursor not in seen:
                self.choose(seen[0] if self.cursor < seen[0] else seen[-1])

    def on_click(self, event: events.Click) -> None:
        """A click chooses."""
        index = self.top + event.y
        if self._choosing and index < len(self._all):
            event.stop()
            self.choose(index, clicked=True)


def _wide(line: Line, width: int) -> Line:
    return line if width_of(line) == width else fit(cut(line, 0, width) if width_of(line) > width else line, width)
