"""Caches of keys and values: static ones, kept from run to run; and what any of them holds, beside what it should."""

from __future__ import annotations

from typing import Any

from llava_tui.kv_cache import cache_shape
from llava_tui.pipelines.weights import plain_tensors

_KEPT = ("keys", "values", "_quantized_keys", "_quantized_values")
"""Where a layer of a transformers cache has what it keeps of a token."""


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


def held(cache: Any) -> int | None:
    """Bytes of the memory behind the keys and values of a transformers cache, each area once; ``None`` for what is no
    such cache. A slice (a sliding window's) keeps all of what it was cut from. Waits for no device."""
    layers = getattr(cache, "layers", None)
    if not isinstance(layers, list):
        return None
    areas: dict[tuple[str, int], int] = {}
    for layer in layers:
        for name in _KEPT:
            for tensor in plain_tensors(getattr(layer, name, None)):
                area = tensor.untyped_storage()
                areas[str(tensor.device), area.data_ptr()] = area.nbytes()
    return sum(areas.values())


def facts(
    kept: int | None, config: dict[str, Any], prompt: int, new: int, batch: int, value_bytes: int
) -> dict[str, Any]:
    """A run's facts on its cache, bytes: what it held at the end, and what the model's config says that ``batch``
    sequences of ``prompt`` and ``new`` tokens take there. What is not known is left out."""
    told = {} if kept is None else {"kv_cache_bytes": kept}
    shape = cache_shape(config)
    if shape is None:
        return told
    # The last token is not read again; windows are cut with the first step after the prefill.
    numbers = shape.held(prompt + new - 1, batch) if new > 1 else batch * shape.token * prompt
    return told | {"kv_cache_predicted": round(numbers * value_bytes)}
