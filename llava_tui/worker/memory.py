"""A run that had too little memory: how it is told, what was held then, and how memory is given back."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

log = logging.getLogger(__name__)

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
