"""Two to six sessions, or cases of one, beside each other."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import BindingType

from llava_tui.tui import actions
from llava_tui.tui.screens.paging import ToldScreen
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line, fit

if TYPE_CHECKING:
    from llava_tui.analysis.comparison import Comparison
    from llava_tui.analysis.side_by_side import Difference, Group

MOST = 6


@dataclass(frozen=True, slots=True)
class Compared:
    """What was read and worked out, aside."""

    references: list[str]
    labels: list[str]
    groups: list[Group]
    comparisons: list[Comparison]
    differences: list[Difference]


def read(folder: Path, references: list[str]) -> Compared:
    """Reads the sides and compares them. One session alone is compared with the pinned baseline; where none is pinned
    (or it is the session itself), its cases with each other.

    Raises :class:`~llava_tui.session.reader.SessionError`, and :class:`ValueError` with a message for people.
    """
    from llava_tui.analysis.side_by_side import differences_of_plans, groups
    from llava_tui.report.sides import PINNED, pinned, read_sides, stored_spread
    from llava_tui.session import store

    if len(references) > MOST:
        raise ValueError(f"{len(references)} sides: at most {MOST} fit beside each other")
    if len(references) == 1 and references[0] != PINNED:
        baseline = pinned(folder)
        if baseline and store.find(folder, references[0].rpartition(":")[0] or references[0]) not in baseline:
            references = [PINNED, *references]
    sides = read_sides(folder, references)
    made, found = groups(sides, spread=stored_spread(sides))
    return Compared(references, [side.label for side in sides], made, found, differences_of_plans(sides))


class CompareScreen(ToldScreen):
    """Reads aside, then shows one case's comparison on a page that scrolls."""

    NAME = "compare"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("compare")]
    CSS = "CompareScreen { layout: vertical; overflow: hidden; }"

    def __init__(self, folder: Path, references: list[str]) -> None:
        """``references``: sides as `llava-tui compare` names them, the first the baseline."""
        super().__init__()
        self.folder = folder
        self.references = references
        self.compared: Compared | None = None
        self._group = 0
        self._row = "wall"
        self._notice = ""
        self._asked = 0

    def on_mount(self) -> None:
        """Says what is being done, and does it aside."""
        self._read(self.references)

    def _read(self, references: list[str]) -> None:
        self._asked += 1
        self.references = references
        self.compared = None
        work = threading.Thread(
            target=self._work, args=(self.app, references, self._asked), name="compare", daemon=True
        )
        self.call_after_refresh(self.redraw)
        self.call_after_refresh(work.start)

    def _work(self, app: App[Any], references: list[str], asked: int) -> None:
        found: Compared | str
        try:
            from llava_tui.tui.widgets import compare_page  # noqa: F401

            found = read(self.folder, references)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown instead of the comparison
            found = str(error) or type(error).__name__
        if app.is_running:
            app.call_later(self._show, found, asked)

    def _show(self, found: Compared | str, asked: int) -> None:
        if asked != self._asked or not self.is_attached:
            return
        if isinstance(found, str):
            self._notice = found
            self.scrolled.set_lines([])
        else:
            self.compared = found
            self.references = found.references
            self._notice = ""
            self._group = min(self._group, len(found.groups) - 1)
        self.redraw()

    # --- drawing ----------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """All of it; what did not change is not painted."""
        width = self.size.width
        if not width:
            return
        self.query_one("#heading", LineCanvas).show([self._heading(width)])
        if self.compared is None:
            text = self._notice or "reading " + ", ".join(Path(one).name for one in self.references) + " …"
            self.show_words(text, "bad" if self._notice else "dim", width)
        else:
            from llava_tui.tui.widgets.compare_page import draw_compare

            group = self.compared.groups[self._group]
            labels = self.compared.labels
            self.scrolled.set_lines(draw_compare(group, self._row, self.compared.differences, labels, width))
        self.draw_footer()

    def _heading(self, width: int) -> Line:
        line: Line = [(" COMPARE", "strong")]
        if self.compared is not None:
            cases = len(self.compared.groups)
            title = self.compared.groups[self._group].title
            line.append((f"  {title}" + (f"  case {self._group + 1} of {cases}" if cases > 1 else ""), "text"))
            if self._notice:
                line.append(("  " + self._notice, "accent"))
        return fit(line, width)

    # --- actions ----------------------------------------------------------------------------------------------------

    def do_case(self) -> None:
        """The next case."""
        if self.compared is not None:
            self._group = (self._group + 1) % len(self.compared.groups)
            self.redraw()

    def do_row(self, by: int = 1) -> None:
        """The distribution of the next row."""
        if self.compared is None:
            return
        from llava_tui.tui.widgets.compare_page import rows_of

        group = self.compared.groups[self._group]
        keys = rows_of(group.columns, group.comparisons)
        if keys:
            at = keys.index(self._row) if self._row in keys else -by
            self._row = keys[(at + by) % len(keys)]
            self.redraw()

    def do_row_back(self) -> None:
        """The distribution of the row before."""
        self.do_row(-1)

    def do_swap(self) -> None:
        """The next side becomes the baseline; the others follow in turn."""
        if len(self.references) > 1:
            self._read([*self.references[1:], self.references[0]])

    def do_copy_markdown(self) -> None:
        """What `llava-tui compare --markdown` prints."""
        if self.compared is None:
            return
        from llava_tui.report.comparison import as_markdown

        self.app.copy_to_clipboard(as_markdown(self.compared.comparisons))
        self.say("copied as Markdown")

    def say(self, text: str, style: str = "accent") -> None:
        """In the heading."""
        self._notice = text
        self.redraw()
