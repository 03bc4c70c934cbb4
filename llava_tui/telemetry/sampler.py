"""The process that watches the machine while the worker measures: ``python -m llava_tui.telemetry.sampler``.

A process of its own, so that nothing of it takes the measured process's interpreter lock or its time. It appends to
``telemetry.jsonl`` and ends with the worker: when its standard input, a pipe that the worker holds, ends, or when the
worker's PID is gone.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil

from llava_tui.readings import TelemetryEvent
from llava_tui.session.writer import StreamWriter
from llava_tui.telemetry.host import Host
from llava_tui.telemetry.nvml import Nvml

HZ_MAX = 200.0
HOST_HZ_MAX = 10.0
"""The kernel counts CPU time in ticks of 10 ms; read more often, the figures would be noise."""
GRACE_S = 2.0
"""How long the loop has to end by itself; a driver that hangs would hold it for ever."""


def next_deadline(start: int, period: int, now: int) -> int:
    """The first instant after ``now`` on the grid ``start + k · period`` (ns): no drift, and no burst after a stall."""
    return start + ((now - start) // period + 1) * period


def _wait_for_end(pid: int) -> None:
    """Returns when standard input ends or process ``pid`` is gone, unreaped or not."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # not Linux, or a kernel before 5.3: ask once a second
        process = -1
    watched = [0] if process < 0 else [0, process]
    while True:
        ready, _, _ = select.select(watched, [], [], 1.0 if process < 0 else None)
        if process in ready or (0 in ready and not os.read(0, 4096)):
            return
        if process < 0:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return
            except psutil.NoSuchProcess:
                return


def worker_end(pid: int) -> threading.Event:
    """An event that is set when the worker ends; should the loop not follow (a driver that hangs), the process is
    ended all the same."""
    ended = threading.Event()

    def watch() -> None:
        try:
            _wait_for_end(pid)
        finally:
            ended.set()
            time.sleep(GRACE_S)
            os._exit(0)

    threading.Thread(target=watch, name="worker's end", daemon=True).start()
    return ended


def run(session: Path, hz: float, pid: int, shift: int = 0) -> None:
    """Samples into ``session``'s ``telemetry.jsonl`` at ``hz`` until worker ``pid`` ends. ``shift`` (ns) is what the
    session is ahead of CLOCK_MONOTONIC.

    Raises ``OSError`` when the stream cannot be written.
    """
    ended = worker_end(pid)
    writer = StreamWriter(session / "telemetry.jsonl")
    host, nvml = Host(pid), Nvml(pid)

    def write(event: TelemetryEvent) -> None:
        writer.write(msgspec.structs.replace(event, t=event.t + shift) if shift else event)

    write(host.sample(time.monotonic_ns()))  # first, for a driver may take seconds to wake
    for event in nvml.start():
        write(event)
    period = round(1e9 / hz)
    host_period = max(period, round(1e9 / HOST_HZ_MAX))
    start = host_due = time.monotonic_ns()
    while not ended.is_set():
        for event in nvml.sample():
            write(event)
        t = time.monotonic_ns()
        if t >= host_due:
            write(host.sample(t))
            host_due = next_deadline(start, host_period, t)
        nvml.read_slow()
        now = time.monotonic_ns()
        ended.wait((next_deadline(start, period, now) - now) / 1e9)
    writer.close()


def main(argv: list[str] | None = None) -> int:
    """Entry; returns the exit code: 0, or 1 when the stream cannot be written."""
    # A closed terminal or Ctrl-C is none of its business. SIGTERM keeps the kernel's default, which ends it even
    # inside a driver's call; every line is one write, so that nothing has to be put in order first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parser = argparse.ArgumentParser(prog="python -m llava_tui.telemetry.sampler", description="Sample GPUs and host.")
    parser.add_argument("session", type=Path, help="the session's folder")
    parser.add_argument("--hz", type=float, default=10.0, help="samples a second (default: 10)")
    parser.add_argument("--pid", type=int, required=True, help="the worker's process; the sampler ends with it")
    parser.add_argument("--shift", type=int, default=0, help="ns to add to every time")
    options = parser.parse_args(argv)
    if not 0 < options.hz <= HZ_MAX:
        parser.error(f"--hz {options.hz:g}: give a rate above 0 and up to {HZ_MAX:g}")
    try:
        run(options.session, options.hz, options.pid, options.shift)
    except OSError as error:
        try:
            print(f"sampler: telemetry ends here: {error}", file=sys.stderr)  # noqa: T201 - worker.log
        except OSError:
            pass  # the log is on the same full disk
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
