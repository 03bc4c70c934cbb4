"""A run that had too little memory: how it is told, what was held then, and how memory is given back."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from typing import Any

import psutil

from llava_tui.host_memory import host_free
from llava_tui.pipelines.base import Pipeline

log = logging.getLogger(__name__)

_NO_DEVICE = ("cpu", "meta", "simulated")
"""Where no allocator of a device's is."""
_SHORT_OF_MEMORY = ("can't allocate memory", "out of memory", "alloc_failed", "allocation_failed")

RUNS_A_COLLECTION = 50
"""Without it the worker's memory grew by 4 kB a run of a tiny model; see benchmarks/items.py."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a run failed for lack of memory, the host's or the device's."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator, some backends, and CUDA's libraries (CUBLAS_STATUS_ALLOC_FAILED) raise a bare RuntimeError.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _SHORT_OF_MEMORY)


def free(device: str, pipeline: Pipeline) -> int | None:
    """Bytes that a run can still get on a torch device: what is free on it, and what the allocator holds unused; on the
    CPU, of the machine or its container. A simulation tells its own; ``None`` where nothing tells."""
    kind = device.split(":")[0]
    if kind in ("meta", "simulated"):
        own: int | None = getattr(pipeline, "memory_free", None)
        return own
    if kind == "cpu":
        return host_free()
    held = holding(device)
    if "free" not in held:
        return None
    return held["free"] + held.get("reserved", 0) - held.get("allocated", 0)


def holding(device: str) -> dict[str, int]:
    """What is held right now, bytes: ``allocated`` and ``reserved`` by the device's allocator, ``free`` and ``total``
    of the device; on the CPU ``rss``, and what the machine has ``free``. Leaves out what does not answer."""
    found: dict[str, int] = {}
    if device == "simulated":  # whose memory is not this machine's
        return found
    torch = sys.modules.get("torch")
    if device.split(":")[0] in _NO_DEVICE or torch is None:
        with contextlib.suppress(psutil.Error):
            found = {"rss": psutil.Process().memory_info().rss, "free": host_free()}
        return found
    try:
        module: Any = torch.get_device_module(device)
        for name in ("allocated", "reserved"):
            found[name] = int(getattr(module, f"memory_{name}")(device))
        found["free"], found["total"] = map(int, module.mem_get_info(device))
    except (RuntimeError, AttributeError, AssertionError):  # lost with the run, or a kind of device without it
        pass
    return found


def tidy(run: int) -> None:
    """Between runs, now and then: finds the garbage that is in cycles. By itself the collector does not for hours, for
    it weighs what is new against all that torch and transformers made. That is left out here: it takes milliseconds."""
    if run % RUNS_A_COLLECTION == 0:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.collect()


def release(device: str) -> None:
    """Gives back what a failed run left in Python and in the allocator's cache; says it where that cannot be."""
    # What the run made is young. Among what torch and transformers made, looking for garbage would hold the interpreter
    # for 0.2 to 0.6 s, and whoever asks something of the worker would wait for it.
    gc.collect(1)
    torch = sys.modules.get("torch")
    if torch is None or device.split(":")[0] in _NO_DEVICE:
        return
    module: Any = torch.get_device_module(device)
    if hasattr(module, "empty_cache"):
        try:
            module.empty_cache()
        except RuntimeError as error:
            log.warning("memory was not given back: %s", error)
