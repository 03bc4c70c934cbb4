"""What a worker notices of its viewers' deaths: nothing.

    python benchmarks/viewers.py [--kills 20] [--seed 0]

One live simulated run, watched by the monitor under a pty again and again; each time the terminal is hung up or the
monitor gets SIGHUP, SIGTERM, SIGINT or SIGKILL at a random moment, from its very start to well after its first paint.
Passes when each monitor ends within 3 s, none survives, and the worker goes on: same process, same session, further
runs, no damaged line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import random
import select
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from llava_tui.plan import Plan
from llava_tui.session import launch, store
from llava_tui.session.timeline import Timeline

WAYS = ("hang up", "SIGHUP", "SIGTERM", "SIGINT", "SIGKILL")
PATIENCE_S = 3.0


def kill_one(session: Path, way: str, moment: float) -> float | None:
    """Seconds from the kill to the monitor's end; ``None`` if it was still there after :data:`PATIENCE_S`."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        os.execv(sys.executable, [sys.executable, "-m", "llava_tui", "open", str(session)])
    until = time.monotonic() + moment
    while (left := until - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            os.read(fd, 65536)
    began = time.monotonic()
    if way == "hang up":
        os.close(fd)
        fd = -1
    else:
        os.kill(pid, getattr(signal, way))
    try:
        while time.monotonic() - began < PATIENCE_S:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return time.monotonic() - began
            if fd >= 0 and select.select([fd], [], [], 0.01)[0]:
                with contextlib.suppress(OSError):
                    os.read(fd, 65536)
            elif fd < 0:
                time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None
    finally:
        if fd >= 0:
            os.close(fd)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random_ = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLAVA_TUI_CACHE"] = f"{name}/cache"  # away from the user's
        path = store.create(Path(name) / "sessions", "viewers")
        plan = Plan(pipeline="simulated", model="llava-1.5-7b", frames=(4,), rounds=100_000).validated()
        worker = launch.launch(path, plan.to_json(), ["benchmark"])
        try:
            timeline = Timeline.open(path)
            ends: list[tuple[str, float, float | None]] = []
            for kill in range(given.kills):
                way, moment = WAYS[kill % len(WAYS)], random_.uniform(0.05, 4)
                before = timeline.runs.n
                ends.append((way, moment, kill_one(path, way, moment)))
                timeline.poll()
                assert worker.poll() is None, f"the worker ended with the monitor ({way} after {moment:.2f} s)"
                print(
                    f"{way:8} after {moment:4.2f} s: gone in {ends[-1][2]}, {timeline.runs.n - before} runs meanwhile"
                )
            after = timeline.runs.n
            deadline = time.monotonic() + 10
            while timeline.runs.n < after + 2 and time.monotonic() < deadline:
                timeline.poll()
                time.sleep(0.05)
            goes_on = timeline.runs.n >= after + 2 and store.status(path) == "running" and not timeline.corrupt
            survivors = [
                process.pid
                for process in psutil.Process().children(recursive=True)
                if process.pid != worker.pid and process.status() != psutil.STATUS_ZOMBIE
            ]
        finally:
            worker.kill()
            worker.wait()
    times = [took for _, _, took in ends if took is not None]
    print(
        f"{len(times)} of {len(ends)} monitors ended within {PATIENCE_S:g} s, median {statistics.median(times):.2f} s,"
    )
    print(f"slowest {max(times):.2f} s; survivors: {survivors or 'none'}; the worker goes on: {goes_on}")
    return 0 if len(times) == len(ends) and not survivors and goes_on else 1


if __name__ == "__main__":
    sys.exit(main())
