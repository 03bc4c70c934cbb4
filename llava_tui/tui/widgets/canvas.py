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
    """Shows the lines given to :meth:`show`; a drawing that did not change paints nothing.

    It has neither border nor padding: lines go to the compositor as they are drawn, without the passes that CSS would
    need, which cost more than the drawing.
    """

    DEFAULT_CSS = "LineCanvas { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._strips: list[Strip | None] = []
        self._blank: Strip | None = None
        self._named: dict[str, Style] = {}

    def on_mount(self) -> None:
        """Follows the theme."""
        self._named = styles(self.app.current_theme)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._restyle())

    def _restyle(self) -> None:
        self._named = styles(self.app.current_theme)
        self._strips = [None] * len(self._lines)
        self._blank = None
        self.refresh()

    def begin(self, lines: list[Line]) -> None:
        """What the first paint shows, before there is a size."""
        self._lines = lines
        self._strips = [None] * len(lines)

    def show(self, lines: Iterable[Line]) -> list[Region]:
        """:meth:`change`, and the repaint of it."""
        if regions := self.change(lines):
            self.refresh(*regions)
        return regions

    def change(self, lines: Iterable[Line]) -> list[Region]:
        """Takes ``lines``, each as wide as the widget, from the top; the rest of the widget is blank. Returns the
        regions that differ from the last drawing, to be repainted by the caller."""
        width, height = self.size
        drawing = list(lines)[:height]
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
        return regions

    def pieces(self, regions: Iterable[Region]) -> list[tuple[int, int, Strip]]:
        """The cells of regions with their place on the screen: (x, y, cells)."""
        dx, dy = self.region.offset
        return [
            (region.x + dx, region.y + dy, self.render_line(region.y).crop(region.x, region.right))
            for region in regions
        ]

    @property
    def drawn(self) -> list[str]:
        """The text that is shown, a string a line."""
        return ["".join(text for text, _ in line) for line in self._lines]

    def render_line(self, y: int) -> Strip:
        """The cached strip of line ``y``, filters applied. Every segment has a style: NO_COLOR's filter needs one."""
        width = self.size.width
        if y >= len(self._lines):
            if self._blank is None or self._blank.cell_length != width:
                self._blank = self._strip([], width)
            return self._blank
        strip = self._strips[y]
        if strip is None or strip.cell_length != width:
            strip = self._strips[y] = self._strip(self._lines[y], width)
        return strip

    def _strip(self, line: Line, width: int) -> Strip:
        strip = Strip([Segment(text, self._style(name)) for text, name in line])
        strip = strip.adjust_cell_length(width, self._style(TEXT))
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, self.background_colors[1])
        return strip

    def render_lines(self, crop: Region) -> list[Strip]:
        """What the compositor asks for."""
        return [self.render_line(y).crop(crop.x, crop.right) for y in crop.line_range]

    def _style(self, name: str) -> Style:
        return self._named.get(name) or self._named.get(TEXT) or Style()
