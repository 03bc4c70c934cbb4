"""The fields of a form: a line of text each, or a choice that is turned with the arrow keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input

from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left
from llava_tui.tui.widgets.page import Page

if TYPE_CHECKING:
    from llava_tui.tui.form_fields import Field

LABEL = 15


class FieldChanged(Message):
    """What is in a field is another text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__()
        self.name = name
        self.text = text


class Suggested(Suggester):
    """Completes what is typed from names that are known, and the last word as a path."""

    def __init__(self, names: Sequence[str], paths: bool) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.names = list(names)
        self._paths = paths

    async def get_suggestion(self, value: str) -> str | None:
        """``value`` and what may follow."""
        if not value:
            return None
        known = next((name for name in self.names if name.startswith(value) and name != value), None)
        return known or (_path(value) if self._paths else None)


def _path(value: str) -> str | None:
    """The first entry of the folder that is being typed."""
    word = value.rpartition(" ")[2]
    folder, slash, begun = word.rpartition("/")
    if not word or (not slash and not begun):
        return None
    try:
        with os.scandir(os.path.expanduser((folder + slash) or ".")) as entries:  # noqa: PTH111
            found = min(
                (entry.name + "/" * entry.is_dir() for entry in entries if _fits(entry.name, begun)), default=None
            )
    except OSError:
        return None
    return value + found[len(begun) :] if found is not None else None


def _fits(name: str, begun: str) -> bool:
    hidden = name.startswith(".") and not begun
    return name.startswith(begun) and name.isprintable() and " " not in name and not hidden


class TextField(Input):
    """A line that is typed into."""

    def __init__(self, field: Field, text: str) -> None:
        paths = field.name in ("inputs", "model", "dataset", "offload")
        self.known = Suggested(field.choices, paths)
        super().__init__(text, compact=True, select_on_focus=False, suggester=self.known, id=f"field-{field.name}")
        self.field = field
        self.cursor_blink = False  # a cursor that blinks writes twice a second


class ChoiceField(LineCanvas, can_focus=True):
    """One of a few values: ‹ simulated ›."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", show=False),
        Binding("right,space,enter", "turn(1)", show=False),
    ]

    def __init__(self, field: Field, text: str) -> None:
        super().__init__(id=f"field-{field.name}")
        self.field = field
        self.value = text
        self.begin([self._line()])

    def _line(self) -> Line:
        style = "strong" if self.has_focus else TEXT
        return [("‹ ", "dim"), (self.value, style), (" ›", "dim")]

    def draw(self) -> None:
        """Again, when the value or the focus has changed."""
        self.show([fit(self._line(), self.size.width)])

    def action_turn(self, by: int) -> None:
        """The next choice, or the one before."""
        choices = self.field.choices
        at = choices.index(self.value) if self.value in choices else -1
        self.value = choices[(at + by) % len(choices)]
        self.draw()
        self.post_message(FieldChanged(self.field.name, self.value))

    def on_focus(self) -> None:
        """Is seen."""
        self.draw()

    def on_blur(self) -> None:
        """Is seen."""
        self.draw()

    def on_resize(self) -> None:
        """Draws once there is a size."""
        self.draw()

    def on_click(self, event: events.Click) -> None:
        """The next."""
        event.stop()
        self.action_turn(1)


FieldWidget = TextField | ChoiceField


class Fields(VerticalScroll, can_focus=False, inherit_bindings=False):
    """A column of fields beside their names."""

    DEFAULT_CSS = """
    Fields { height: 1fr; width: 1fr; scrollbar-size-vertical: 1; }
    Fields #names { width: 15; height: auto; }
    Fields #inputs { width: 1fr; height: auto; }
    Fields Horizontal { height: auto; }
    Fields Input { width: 1fr; background: $background; background-tint: $background 0%; }
    Fields Input:focus { background: $surface; }
    """

    def __init__(self, fields: Sequence[Field], texts: dict[str, str]) -> None:
        super().__init__(id="fields")
        self.all: dict[str, FieldWidget] = {
            field.name: ChoiceField(field, texts[field.name])
            if field.kind == "choice"
            else TextField(field, texts[field.name])
            for field in fields
        }
        self._shown: list[str] = list(self.all)
        self._wrong = ""
        self._names = LineCanvas(id="names")

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self._names
            with Vertical(id="inputs"):
                yield from self.all.values()

    def on_mount(self) -> None:
        """The names beside them."""
        self._arrange()

    def show_only(self, names: Sequence[str]) -> None:
        """Hides the others."""
        if list(names) != self._shown:
            self._shown = list(names)
            self._arrange()

    def _arrange(self) -> None:
        """A line is left for the heading of each group but the first, which the screen's own is above."""
        before = ""
        for name, widget in self.all.items():
            widget.display = name in self._shown
            group = widget.field.group
            widget.styles.margin = (int(widget.display and before not in ("", group)), 0, 0, 0)
            before = group if widget.display else before
        self._draw()

    def mark_wrong(self, name: str) -> None:
        """The field that something is wrong with; "" for none."""
        self._wrong = name
        self._draw()

    def focus_field(self, name: str) -> None:
        """Puts the cursor there."""
        if name in self._shown:
            self.all[name].focus()

    def step(self, by: int) -> None:
        """To the field that many further on, as far as there are any."""
        here = self.focused_name()
        at = self._shown.index(here) if here in self._shown else 0
        self.focus_field(self._shown[min(max(at + by, 0), len(self._shown) - 1)])

    def focused_name(self) -> str:
        """The field that the cursor is in."""
        return next((name for name, widget in self.all.items() if widget.has_focus), "")

    def _draw(self) -> None:
        names = self._names
        here = self.focused_name()
        lines: list[Line] = []
        group = ""
        for name in self._shown:
            field = self.all[name].field
            if group not in ("", field.group):
                rule = "─" * max(LABEL - 4 - len(field.group), 0)
                lines.append([("─ ", "track"), (field.group, "accent"), (f" {rule} ", "track")])
            group = field.group
            mark = "✗" if name == self._wrong else "▸" if name == here else " "
            style = "bad" if name == self._wrong else "strong" if name == here else "dim"
            lines.append([(left(f"{mark} {field.title}", LABEL), style)])
        names.styles.height = len(lines)
        if names.size.height == len(lines):
            names.show(lines)
        else:
            names.begin(lines)
            names.refresh(layout=True)

    def on_descendant_focus(self) -> None:
        """The name of the field that is edited is brighter."""
        self._draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """As of a choice."""
        event.stop()
        if isinstance(event.input, TextField):
            self.post_message(FieldChanged(event.input.field.name, event.value))


