"""Static caches of keys and values: one a case, kept from run to run."""

from __future__ import annotations

from typing import Any


class StaticCaches:
    """Each case's own cache. Left to itself, generate() makes every static cache as long as the longest before it, so
    that a case would pay for the others of its session; and CUDA graphs want their tensors where they were."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, Any]] = {}

    def take(self, case: str, model: Any, length: int) -> Any:
        """An empty cache with room for ``length`` tokens; its tensors are made by the first prefill, and emptied
        after that."""
        kept, cache = self._kept.get(case, (0, None))
        if kept == length:
            cache.reset()
            return cache
        from transformers import StaticCache

        cache = StaticCache(config=model.config.get_text_config(decoder=True), max_cache_len=length)
        self._kept[case] = length, cache
        return cache
