"""The machine beside its GPUs, and the worker's own footprint on it, through psutil."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil

from llava_tui.events import HostSample

T = TypeVar("T")


def _known(ask: Callable[[], T]) -> T | None:
    """The answer, or ``None`` where the kernel (a sandbox, a process that is gone) does not give one."""
    try:
        return ask()
    except (OSError, psutil.Error):
        return None


class Host:
    """Reads CPU, memory and load, and the worker's share. CPU figures cover the time since the reading before."""

    def __init__(self, worker_pid: int) -> None:
        self._worker = _known(lambda: psutil.Process(worker_pid))
        self._first = True

    def sample(self, t: int) -> HostSample:
        """The state now, told with time ``t`` (ns). The first has no CPU figures: there is no time that they cover."""
        cpu = _known(psutil.cpu_percent)
        memory = _known(psutil.virtual_memory)
        load = _known(psutil.getloadavg)
        worker_cpu, worker_rss = _known(self._footprint) or (None, None)
        if self._first:
            self._first = False
            cpu = worker_cpu = None
        return HostSample(
            t=t,
            cpu=cpu,
            # What programs cannot have any more: page cache that would be given up counts as free.
            memory_used=memory.total - memory.available if memory else None,
            memory_total=memory.total if memory else None,
            load=round(load[0], 2) if load else None,
            worker_cpu=worker_cpu,
            worker_rss=worker_rss,
        )

    def _footprint(self) -> tuple[float, int] | None:
        if self._worker is None:
            return None
        with self._worker.oneshot():
            return self._worker.cpu_percent(), self._worker.memory_info().rss