class Picker(ModalScreen[str | None]):
    """A list to pick from: enter answers with the value, escape with ``None``; where several can be, space marks."""

    CSS = """
    Picker { align: center middle; }
    Picker #box { width: 90%; max-width: 100; height: auto; max-height: 90%; background: $surface; }
    Picker LineCanvas { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move(-10)", show=False),
        Binding("pagedown", "move(10)", show=False),
        Binding("space", "mark", show=False),
        Binding("enter", "pick", show=False),
        Binding("escape,ctrl+c", "leave", show=False),
    ]

    def __init__(self, title: str, entries: Sequence[tuple[str, str]], now: str, *, several: bool = False) -> None:
        """``entries``: the value, and what is said of it; ``now``: the value there is, or several with commas."""
        super().__init__()
        self._title = title
        self._entries = list(entries)
        self._several = several
        self._marked = [value for value in now.split(",") if several and "," in now and value in dict(entries)]
        self._start = next((at for at, (value, _) in enumerate(entries) if value == now.split(",")[0]), 0)

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield LineCanvas(id="picker-title")
            yield Page(id="picker", choosing=True)

    def on_mount(self) -> None:
        """Draws once there is a size."""
        self.query_one(Page).styles.height = min(len(self._entries), max(self.app.size.height - 6, 1))
        self.call_after_refresh(self._draw, True)

    def on_resize(self) -> None:
        """Another width."""
        self.call_after_refresh(self._draw)

    def _draw(self, first: bool = False) -> None:
        title, page = self.query_one("#picker-title", LineCanvas), self.query_one(Page)
        keys = "space marks, enter picks, esc leaves" if self._several else "enter picks, esc leaves"
        title.show([fit([(f" {self._title} ", "watermark"), ("  " + keys, "dim")], title.size.width)])
        if first:
            page.cursor = self._start
        width = max((len(value) for value, _ in self._entries), default=0)
        lines: list[Line] = []
        for at, (value, said) in enumerate(self._entries):
            here = at == page.cursor
            mark = "✓" if value in self._marked else " "
            lines.append(
                [
                    ("▸" if here else " ", "live"),
                    (mark + " ", "accent"),
                    (left(value, min(width, 44)), "strong" if here else TEXT),
                    ("  " + said, "dim"),
                ]
            )
        page.set_lines(lines)
        page.choose(page.cursor)

    def on_page_chosen(self, event: Page.Chosen) -> None:
        """The cursor is elsewhere; a click picks."""
        self._draw()
        if event.clicked:
            self.action_pick()

    def action_move(self, by: int) -> None:
        """That many lines on."""
        self.query_one(Page).move(by)

    def action_mark(self) -> None:
        """Marks, where several can be."""
        if self._several:
            value = self._entries[self.query_one(Page).cursor][0]
            self._marked = [one for one in self._marked if one != value] + [value] * (value not in self._marked)
            self._draw()

    def action_pick(self) -> None:
        """What is marked, in the list's order, else what the cursor is on."""
        here = self._entries[self.query_one(Page).cursor][0]
        marked = [value for value, _ in self._entries if value in self._marked]
        self.dismiss(",".join(marked) if len(marked) > 1 else here)

    def action_leave(self) -> None:
        """Nothing."""
        self.dismiss(None)
