"""The part of the browser that tells of the session that the cursor is on: beside the list or below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llava_tui.tui.widgets.cells import TEXT, Line
from llava_tui.tui.widgets.session_table import Entry, PaintedPage

if TYPE_CHECKING:
    from textual.geometry import Size

    from llava_tui.analysis.steps import StepTable

BESIDE = 110
"""From this many columns on it stands beside the list."""
BELOW = 18
"""From this many lines on it stands below."""


class Preview(PaintedPage):
    """Draws a session in the room that it is given."""

    _beside = False

    def take_room(self, size: Size) -> bool:
        """Takes its room of a screen of that size; whether that is beside the list."""
        width, height = size
        self._beside = beside = width >= BESIDE
        self.display = beside or height >= BELOW
        self.styles.width = min(max(width * 35 // 100, 42), 66) if beside else "1fr"
        self.styles.height = "1fr" if beside else max(height * 2 // 5 + 1, 9)
        return beside

    def show_session(self, entry: Entry | None, tables: Mapping[str, StepTable] | None) -> None:
        """``tables``: the steps tables by case; ``None`` while they are worked out."""
        width, height = self.size
        if not self.display or width < 4:
            return
        lines: list[Line] = []
        if entry is not None:
            from llava_tui.tui.widgets.session_preview import draw_preview

            lines = draw_preview(entry, tables, width - 3, height if self._beside else height - 1)
        if self._beside:
            lines += [[]] * (height - len(lines))
            self.set_lines([[(" │ ", "track"), *line] for line in lines])
        else:
            rule: Line = [("─" * width, "track")]
            self.set_lines([rule, *([("  ", TEXT), *line] for line in lines)])
