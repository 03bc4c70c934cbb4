"""The one widget that everything live is built of: it holds its last drawing and repaints the cells that changed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from llava_tui.tui.theme import styles
from llava_tui.tui.widgets.cells import TEXT, Line, changed_ranges, fit


class LineCanvas(Widget):
    """Shows the lines given to :meth:`show`; a drawing that did not change paints nothing."""

    DEFAULT_CSS = "LineCanvas { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._strips: list[Strip | None] = []
        self._styles: dict[str, Style] = {}

    def on_mount(self) -> None:
        """Follows the theme."""
        self._styles = styles(self.app.current_theme)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._restyle())

    def _restyle(self) -> None:
        self._styles = styles(self.app.current_theme)
        self._strips = [None] * len(self._lines)
        self.refresh()

    def show(self, lines: Iterable[Line]) -> list[Region]:
        """Draws ``lines`` from the top; the rest of the widget is blank. Returns the regions that were repainted."""
        width, height = self.size
        drawing = [fit(line, width) for line in lines][:height]
        drawing += [fit([], width)] * (height - len(drawing))
        regions: list[Region] = []
        for y, line in enumerate(drawing):
            old = self._lines[y] if y < len(self._lines) else None
            if ranges := changed_ranges(old, line):
                regions.extend(Region(start, y, end - start, 1) for start, end in ranges)
        if len(drawing) != len(self._lines):
            self._strips = [None] * len(drawing)
        self._lines = drawing
        for region in regions:
            self._strips[region.y] = None
        if regions:
            self.refresh(*regions)
        return regions

    @property
    def drawn(self) -> list[str]:
        """The text that is shown, a string a line."""
        return ["".join(text for text, _ in line) for line in self._lines]

    def render_line(self, y: int) -> Strip:
        """The cached strip of line ``y``. Every segment has a style: NO_COLOR's filter needs one."""
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width, self._style(TEXT))
        strip = self._strips[y]
        if strip is None or strip.cell_length != width:
            strip = Strip([Segment(text, self._style(name)) for text, name in self._lines[y]])
            strip = strip.adjust_cell_length(width, self._style(TEXT))
            self._strips[y] = strip
        return strip

    def _style(self, name: str) -> Style:
        return self._styles.get(name) or self._styles.get(TEXT) or Style()
