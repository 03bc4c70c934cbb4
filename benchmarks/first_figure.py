"""How soon `llava-tui demo` shows its first live figure, from nothing: the model is built, the clip synthesised.

    python benchmarks/first_figure.py [--limit 20]

Runs the command under a pty with empty folders, and waits for the first duration of a stage. Exits 1 above the limit.
The demo is ended afterwards. No network and no GPU are used.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

from terminal import under_pty

from llava_tui.session import control, store

FIGURE = b" ms "


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=20, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"LLAVA_TUI_CACHE": f"{name}/cache", "LLAVA_TUI_SESSIONS": f"{name}/sessions"}
        with under_pty([sys.executable, "-m", "llava_tui", "demo"], 120, 40) as program:
            took = program.read(120, until=FIGURE)
            session = store.find(store.sessions_folder(), "@latest")
            control.send(session, "stop-now")
            while store.status(session) in store.LIVE:
                program.read(0.2)
    print(f"first live figure after {took:.1f} s (limit {given.limit:g} s)" if took else "no figure within 120 s")
    return 0 if took and took <= given.limit else 1


if __name__ == "__main__":
    sys.exit(main())
