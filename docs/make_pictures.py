"""Draws the pictures of the documentation from the example sessions, so that they never go stale.

python docs/make_pictures.py
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from textual.pilot import Pilot
from textual.screen import Screen

from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.analysis import AnalysisScreen
from llava_tui.tui.screens.compare import CompareScreen

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SESSIONS = Path("sessions")
"""As the screens name it: a picture is the same wherever the repository lies."""
DEMO, SIMULATED = "example-demo-cpu", "example-simulated-h100"
SIZES = ((120, 40), (80, 24))
PATIENCE_S = 30.0


class Picture(NamedTuple):
    """One screen, and the keys that are pressed on it before it is drawn."""

    name: str
    options: Callable[[], dict[str, Any]]
    """Of the app."""
    there: str
    """Text that the screen shows when it is ready."""
    keys: tuple[str, ...] = ()
    go: Callable[[LlavaTui], None] = lambda app: None
    """How the screen is come to, where not at once."""


def _first(make: Callable[[], Screen[Any]]) -> Callable[[], dict[str, Any]]:
    return lambda: {"folder": SESSIONS, "first": make}


PLAN: dict[str, Any] = {
    "pipeline": "simulated",
    "model": "llava-1.5-7b",
    "frames": [1, 2, 4],
    "new_tokens": [64],
    "simulated_gpu": "h100",
}
SCREENS = (
    Picture("sessions", lambda: {"folder": SESSIONS}, "3 generate"),
    Picture("new-run", lambda: {"folder": SESSIONS}, "", go=lambda app: app.open_new_run(PLAN)),
    Picture("monitor-demo-cpu", lambda: {"path": SESSIONS / DEMO}, "unaccounted"),
    Picture("monitor-simulated-h100", lambda: {"path": SESSIONS / SIMULATED}, "unaccounted"),
    Picture("replay", lambda: {"path": SESSIONS / SIMULATED}, "unaccounted", ("N", "z", "z")),
    Picture("compare", _first(lambda: CompareScreen(SESSIONS, [SIMULATED])), "whole run"),
    Picture("analysis", _first(lambda: AnalysisScreen(SESSIONS / SIMULATED, SESSIONS, "")), "trust"),
    Picture("help", lambda: {"path": SESSIONS / SIMULATED}, "unaccounted", ("question_mark",)),
)


def shown(app: LlavaTui) -> str:
    """The text on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def settled(app: LlavaTui, pilot: Pilot[None], text: str) -> None:
    """Until the screen shows ``text`` and has stopped changing."""
    before, still = "", 0
    for _ in range(int(PATIENCE_S / 0.05)):
        await pilot.pause(0.05)
        now = shown(app)
        still = still + 1 if now == before and text in now and "…  …" not in now else 0
        before = now
        if still >= 20:
            return
    raise TimeoutError(f"{text!r} was not shown:\n{before}")


async def draw(picture: Picture, columns: int, lines: int) -> str:
    """The screen as an SVG."""
    app = LlavaTui(**picture.options())
    async with app.run_test(size=(columns, lines)) as pilot:
        await settled(app, pilot, picture.there if lines > 30 else "")
        picture.go(app)
        await settled(app, pilot, "")
        for key in picture.keys:
            await pilot.press(key)
        await settled(app, pilot, "")
        svg = app.export_screenshot(title="llava-tui")
    # Rich names its classes by chance: the same picture is to be the same file.
    return re.sub(r"terminal-\d+", f"terminal-{picture.name}-{columns}", svg)


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # The examples alone: whoever draws them has sessions of their own.
        for example in (DEMO, SIMULATED):
            shutil.copytree(ROOT / SESSIONS / example, Path(folder) / SESSIONS / example)
        os.environ["LLAVA_TUI_CACHE"] = os.environ["LLAVA_TUI_DATA"] = f"{folder}/kept"
        os.chdir(folder)
        for picture in SCREENS:
            for columns, lines in SIZES:
                target = PICTURES / f"{picture.name}-{columns}x{lines}.svg"
                target.write_text(asyncio.run(draw(picture, columns, lines)), encoding="utf-8")
                print(target.relative_to(ROOT))  # noqa: T201
        os.chdir(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
