"""How large a cache of keys and values is, from a model's config alone.

A token takes, in each layer, a key and a value of ``head_dim`` numbers for every head that has its own (Kwon et al.
2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention", section 3; with fewer heads of
keys and values than of queries: Ainslie et al. 2023, "GQA"): ``2 × layers × kv_heads × head_dim × bytes``, for each
sequence of the batch. A layer that looks back no further than a window keeps a window's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_SLIDING = ("sliding_attention", "chunked_attention")
_NOTHING = ("dummy", "moe", "mlp")
"""Kinds of layers (``layer_types`` of a config) that look back no further than a window; that keep nothing."""


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token adds to the cache, layer by layer."""

    width: int
    """Numbers in a layer's key, and in its value: heads that have their own × their dimension."""
    windows: tuple[int | None, ...]
    """How far back each layer that keeps anything looks; ``None``: all the way."""

    @property
    def token(self) -> int:
        """Numbers that a token adds while no window is full."""
        return 2 * len(self.windows) * self.width

    def held(self, tokens: float, batch: int = 1) -> float:
        """Numbers that are kept of ``batch`` sequences of ``tokens`` tokens, when decoding has begun. What a prefill
        leaves is :attr:`token` for each of its tokens: windows are cut with the step after it."""
        kept = sum(tokens if window is None else min(tokens, window) for window in self.windows)
        return 2.0 * batch * self.width * kept

    def peak(self, prompt: float, new: float, batch: int = 1) -> float:
        """The most numbers that a run of ``prompt`` and ``new`` tokens keeps: the last token is not read again."""
        return max(batch * self.token * prompt, self.held(prompt + max(new - 1, 0), batch))


def cache_shape(config: dict[str, Any]) -> CacheShape | None:
    """Of the language model of ``config`` (or of its ``text_config``); ``None`` where the config does not say, or its
    layers keep something else than keys and values."""
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    layers, hidden, heads = (text.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    own = text.get("num_key_value_heads") or heads
    dimension = text.get("head_dim") or (
        hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None
    )
    sizes = (layers, own, dimension)
    if not all(isinstance(size, int) and not isinstance(size, bool) and 0 < size < 10**7 for size in sizes):
        return None
    assert isinstance(layers, int)
    assert isinstance(own, int)
    assert isinstance(dimension, int)
    if layers > 10_000:
        return None
    kinds = text.get("layer_types")
    window = text.get("sliding_window") if text.get("use_sliding_window", True) else None
    if not isinstance(kinds, list) or len(kinds) != layers:
        kinds = ["sliding_attention" if window else "full_attention"] * layers
    if not all(kind == "full_attention" or kind in (*_SLIDING, *_NOTHING) for kind in kinds):
        return None
    windows: list[int | None] = []
    for kind in kinds:
        reach = text.get("attention_chunk_size") if kind == "chunked_attention" else window
        if kind not in _NOTHING:
            windows.append(reach if kind in _SLIDING and isinstance(reach, int) and reach > 0 else None)
    return CacheShape(own * dimension, tuple(windows))
