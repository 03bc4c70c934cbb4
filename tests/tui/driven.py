"""A screen of the app driven by keys, in a terminal that is not there, and what it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from textual.pilot import Pilot

from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.canvas import LineCanvas

AnyScreen = TypeVar("AnyScreen", bound=ActionScreen)


class Driven(Generic[AnyScreen]):
    """A running app, of which one screen is looked at."""

    KIND: type[AnyScreen]

    def __init__(self, app: LlavaTui, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def screen(self) -> AnyScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, self.KIND))

    def part(self, name: str) -> str:
        """The lines of one widget, without the blanks behind them."""
        return "\n".join(line.rstrip() for line in self.screen.query_one("#" + name, LineCanvas).drawn)

    def everything(self) -> str:
        """What the terminal would show, overlays included."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async def until(self, true: Callable[[], bool], seconds: float = 30) -> None:
        for _ in range(int(seconds * 50)):
            if true():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"never happened; the screen:\n{self.everything()}")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
