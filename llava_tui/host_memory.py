"""What this machine's own memory still has room for."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""What a container may have and has, and what of that are files which the kernel drops when it needs room: by the
second and the first version of control groups."""


def host_free() -> int:
    """Bytes that this process can still get without swapping: what the machine has left, or its container."""
    free = psutil.virtual_memory().available
    for folder, limit, used, files in _GROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):  # there is none, or it says "max"
            told = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left = int((folder / limit).read_text()) - int((folder / used).read_text()) + int(told[files])
            free = min(free, max(0, left))
    return int(free)
