"""What comes up over a screen: the keys, the question before something is stopped, the line that is typed into."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widgets import Input

from llava_tui.tui.actions import Action, key_names
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left, width_of, wrap
from llava_tui.tui.widgets.page import Page

HELP_WIDTH = 76
_KEYS = 13


def draw_help(actions: list[Action], width: int) -> list[Line]:
    """Under each group's heading an action after the other: its keys, what it does, on as many lines as that takes."""
    lines: list[Line] = []

    def entry(keys: str, help_: str) -> None:
        for index, piece in enumerate(wrap(help_, max(width - _KEYS - 1, 10))):
            lines.append([(left("" if index else "  " + keys, _KEYS), "key"), (piece, TEXT)])

    for group in dict.fromkeys(action.group for action in actions):
        lines += [[], [(" " + group, "strong")]] if lines else [[(" " + group, "strong")]]
        for action in actions:
            if action.group == group:
                entry(key_names(action), action.help)
    entry("^p", "The palette: every action by name, and the colour themes.")
    return lines


class HelpOverlay(ModalScreen[None]):
    """The keys that hold now."""

    CSS = """
    HelpOverlay { align: center middle; }
    HelpOverlay Page { width: 76; max-width: 100%; background: $surface; }
    HelpOverlay #help-more { width: 76; max-width: 100%; height: 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1,enter", "dismiss", "back", show=False),
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home", "to_end(False)", show=False),
        Binding("end", "to_end(True)", show=False),
    ]

    def __init__(self, actions: list[Action]) -> None:
        super().__init__()
        self._actions = actions

    def compose(self) -> ComposeResult:
        yield Page(id="help-keys")
        yield LineCanvas(id="help-more")

    def on_mount(self) -> None:
        """Draws once there is a size."""
        self._resize()

    def on_resize(self) -> None:
        """The window may have become narrower, or lower."""
        self._resize()

    def _resize(self) -> None:
        width, height = self.app.size
        lines = draw_help(self._actions, min(width, HELP_WIDTH))
        room = max(height - 1, 1)
        page = self.query_one(Page)
        page.styles.height = min(len(lines), room)
        self.query_one("#help-more").display = len(lines) > room
        self.call_after_refresh(self._draw, lines)

    def _draw(self, lines: list[Line]) -> None:
        self.query_one(Page).set_lines(lines)
        self._draw_more()

    def _draw_more(self) -> None:
        above, below = self.query_one(Page).more
        canvas = self.query_one("#help-more", LineCanvas)
        rest = "  ".join(f"{sign} {count} more" for sign, count in (("↑", above), ("↓", below)) if count)
        canvas.show([fit([("  " + rest, "dim")], canvas.size.width)])

    def action_move(self, by: int) -> None:
        """``by`` lines down, or up."""
        self.query_one(Page).move(by)
        self._draw_more()

    def action_page(self, by: int) -> None:
        """``by`` pages down, or up."""
        self.query_one(Page).page(by)
        self._draw_more()

    def action_to_end(self, last: bool) -> None:
        """To the last line, or the first."""
        self.query_one(Page).to_end(last)
        self._draw_more()


class Question(ModalScreen[str]):
    """One line at the bottom, answered by a key; escape answers "" – nothing is done."""

    CSS = """
    Question { align: center bottom; background: $background 0%; }
    Question LineCanvas { width: 100%; height: 1; }
    """

    def __init__(self, question: str, answers: list[tuple[str, str, str]]) -> None:
        """``answers``: (key, what it means, the result)."""
        super().__init__()
        self._question = question
        self._answers = answers
        for key, title, result in answers:
            self._bindings.bind(key, f"answer('{result}')", title, show=False)
        for key in ("escape", "n", "q"):
            if key not in {answer[0] for answer in answers}:
                self._bindings.bind(key, "answer('')", "no", show=False)

    def compose(self) -> ComposeResult:
        yield LineCanvas(id="question")

    def on_mount(self) -> None:
        """Draws once there is a size."""
        self.call_after_refresh(self._draw)

    def on_resize(self) -> None:
        """The line is as wide as the screen."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        line: Line = [(f" {self._question} ", "watermark")]
        for key, title, _ in [*self._answers, ("esc", "no", "")]:
            line += [("  ", TEXT), (key, "key"), (" " + title, TEXT)]
        canvas = self.query_one(LineCanvas)
        canvas.show([fit(line, canvas.size.width)])

    def action_answer(self, result: str) -> None:
        """Closes with the answer."""
        self.dismiss(result)


class Prompt(ModalScreen[str | None]):
    """One line at the bottom that is typed into: enter answers with the text, escape with ``None``. What is wrong with
    it is said on the line above, and it stays."""

    CSS = """
    Prompt { align: center bottom; background: $background 0%; }
    Prompt #said { width: 100%; height: 1; display: none; }
    Prompt #line { width: 100%; height: 1; }
    Prompt Input { width: 1fr; background: $background; background-tint: $background 0%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("ctrl+c", "leave", show=False, priority=True),
    ]

    def __init__(
        self,
        label: str,
        value: str = "",
        *,
        hint: str = "",
        check: Callable[[str], str] = lambda text: "",
        changed: Callable[[str], object] = lambda text: None,
    ) -> None:
        """``value`` is there to begin with; ``hint`` stands where nothing is typed yet. ``check`` says what is wrong
        with a text, "" for nothing. ``changed`` is told each text while it is being typed."""
        super().__init__()
        self._label: Line = [(f" {label} ", "watermark"), (" ", TEXT)]
        self._input = Input(value, placeholder=hint, compact=True, select_on_focus=False)
        self._input.cursor_blink = False  # a cursor that blinks writes twice a second
        self._check = check
        self._changed = changed

    def compose(self) -> ComposeResult:
        yield LineCanvas(id="said")
        with Horizontal(id="line"):
            yield LineCanvas(id="label")
            yield self._input

    def on_mount(self) -> None:
        """The label takes what it needs, the text has the rest."""
        label = self.query_one("#label", LineCanvas)
        label.styles.width = width_of(self._label)
        label.begin([self._label])
        self._input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """What was wrong is being mended."""
        self.query_one("#said").display = False
        self._changed(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Closes with the text, unless something is wrong with it."""
        if not (wrong := self._check(event.value)):
            self.dismiss(event.value)
            return
        said = self.query_one("#said", LineCanvas)
        said.begin([fit([(" " + wrong, "bad")], self.app.size.width)])
        said.display = True
        said.refresh()

    def action_leave(self) -> None:
        """Closes without an answer."""
        self.dismiss(None)
