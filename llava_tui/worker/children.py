"""Ranks that rank 0 starts itself, for who does not want to type torchrun: ``llava-tui run --processes N``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from llava_tui.session.text import safe_text
from llava_tui.worker.ranks import CUT_S, Place, RankLost, Together

MEETING = ".meeting"
"""In the session's folder until all have come."""


class Parent(Together):
    """Rank 0. The others end with it: their standard input is a pipe that it holds."""

    def __init__(self, folder: Path, world: int) -> None:
        super().__init__(Place(0, world, 0), folder / MEETING)
        self._folder = folder
        self._children: list[subprocess.Popen[bytes]] = []
        share_cores(world)

    def meet(self, session: str = "") -> str:
        """Starts the others first."""
        meeting = self._folder / MEETING
        try:
            for rank in range(1, self.place.world):
                command = ["-m", "llava_tui.worker", str(self._folder), "--rank", f"{rank}/{self.place.world}"]
                self._children.append(subprocess.Popen([sys.executable, "-P", *command], stdin=subprocess.PIPE))
            return super().meet(session)
        except OSError as error:
            raise RankLost(f"the other ranks cannot be started: {error.strerror}") from None
        finally:
            meeting.unlink(missing_ok=True)

    def _dead(self) -> str:
        for rank, child in enumerate(self._children, start=1):
            if (code := child.poll()) is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"rank {rank} {how}; see worker.log"
        return ""

    def part(self) -> None:
        super().part()
        until = time.monotonic() + CUT_S
        for child in self._children:
            if child.stdin is not None:
                with contextlib.suppress(OSError):
                    child.stdin.close()
            try:
                child.wait(max(until - time.monotonic(), 0.1) if not self._apart else 0.1)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def dismiss(self) -> None:
        for child in self._children:
            child.kill()

    def interrupt(self) -> None:
        for child in self._children:
            with contextlib.suppress(OSError):
                child.send_signal(signal.SIGTERM)


def share_cores(world: int) -> None:
    """Each rank's part of the cores, where nobody says otherwise: for libraries that are not loaded yet."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // world, 1)))


def attend(folder: Path, place: str) -> int:
    """One of the others; ``place`` is "rank/ranks". Returns the exit code."""
    from llava_tui.worker.main import follow

    rank, world = map(int, place.split("/"))
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    ranks = Together(Place(rank, world, rank), folder / MEETING)
    try:
        ranks.meet()
    except (RankLost, ImportError) as error:
        print(f"rank {rank}: {safe_text(str(error))}", file=sys.stderr)  # noqa: T201 - into worker.log
        return 3
    return follow(folder, ranks)


def _end_with_parent() -> None:
    # Not when the pipe is closed by a parent that waits for our last words: then we end by ourselves.
    while os.read(0, 4096):
        pass
    time.sleep(CUT_S if os.getppid() == _PARENT else 0)
    os.kill(os.getpid(), signal.SIGKILL)


_PARENT = os.getppid()
