"""What the monitor costs the terminal and the processor, and how soon it is there.

    python benchmarks/terminal.py [--seconds 20] [--repeats 5] [--json]

Starts a live simulated run (no torch, no GPU), watches it under a pty, and reports bytes a second and share of a core
after a warm-up, at 120x40 and 80x24; then the time to the first paint, alternating with a bare Textual app that shows
one line, in one run. Times are of this machine: the ratio and the budgets are what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from llava_tui.plan import Plan
from llava_tui.session import launch, store

BYTES_A_SECOND = 4000
CPU_SHARE = 5.0
FIRST_PAINT = 1.3
LOW_BYTES_A_SECOND = 1000

BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("a bare Textual app that shows this one line of some eighty cells and nothing else")
Bare().run()
"""
ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[@-Z\\-_])")
PAINTED = 40
"""Glyphs that make a first paint."""


@dataclass
class Watched:
    """A program under a pty, read to keep it from blocking."""

    pid: int
    fd: int
    started: float
    data: bytearray

    def read(self, seconds: float, until: bytes | None = None, glyphs: int = 0) -> float | None:
        """Reads for ``seconds``, or until ``until`` was written or ``glyphs`` were painted; when that was, from the
        start, in s."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                continue
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:
                return None
            now = time.monotonic() - self.started
            self.data += chunk
            if until is not None and until in ESCAPES.sub(b"", self.data):
                return now
            if glyphs and len(b"".join(ESCAPES.sub(b"", self.data).split())) >= glyphs:
                return now
        return None


@contextlib.contextmanager
def under_pty(argv: list[str], cols: int, rows: int) -> Iterator[Watched]:
    """The program in a terminal of that size; ended at the end."""
    started = time.monotonic()
    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(cols), "LINES": str(rows)}
        os.execv(argv[0], argv)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    try:
        yield Watched(pid, fd, started, bytearray())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


def monitor(session: Path, *options: str) -> list[str]:
    """The command that a user gives."""
    return [sys.executable, "-m", "llava_tui", "open", str(session), *options]


def cost(argv: list[str], cols: int, rows: int, warm: float, seconds: float) -> dict[str, float]:
    """Bytes a second and percent of a core after ``warm`` seconds, over ``seconds``."""
    with under_pty(argv, cols, rows) as program:
        program.read(warm)
        process = psutil.Process(program.pid)
        bytes_before, cpu_before, began = len(program.data), sum(process.cpu_times()[:2]), time.monotonic()
        program.read(seconds)
        took = time.monotonic() - began
        if process.status() == psutil.STATUS_ZOMBIE:
            raise SystemExit(f"the monitor ended: {ESCAPES.sub(b'', program.data)[-500:].decode(errors='replace')}")
        return {
            "bytes_a_second": (len(program.data) - bytes_before) / took,
            "cpu_percent": 100 * (sum(process.cpu_times()[:2]) - cpu_before) / took,
            "rss_mib": process.memory_info().rss / 2**20,
        }


def first_paints(session: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds from the start to the first paint of the bare app and of the monitor, and to the monitor's first
    figures; alternating."""
    bare = [sys.executable, "-c", BARE]
    times: dict[str, list[float]] = {"bare": [], "monitor": [], "figures": []}
    for _ in range(repeats):
        with under_pty(bare, 120, 40) as program:
            times["bare"].append(program.read(20, glyphs=PAINTED) or float("nan"))
        with under_pty(monitor(session), 120, 40) as program:
            times["monitor"].append(program.read(20, glyphs=PAINTED) or float("nan"))
            times["figures"].append(program.read(20, until=b"median") or float("nan"))
    return times


@contextlib.contextmanager
def live_session(folder: Path, **plan: object) -> Iterator[Path]:
    """A simulated run at its own pace; its worker is ended at the end."""
    path = store.create(folder, "benchmark")
    whole = Plan(pipeline="simulated", model="llava-1.5-7b", rounds=2000, warmup=1, **plan).validated()  # type: ignore[arg-type]
    worker = launch.launch(path, whole.to_json(), ["benchmark"])
    try:
        yield path
    finally:
        worker.kill()
        worker.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="how long each cost is measured")
    parser.add_argument("--warm", type=float, default=8, help="how long it runs before")
    parser.add_argument("--repeats", type=int, default=5, help="first paints of each")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plans = {
            "runs of 1 s": {"frames": (4,), "new_tokens": (128,)},
            "runs of 3 s": {"frames": (4,), "new_tokens": (384,)},
            "sweep, runs of 0.5 s": {"frames": (1, 4), "new_tokens": (64,)},
        }
        for title, plan in plans.items():
            with live_session(folder, **plan) as session:
                for cols, rows, options in ((120, 40, ()), (80, 24, ()), (120, 40, ("--low-bandwidth",))):
                    label = f"{title}, {cols}x{rows}{' ' + options[0] if options else ''}"
                    results[label] = cost(monitor(session, *options), cols, rows, given.warm, given.seconds)
        with live_session(folder, frames=(4,), new_tokens=(128,)) as session:
            time.sleep(given.warm)
            paints = first_paints(session, given.repeats)
    medians = {name: statistics.median(times) for name, times in paints.items()}
    ratio = medians["monitor"] / medians["bare"]
    if given.json:
        print(json.dumps({"cost": results, "first_paint_s": paints, "ratio": ratio, "load": os.getloadavg()[0]}))
        return
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; simulated live runs at their own pace")
    print(f"{'live run':50} {'bytes/s':>8} {'budget':>7} {'CPU %':>6} {'budget':>7} {'RSS MiB':>8}")
    for label, row in results.items():
        budget = LOW_BYTES_A_SECOND if "low" in label else BYTES_A_SECOND
        print(
            f"{label:50} {row['bytes_a_second']:8.0f} {budget:7} {row['cpu_percent']:6.1f} {CPU_SHARE:7.0f} "
            f"{row['rss_mib']:8.0f}"
        )
    print(f"\nfirst paint, median of {given.repeats}, alternating (all values in s)")
    for name, times in paints.items():
        print(f"  {name:8} {medians[name]:.3f}   " + " ".join(f"{value:.3f}" for value in times))
    print(f"  monitor / bare = {ratio:.2f} (budget {FIRST_PAINT})")


if __name__ == "__main__":
    main()
