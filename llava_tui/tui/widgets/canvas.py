"""The one widget that everything live is built of: it holds its last drawing and repaints the cells that changed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from llava_tui.tui.terminal import Piece
from llava_tui.tui.theme import AsciiFilter, styles
from llava_tui.tui.widgets.cells import TEXT, Line, Run, ascii_text, changed_ranges, cut, fit


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
        self._ascii = False

    def on_mount(self) -> None:
        """Follows the theme."""
        self._name_styles()
        self.app.theme_changed_signal.subscribe(self, lambda _: self._restyle())

    def _name_styles(self) -> None:
        """The theme's styles as the app's filters (NO_COLOR, ASCII) leave them: filtered once, not with every line."""
        background = self.background_colors[1]
        filters = self.get_line_filters()
        self._ascii = any(isinstance(entry, AsciiFilter) for entry in filters)
        for name, style in styles(self.app.current_theme).items():
            cell = [Segment(" ", style)]
            for entry in filters:
                cell = entry.apply(cell, background)
            self._named[name] = cell[0].style or style

    def _restyle(self) -> None:
        self._name_styles()
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

    def pieces(self, regions: Iterable[Region]) -> list[Piece]:
        """The cells of regions, with their place on the screen."""
        dx, dy = self.region.offset
        return [
            (at.x + dx, at.y + dy, [self._styled(run) for run in cut(self._lines[at.y], at.x, at.right)])
            for at in regions
        ]

    @property
    def drawn(self) -> list[str]:
        """The text that is shown, a string a line."""
        return ["".join(text for text, _ in line) for line in self._lines]

    def render_line(self, y: int) -> Strip:
        """The cached strip of line ``y``."""
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
        strip = Strip([Segment(*self._styled(run)) for run in line])
        return strip.adjust_cell_length(width, self._styled(("", TEXT))[1])

    def _styled(self, run: Run) -> tuple[str, Style]:
        """Every run has a style: NO_COLOR's filter fails on a segment without."""
        text, name = run
        return ascii_text(text) if self._ascii else text, self._named.get(name) or self._named.get(TEXT) or Style()

    def render_lines(self, crop: Region) -> list[Strip]:
        """What the compositor asks for."""
        return [self.render_line(y).crop(crop.x, crop.right) for y in crop.line_range]
