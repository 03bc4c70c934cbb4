"""A few whole screens, as text: what a change does to them is seen in its diff.

``LLAVA_TUI_REDRAW=1 pytest tests/tui/test_pictures.py`` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava_tui.tui import theme
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.analysis import AnalysisScreen
from llava_tui.tui.screens.compare import CompareScreen

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "sessions"
PICTURES = ROOT / "tests" / "fixtures" / "pictures"
DEMO, SIMULATED = EXAMPLES / "example-demo-cpu", EXAMPLES / "example-simulated-h100"

SCREENS: dict[str, Callable[[], dict[str, Any]]] = {
    "monitor-demo": lambda: {"path": DEMO},
    "monitor-simulated": lambda: {"path": SIMULATED},
    "monitor-ascii": lambda: {"path": SIMULATED, "ascii": True},
    "compare": lambda: {"folder": EXAMPLES, "first": lambda: CompareScreen(EXAMPLES, [SIMULATED.name])},
    "analysis": lambda: {"folder": EXAMPLES, "first": lambda: AnalysisScreen(SIMULATED, EXAMPLES, "")},
}


def text(app: LlavaTui) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


def ready(app: LlavaTui) -> bool:
    """Whether the session has been read and its page drawn."""
    return any(word in text(app) for word in ("unaccounted", "whole run", "where the time goes"))


@pytest.mark.parametrize("size", [(120, 40), (80, 24)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCREENS)
async def test_a_screen_looks_as_it_did(
    name: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path))
    monkeypatch.delenv("NO_COLOR", raising=False)
    app = LlavaTui(**SCREENS[name]())
    async with app.run_test(size=size) as pilot:
        for _ in range(1000):
            await pilot.pause(0.02)
            if ready(app):
                break
        before = ""
        for _ in range(200):
            await pilot.pause(0.05)
            now = text(app)
            if now == before:
                break
            before = now
    target = PICTURES / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("LLAVA_TUI_REDRAW"):
        target.write_text(now, encoding="utf-8")
    assert now == target.read_text(encoding="utf-8")


async def test_no_theme_changes_what_is_said() -> None:
    shown = []
    for name in (theme.DARK, theme.LIGHT, theme.TERMINAL):
        app = LlavaTui(SIMULATED)
        async with app.run_test(size=(100, 30)) as pilot:
            app.theme = name
            for _ in range(1000):
                await pilot.pause(0.02)
                if ready(app):
                    break
            await pilot.pause(0.3)
            shown.append(text(app))
    assert shown[0] == shown[1] == shown[2]
