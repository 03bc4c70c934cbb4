"""What the simulated model holds: its allocator, its parts, its cache."""

from __future__ import annotations

from typing import Any

from llava_tui.kv_cache import cache_shape
from llava_tui.pipelines.simulated_cost import HIDDEN, KV_BYTES, VIT_HIDDEN, VIT_LAYERS, VIT_TOKENS
from llava_tui.plan import Case

SEGMENT = 20 << 20
"""In which torch's caching allocator takes memory from the driver for what is larger than a mebibyte, bytes."""


class SimulatedAllocator:
    """A caching allocator's peaks (:class:`llava_tui.worker.stage_memory.Meter`): what was reserved once is kept."""

    columns = ("allocated", "reserved")
    peaks = (True, True)

    def __init__(self) -> None:
        self._now = self._peak = self._reserved = 0

    def hold(self, size: int) -> None:
        """From here on that many bytes are allocated."""
        self._now = size
        self._peak = max(self._peak, size)
        self._reserved = max(self._reserved, -(-size // SEGMENT) * SEGMENT)

    def take(self) -> tuple[int | None, int | None]:
        """The peaks since the last time."""
        peak, self._peak = self._peak, self._now
        return peak, self._reserved


def vision_bytes(frames: int) -> int:
    """What encoding that many frames holds beside the weights: every layer's output, and one layer's work."""
    return frames * VIT_TOKENS * VIT_HIDDEN * 2 * (VIT_LAYERS + 1 + 10)


def generation_bytes(prompt: int) -> int:
    """What a prefill of one sequence holds beside the weights: its cache and one layer's work."""
    return prompt * (KV_BYTES + 14 * HIDDEN) + (64 << 20)


def cache_facts(config: dict[str, Any], case: Case, prompt: int, new: int) -> dict[str, int]:
    """As a real run tells of its cache: what the simulation holds at its end, and what the config predicts."""
    shape = cache_shape(config)
    told = {"kv_cache_bytes": case.batch * (prompt + new - 1) * KV_BYTES}
    if shape is not None:
        told["kv_cache_predicted"] = round(2 * shape.held(prompt + new - 1, case.batch))
    return told


def modules(parameters: dict[str, int]) -> list[dict[str, Any]]:
    """Each part's parameters and bytes in half precision, as a real model tells of them."""
    named = {"vision": "vision tower", "language": "language model and embeddings"}
    parts = [
        {
            "name": named.get(part, part),
            "parameters": count,
            "bytes": 2 * count,
            "dtypes": {"float16": 2 * count},
        }
        for part, count in parameters.items()
    ]
    return sorted(parts, key=lambda part: -int(str(part["bytes"])))
