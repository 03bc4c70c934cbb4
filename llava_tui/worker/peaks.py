"""What this machine's processor reaches at its best: large matrix products, and reading and copying memory.

Run as ``python -m llava_tui.worker.peaks [DEVICE]``: a process of its own, some seconds long. One JSON document on
standard output: the device's name, FLOP/s by dtype, bytes a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from llava_tui.worker.facts import cpu_model

SECONDS = 1.0
"""Each measurement repeats that long; the best counts."""
CPU_SIDE, GPU_SIDE, GPU_SIDE_SINGLE = 1024, 8192, 4096
"""Of the square matrices that are multiplied."""
CPU_BUFFER, GPU_BUFFER = 8192, 16384
"""Side of the float32 matrix that is read and copied: larger than any cache."""


def measure(device: str = "auto") -> dict[str, Any]:
    """Figures of ``device`` (``auto``: the accelerator where there is one, else the CPU). Raises what torch raises."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_cpu = torch.device(device).type == "cpu"
    wait: Callable[[], None] = (lambda: None) if on_cpu else lambda: torch.cuda.synchronize(device)
    flops: dict[str, float] = {}
    for name in ("float32", "bfloat16", "float16"):
        dtype = getattr(torch, name)
        side = CPU_SIDE if on_cpu else GPU_SIDE_SINGLE if name == "float32" else GPU_SIDE
        try:
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            out = torch.empty_like(a)
            flops[name] = 2 * side**3 / _best(partial(torch.mm, a, b, out=out), wait)
        except RuntimeError:
            continue  # this device has no product in that dtype
    return {
        "device": cpu_model() if on_cpu else torch.cuda.get_device_name(device),
        "flops": flops,
        "bandwidth": _bandwidth(torch, device, on_cpu, wait),
        "torch": torch.__version__,
        "threads": torch.get_num_threads() if on_cpu else None,
    }


def _bandwidth(torch: Any, device: str, on_cpu: bool, wait: Callable[[], None]) -> float:
    """Bytes a second, the better of copying a buffer and of multiplying a matrix with a vector, which is what a decode
    step does."""
    side = CPU_BUFFER if on_cpu else GPU_BUFFER
    matrix = torch.zeros(side, side, device=device)
    other = torch.empty_like(matrix)
    vector = torch.zeros(side, device=device)
    size = 4 * side**2
    read = size / _best(lambda: torch.mv(matrix, vector), wait)
    copied = 2 * size / _best(lambda: other.copy_(matrix), wait)
    return float(max(read, copied))


def _best(work: Callable[[], Any], wait: Callable[[], None]) -> float:
    """Seconds of the quickest of many executions, the first left out."""
    work()
    wait()
    best, until = float("inf"), time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:2])))  # noqa: T201 - its one output
