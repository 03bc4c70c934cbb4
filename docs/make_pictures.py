"""Draws the pictures of the documentation from the example sessions, so that they never go stale.

python docs/make_pictures.py
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from llava_tui.tui.app import LlavaTui

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SESSIONS = {"demo-cpu": "example-demo-cpu", "simulated-h100": "example-simulated-h100"}
SIZES = ((120, 40), (80, 24))


async def draw(session: Path, target: Path, columns: int, lines: int) -> None:
    """The monitor on an ended session, as an SVG."""
    app = LlavaTui(session)
    async with app.run_test(size=(columns, lines)) as pilot:
        await pilot.pause()
        while getattr(app.screen, "timeline", None) is None:
            await pilot.pause(0.05)
        await pilot.pause(0.2)
        target.write_text(app.export_screenshot(title="llava-tui"), encoding="utf-8")


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    for name, session in SESSIONS.items():
        for columns, lines in SIZES:
            target = PICTURES / f"monitor-{name}-{columns}x{lines}.svg"
            asyncio.run(draw(ROOT / "sessions" / session, target, columns, lines))
            print(target.relative_to(ROOT))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
