"""What comes up over a screen: the keys, and the question before something is stopped."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from llava_tui.tui.actions import Action, key_names
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import TEXT, Line, fit, left


def draw_help(actions: list[Action], width: int) -> list[Line]:
    """Under each group's heading a line an action: its keys, what it does."""
    lines: list[Line] = []
    for group in dict.fromkeys(action.group for action in actions):
        lines += [[], [(" " + group, "strong")]] if lines else [[(" " + group, "strong")]]
        for action in actions:
            if action.group == group:
                lines.append([(left("  " + key_names(action), 13), "key"), (action.help, TEXT)])
    lines.append([(left("  ^p", 13), "key"), ("The palette: every action by name, and the colour themes.", TEXT)])
    return lines


class HelpOverlay(ModalScreen[None]):
    """The keys that hold now."""

    CSS = """
    HelpOverlay { align: center middle; }
    HelpOverlay LineCanvas { width: 76; max-width: 100%; height: auto; max-height: 100%; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "back", show=False)]

    def __init__(self, actions: list[Action]) -> None:
        super().__init__()
        self._actions = actions

    def compose(self) -> ComposeResult:
        yield LineCanvas(id="help-keys")

    def on_mount(self) -> None:
        """Draws once there is a size."""
        lines = draw_help(self._actions, 76)
        self.query_one(LineCanvas).styles.height = len(lines)
        self.call_after_refresh(self._draw)

    def on_resize(self) -> None:
        """The window may have become narrower."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        canvas = self.query_one(LineCanvas)
        canvas.show([fit(line, canvas.size.width) for line in draw_help(self._actions, 76)])


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
