"""What telling memory costs a run: the resident set stage by stage, and the size of the cache at its end.

Run with ``python benchmarks/stage_memory.py``; a few seconds. The recorder is taken through the stages of a LLaVA's run
with and without the meter, interleaved; the smallest of many rounds is told, as others' work only adds. ``--resident``
first takes that many MiB: reading must not grow with what a process holds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import DynamicCache

from llava_tui.pipelines.base import LLAVA_STAGES
from llava_tui.pipelines.caches import held
from llava_tui.worker.clock import HostClock
from llava_tui.worker.recorder import Recorder
from llava_tui.worker.stage_memory import host_meter

ROUNDS, RUNS = 300, 5


def one_run(recorder: Recorder) -> None:
    """Every stage begun and ended once, its step around it."""
    recorder.start(1)
    step = ""
    for info in LLAVA_STAGES:
        if "." not in info.path:
            if step:
                recorder.end(step)
            step = info.path
            recorder.begin(step)
        else:
            recorder.begin(info.path)
            recorder.end(info.path)
    recorder.end(step)
    recorder.finish()


def microseconds(what: Callable[[], object]) -> float:
    """A call, on the average of a round."""
    begin = time.perf_counter_ns()
    for _ in range(RUNS):
        what()
    return (time.perf_counter_ns() - begin) / RUNS / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resident", type=int, default=2048, metavar="MiB")
    options = parser.parse_args()
    kept = np.ones(options.resident << 20, np.uint8)
    plain, metered = (Recorder(LLAVA_STAGES, HostClock(), lambda: None, meter=each) for each in (None, host_meter()))
    cache = DynamicCache()
    for layer in range(32):
        cache.update(torch.zeros(1, 8, 600, 16), torch.zeros(1, 8, 600, 16), layer)
    least = [float("inf")] * 3
    for _ in range(ROUNDS):
        took = [microseconds(each) for each in (lambda: one_run(plain), lambda: one_run(metered), lambda: held(cache))]
        least = [min(pair) for pair in zip(least, took, strict=True)]
    print(f"{kept.nbytes / 2**20:.0f} MiB resident")
    print(f"resident set by stage: {least[1] - least[0]:.0f} µs a run ({least[1]:.0f} with, {least[0]:.0f} without)")
    print(f"size of a cache of 32 layers: {least[2]:.0f} µs a run")


if __name__ == "__main__":
    main()
