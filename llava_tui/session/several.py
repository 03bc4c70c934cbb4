"""Several long sessions read at once: on the machines of today one core is busy with one of them, the others idle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llava_tui.session import shelf
from llava_tui.session.reader import SessionError
from llava_tui.session.timeline import Timeline

WORTH = 32 << 20
"""Bytes of streams from which on a session is worth a process: starting one takes what reading half of that does."""


def read(paths: Sequence[Path]) -> dict[Path, Timeline]:
    """Each session as :func:`~llava_tui.session.shelf.read` gives it, which may raise :class:`SessionError`.

    Of those that are long and new to the shelf all but the first are put there by other processes, a core each, while
    this one reads the first. Where a process fails, what it left is read here.
    """
    paths = list(dict.fromkeys(paths))
    cores = len(os.sched_getaffinity(0))
    new = [path for path in paths if shelf.is_new(path, WORTH)] if len(paths) > 1 and cores > 1 else []
    shares = [share for start in range(1, cores) if (share := new[start::cores])]
    helpers = [_helper(share) for share in shares]
    helped = {path for share in shares for path in share}
    try:
        found = {path: shelf.read(path) for path in paths if path not in helped}
        for helper in helpers:
            helper.wait()
        return found | {path: shelf.read(path) for path in helped}
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()


def _helper(paths: Sequence[Path]) -> subprocess.Popen[bytes]:
    from llava_tui.session.launch import environment

    # -P: a random.py in the user's folder must not stand in for Python's own.
    command = [sys.executable, "-P", "-m", __name__, *map(str, paths)]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment())


if __name__ == "__main__":
    for each in sys.argv[1:]:
        with suppress(SessionError):
            shelf.read(Path(each))
