"""What every screen has: the actions of the table, a footer that names them, and the way to other screens."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, cast

from textual.screen import Screen

from llava_tui.tui import actions
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line, fit

if TYPE_CHECKING:
    from llava_tui.tui.app import LlavaTui


class ActionScreen(Screen[None]):
    """A screen whose keys are the table's. A subclass says which one it is with ``NAME``, binds
    ``actions.bindings(NAME)``, has a ``do_<id>`` for each of its actions that the app does not do, and yields a
    ``LineCanvas(id="footer")``."""

    NAME: ClassVar[actions.ScreenName]
    AUTO_FOCUS = None

    @property
    def tui(self) -> LlavaTui:
        """The app, by its own type."""
        return cast("LlavaTui", self.app)

    def conditions(self) -> Collection[str]:
        """Which needs of actions are met."""
        return ()

    def renamed(self) -> dict[str, str]:
        """Titles that are others at the moment, by the action's id."""
        return {}

    def offered(self) -> list[actions.Action]:
        """What can be done now."""
        return self.tui.actions.of(self.NAME, self.conditions())

    def say(self, text: str, style: str = "accent") -> None:
        """One line, where the screen has a place for it."""

    def _withheld(self, action: object) -> actions.Action | None:
        """That action, if it is not offered because nothing can be changed from here."""
        withheld = self.tui.actions.withheld(self.NAME, self.conditions())
        return next((entry for entry in withheld if entry.id == action), None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys of actions that are not offered do nothing; that it is read-only, is said."""
        if action == "act" and parameters:
            offered = any(entry.id == parameters[0] for entry in self.offered())
            return offered or self._withheld(parameters[0]) is not None
        return True

    def action_act(self, action: str, *key: str) -> None:
        """Does what the table says under that id; ``key`` is given where it matters."""
        if (entry := self._withheld(action)) is not None:
            self.say(f"{entry.title.rstrip('…')}: read-only, nothing can be changed from here", "warn")
            return
        for one in (self, self.app):
            if do := getattr(one, "do_" + action, None):
                do(*key)
                return
        raise AssertionError(f"nobody does {action}")

    def footer_line(self, width: int) -> Line:
        """The keys that matter most, as far as they fit."""
        keys = actions.footer_keys(self.offered(), max(width - 2, 0), self.renamed())
        line: Line = [(" ", "text")]
        for index, (key, title) in enumerate(keys):
            line += [("  " if index else "", "text"), (key, "key"), (" " + title, "dim")]
        return fit(line, width)

    def draw_footer(self) -> None:
        """Again, when what is offered has changed."""
        canvas = self.query_one("#footer", LineCanvas)
        canvas.show([self.footer_line(canvas.size.width)])
