"""What each screen costs the terminal and the processor, and how soon the monitor is there.

    python benchmarks/terminal.py [--seconds 10] [--repeats 5] [--json]

Starts a live simulated run (no torch, no GPU), shows every screen on it under a pty, live and on a session that has
ended, at 120x40 and 80x24, and reports bytes a second and share of a core after a warm-up; nvitop's beside, where it is
installed and finds a driver. Then the time to the monitor's first paint, alternating with a bare Textual app that shows
one line, in one run. Times are of this machine: the ratio and the budgets are what counts. Exit code 1: a budget was
not kept.
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
import shutil
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
SCREENS = {
    "monitor": b"",
    "monitor, scrolled back": b"\x1b[D",
    "sessions": b"b",
    "new run": b"\x0e",
    "compare": b"c",
    "analysis": b"a",
    "help": b"?",
}
"""The keys that lead to each, from the monitor."""
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
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
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


def cost(
    argv: list[str], cols: int, rows: int, warm: float, seconds: float, keys: bytes = b""
) -> dict[str, float] | None:
    """Bytes a second and percent of a core after ``warm`` seconds and ``keys``, over ``seconds``; ``None`` where the
    program ended by itself."""
    with under_pty(argv, cols, rows) as program:
        program.read(warm / 2)
        with contextlib.suppress(OSError):
            os.write(program.fd, keys)
        program.read(warm / 2)
        process = psutil.Process(program.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        bytes_before, cpu_before, began = len(program.data), sum(process.cpu_times()[:2]), time.monotonic()
        program.read(seconds)
        took = time.monotonic() - began
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return {
            "bytes_a_second": (len(program.data) - bytes_before) / took,
            "cpu_percent": 100 * (sum(process.cpu_times()[:2]) - cpu_before) / took,
            "rss_mib": process.memory_info().rss / 2**20,
        }


def first_paints(session: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds from the start to the first paint of the bare app and of the monitor, and to the monitor's first
    figures; alternating. A start before them, of which nothing is kept, leaves the bytecode behind."""
    bare = [sys.executable, "-c", BARE]
    times: dict[str, list[float]] = {"bare": [], "monitor": [], "figures": []}
    for number in range(repeats + 1):
        if number == 1:
            times = {name: [] for name in times}
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


@contextlib.contextmanager
def ended_session(folder: Path, **plan: object) -> Iterator[Path]:
    """A simulated session that has ended."""
    path = store.create(folder, "ended")
    whole = Plan(
        pipeline="simulated",
        model="llava-1.5-7b",
        rounds=40,
        warmup=1,
        time_scale=0.0,
        **plan,  # type: ignore[arg-type]
    ).validated()
    launch.launch(path, whole.to_json(), ["benchmark"]).wait()
    yield path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="how long each cost is measured")
    parser.add_argument("--warm", type=float, default=8, help="how long it runs before")
    parser.add_argument("--repeats", type=int, default=5, help="first paints of each")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    results: dict[str, dict[str, float] | None] = {}

    def take(label: str, argv: list[str], cols: int, rows: int, keys: bytes = b"") -> None:
        results[label] = cost(argv, cols, rows, given.warm, given.seconds, keys)
        print(label, results[label], file=sys.stderr)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sessions"
        os.environ["LLAVA_TUI_CACHE"] = f"{name}/cache"  # what is read of sessions is kept away from the user's
        sizes = ((120, 40), (80, 24))
        with live_session(folder, frames=(4,), new_tokens=(128,)) as session:
            for title, keys in SCREENS.items():
                for cols, rows in sizes:
                    take(f"live: {title}, {cols}x{rows}", monitor(session), cols, rows, keys)
            for cols, rows in sizes:
                low = monitor(session, "--low-bandwidth")
                take(f"live: monitor --low-bandwidth, {cols}x{rows}", low, cols, rows)
            paints = first_paints(session, given.repeats)
        for title, plan in {
            "runs of 3 s": {"frames": (4,), "new_tokens": (384,)},
            "sweep, runs of 0.5 s": {"frames": (1, 4), "new_tokens": (64,)},
        }.items():
            with live_session(folder, **plan) as session:
                take(f"live: monitor, {title}, 120x40", monitor(session), 120, 40)
        with ended_session(folder, frames=(1, 4), new_tokens=(64,)) as session:
            for title, keys in SCREENS.items():
                for cols, rows in sizes:
                    take(f"at rest: {title}, {cols}x{rows}", monitor(session), cols, rows, keys)
            take("replay at 1x: monitor, 120x40", monitor(session, "--at", "0", "--speed", "1"), 120, 40)
        if nvitop := shutil.which("nvitop"):
            for cols, rows in sizes:
                take(f"nvitop, {cols}x{rows}", [nvitop], cols, rows)
    medians = {name: statistics.median(times) for name, times in paints.items()}
    ratio = medians["monitor"] / medians["bare"]
    kept = ratio <= FIRST_PAINT
    for label, row in results.items():
        kept &= (row is not None and within(label, row)) or label.startswith("nvitop")
    if given.json:
        print(json.dumps({"cost": results, "first_paint_s": paints, "ratio": ratio, "load": os.getloadavg()[0]}))
        return 0 if kept else 1
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; simulated runs at their own pace")
    print(f"{'':44} {'bytes/s':>8} {'budget':>7} {'CPU %':>6} {'budget':>7} {'RSS MiB':>8}")
    for label, row in results.items():
        if row is None:
            print(f"{label:44} ended by itself")
            continue
        budgets = ("", "") if label.startswith("nvitop") else (f"{budget(label):d}", f"{CPU_SHARE:.0f}")
        print(
            f"{label:44} {row['bytes_a_second']:8.0f} {budgets[0]:>7} {row['cpu_percent']:6.1f} {budgets[1]:>7} "
            f"{row['rss_mib']:8.0f}"
        )
    print(f"\nfirst paint, median of {given.repeats}, alternating (all values in s)")
    for name, times in paints.items():
        print(f"  {name:8} {medians[name]:.3f}   " + " ".join(f"{value:.3f}" for value in times))
    print(f"  monitor / bare = {ratio:.2f} (budget {FIRST_PAINT})")
    return 0 if kept else 1


def budget(label: str) -> int:
    """Bytes a second."""
    return LOW_BYTES_A_SECOND if "low-bandwidth" in label else BYTES_A_SECOND


def within(label: str, row: dict[str, float]) -> bool:
    """Whether both budgets are kept."""
    return row["bytes_a_second"] <= budget(label) and row["cpu_percent"] <= CPU_SHARE


if __name__ == "__main__":
    sys.exit(main())
