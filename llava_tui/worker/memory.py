"""The device allocator's peaks, and giving memory back after a run that had too little."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

log = logging.getLogger(__name__)

Peaks = tuple[int, int]
"""Most bytes allocated, most bytes reserved."""


class AllocatorPeaks:
    """Peaks of torch's caching allocator on one device, since they were last taken. Reading waits for nothing."""

    def __init__(self, module: Any, device: str) -> None:
        self._module = module
        self._device = device

    def take(self) -> Peaks:
        """Reads the peaks and starts anew."""
        stats = self._module.memory_stats_as_nested_dict(device=self._device)
        self._module.reset_peak_memory_stats(self._device)
        try:
            return int(stats["allocated_bytes"]["all"]["peak"]), int(stats["reserved_bytes"]["all"]["peak"])
        except KeyError:  # Before the first allocation the allocator has no figures.
            return 0, 0


def allocator_peaks(device: str) -> AllocatorPeaks | None:
    """The allocator of a torch device; ``None`` where there is none to ask (CPU, simulated)."""
    if device.split(":")[0] in ("cpu", "meta", "simulated"):
        return None
    import torch

    module: Any = torch.get_device_module(device)
    if not hasattr(module, "memory_stats_as_nested_dict") or not hasattr(module, "reset_peak_memory_stats"):
        return None
    return AllocatorPeaks(module, device)


_SHORT_OF_MEMORY = ("can't allocate memory", "out of memory", "alloc_failed", "allocation_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a run failed for lack of memory, the host's or the device's."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator, some backends, and CUDA's libraries (CUBLAS_STATUS_ALLOC_FAILED) raise a bare RuntimeError.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _SHORT_OF_MEMORY)


def release(device: str) -> None:
    """Gives back what a failed run left in Python and in the allocator's cache; says it where that cannot be."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None or device.split(":")[0] in ("cpu", "meta", "simulated"):
        return
    module: Any = torch.get_device_module(device)
    if hasattr(module, "empty_cache"):
        try:
            module.empty_cache()
        except RuntimeError as error:
            log.warning("memory was not given back: %s", error)
