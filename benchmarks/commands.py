"""What a command takes as one types it: real processes on real folders, with an empty shelf and with a filled one.

Not a benchmark by itself: ``verdicts.py`` and ``analysis.py`` time ``compare`` and ``analyze`` with it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPEATS = 3
SETTLE_S = 1.1
"""A session that was written less than a second ago is not kept."""
READING = """
import sys, time
from pathlib import Path
from llava_tui.session import several
begun = time.perf_counter()
several.read([Path(path) for path in sys.argv[1:]])
print(time.perf_counter() - begun)
"""


@dataclass(frozen=True, slots=True)
class Took:
    """Medians, s."""

    wall: float
    cpu: float
    """Of the process and of those that it started: others may share the cores, which only ``wall`` suffers from."""
    reading: float
    """Wall time of reading the sessions alone, in a process of its own."""

    def __str__(self) -> str:
        return f"{self.wall:5.2f} s  (CPU {self.cpu:.2f} s; reading {100 * self.reading / self.wall:.0f} %)"


def timed(sessions: Path, verb: str, names: Sequence[str]) -> tuple[Took, Took]:
    """``llava-tui VERB NAMES`` on a folder of sessions: the first opening, with an empty shelf, and the second."""
    time.sleep(SETTLE_S)
    shelf = sessions / ".cache"
    command = [sys.executable, "-P", "-m", "llava_tui", "--sessions", str(sessions), verb, *names]
    reading = [sys.executable, "-c", READING, *(str(sessions / name) for name in names)]
    found: list[list[list[float]]] = [[], []]
    for _ in range(REPEATS):
        shutil.rmtree(shelf, ignore_errors=True)
        commands = [_run(command, shelf) for _ in range(2)]
        shutil.rmtree(shelf, ignore_errors=True)
        readings = [_run(reading, shelf) for _ in range(2)]
        for opening, (wall, cpu, _), (*_, said) in zip(found, commands, readings, strict=True):
            opening.append([wall, cpu, float(said)])
    first, second = (Took(*map(statistics.median, zip(*opening, strict=True))) for opening in found)
    return first, second


def _run(command: Sequence[str], shelf: Path) -> tuple[float, float, str]:
    """Wall and CPU time, s, and what it printed."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"LLAVA_TUI_CACHE": str(shelf)}
    )
    with child:
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, said
