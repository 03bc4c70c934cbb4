"""Writes ``docs/keys.md`` from the table of actions.

python docs/make_keys.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from llava_tui.tui import actions

TARGET = Path(__file__).resolve().parent / "keys.md"
HEAD = """# Keys

Made from the table of actions by `python docs/make_keys.py`. The palette (`^p`) has every action by name; the mouse
chooses, scrolls and seeks where there is something to.

Other keys go into `keys.toml` in the user's config folder (on Linux `~/.config/llava-tui/keys.toml`), or the file that
`$LLAVA_TUI_KEYS` names, by the action's id:

```toml
[keys]
pause = "P"
quit = ["q", "ctrl+x"]
```
"""
TITLES = {
    "sessions": "Sessions",
    "new-run": "New run",
    "monitor": "Monitor",
    "compare": "Compare",
    "analysis": "Analysis",
}


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    table = actions.Actions()
    for screen in actions.SCREENS:
        lines = [f"## {TITLES[screen]}\n", "| keys | id | what it does |", "| --- | --- | --- |"]
        for entry in table.of(screen, actions.NEEDS):
            keys = " ".join(f"`{actions.key_name(key)}`" for key in entry.keys)
            if entry.key_matters:
                keys = f"`{actions.key_name(entry.keys[0])}` … `{actions.key_name(entry.keys[-1])}`"
            live = " (while it runs)" if entry.needs == "live" else ""
            lines.append(f"| {keys.replace('|', '&#124;')} | {entry.id} | {entry.help}{live} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> int:
    TARGET.write_text(text(), encoding="utf-8")
    print(TARGET.name)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
