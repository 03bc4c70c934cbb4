"""The cache of keys and values: what a model holds, what its config says that it would."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import FAMILIES

from llava_tui.kv_cache import CacheShape, cache_shape
from llava_tui.presets import find

LLAMA = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 8}


def test_a_token_of_llava_1_5_7b_takes_half_a_mebibyte() -> None:
    """2 × 32 layers × 4,096 × 2 bytes: the figure of every serving paper."""
    preset = find("llava-1.5-7b")
    assert preset is not None
    shape = cache_shape(preset.config)
    assert shape is not None
    assert 2 * shape.token == 524_288
    assert 2 * shape.held(576) == 288 * 2**20


@pytest.mark.parametrize(
    ("config", "width", "windows"),
    [
        (LLAMA, 64, (None,) * 4),
        ({"text_config": LLAMA | {"num_key_value_heads": 2}}, 16, (None,) * 4),
        (LLAMA | {"num_key_value_heads": 1, "head_dim": 128}, 128, (None,) * 4),
        (LLAMA | {"sliding_window": 7}, 64, (7,) * 4),
        (LLAMA | {"sliding_window": 7, "use_sliding_window": False}, 64, (None,) * 4),
        (
            LLAMA | {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"] * 2},
            64,
            (7, None, 7, None),
        ),
        (
            LLAMA | {"attention_chunk_size": 9, "layer_types": ["chunked_attention", "moe"] * 2},
            64,
            (9, 9),
        ),
    ],
)
def test_heads_and_windows_decide_what_is_kept(config: dict[str, Any], width: int, windows: Any) -> None:
    assert cache_shape(config) == CacheShape(width, windows)


@pytest.mark.parametrize(
    "config",
    [
        {},
        LLAMA | {"num_attention_heads": 0},
        LLAMA | {"num_hidden_layers": "many"},
        LLAMA | {"num_hidden_layers": 10**6},
        LLAMA | {"layer_types": ["linear_attention"] * 4},
    ],
)
def test_of_a_model_that_keeps_something_else_nothing_is_claimed(config: dict[str, Any]) -> None:
    assert cache_shape(config) is None


@settings(max_examples=60)
@given(
    st.lists(st.none() | st.integers(1, 50), min_size=1, max_size=6),
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(1, 5),
)
def test_a_run_never_keeps_more_than_its_peak(windows: list[int | None], prompt: int, new: int, batch: int) -> None:
    shape = CacheShape(8, tuple(windows))
    at_end, peak = shape.held(prompt + new - 1, batch), shape.peak(prompt, new, batch)
    assert at_end <= peak <= batch * shape.token * (prompt + new - 1)
    assert peak >= batch * shape.token * prompt, "a prefill leaves the whole prompt in every layer"


# --- measured --------------------------------------------------------------------------------------------------------


def cache_of(kind: str, config: Any, length: int) -> Any:
    from transformers import DynamicCache, StaticCache

    return DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=length)


@pytest.mark.models
@pytest.mark.parametrize(
    ("window", "kind", "new"), list(itertools.product((None, 5, 500), ("dynamic", "static"), (1, 9)))
)
def test_the_formula_is_what_the_library_keeps(window: int | None, kind: str, new: int) -> None:
    """Keys are given to the library's own caches as a model gives them: the prompt at once, then token by token."""
    import torch
    from transformers import Gemma3TextConfig

    from llava_tui.pipelines import caches

    kinds = ["sliding_attention" if window and layer % 2 else "full_attention" for layer in range(4)]
    config = Gemma3TextConfig(
        hidden_size=64,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        num_hidden_layers=4,
        vocab_size=50,
        layer_types=kinds,
        sliding_window=window or 4096,
    )
    prompt, batch = 23, 3
    cache = cache_of(kind, config, prompt + new - 1)
    for length in [prompt] + [1] * (new - 1):
        for layer in range(4):
            keys = torch.ones(batch, 2, length, 16, dtype=torch.bfloat16)
            cache.update(keys, keys.clone(), layer)
    told = caches.facts(caches.held(cache), config.to_dict(), prompt, new, batch, 2)
    if kind == "static" and new == 1 and window == 5:  # made at its length, whatever it is then used for
        assert told["kv_cache_bytes"] < told["kv_cache_predicted"]
    else:
        assert told["kv_cache_bytes"] == told["kv_cache_predicted"] > 0


@pytest.mark.models
def test_quantised_keys_are_counted_with_their_scales() -> None:
    import torch
    from transformers.cache_utils import Cache, Fp8QuantizedLayer

    from llava_tui.pipelines import caches

    cache = Cache(layers=[Fp8QuantizedLayer()])
    for length in (10, 1, 1):
        cache.update(torch.ones(2, 4, length, 8), torch.ones(2, 4, length, 8), 0)
    numbers = 2 * 2 * 4 * 12 * 8
    assert caches.held(cache) == numbers + 2 * 4, "a byte each, and a scale of four for keys and for values"
    assert caches.held(object()) is None
    assert caches.facts(None, {}, 1, 1, 1, 2) == {}


@pytest.mark.models
def test_what_is_measured_is_no_longer_kept() -> None:
    import gc
    import weakref

    from llava_tui.pipelines import caches

    config = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1}

    class Area:
        def __init__(self) -> None:
            import torch

            self.keys = self.values = torch.ones(1, 1, 4, 8)
            self.layers = [self]

    area = Area()
    alive = weakref.ref(area)
    told = caches.facts(caches.held(area), config, 4, 1, 1, 4)
    area.layers.clear()
    del area
    gc.collect()
    assert alive() is None
    assert told["kv_cache_bytes"] == 128, "one area, though it is both keys and values"


@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family_a_run_keeps_what_its_config_says(family: str, tiny_family: Callable[[str], Path]) -> None:
    """Through the library's own generate(), with its own default cache: what a run of this family would hold."""
    import torch
    from transformers import AutoModelForImageTextToText

    from llava_tui.pipelines import caches

    model = AutoModelForImageTextToText.from_pretrained(tiny_family(family), local_files_only=True, dtype=torch.float32)
    found: list[int | None] = []

    def loop(model: Any, input_ids: Any, *_: Any, **kwargs: Any) -> Any:
        first = True
        for _step in range(4):
            given = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=None if first else 1, is_first_iteration=first, **kwargs
            )
            out = model(**given, return_dict=True)
            kwargs = model._update_model_kwargs_for_generation(out, kwargs, is_encoder_decoder=False)
            input_ids = torch.cat([input_ids, out.logits[:, -1:].argmax(-1)], -1)
            first = False
        found.append(caches.held(kwargs["past_key_values"]))
        return input_ids

    ids = torch.full((2, 11), 300)
    options = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "custom_generate": loop}
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    config = json.loads(model.config.to_json_string(use_diff=False))
    told = caches.facts(found[0], config, 11, 4, 2, 4)
    assert told["kv_cache_bytes"] == told["kv_cache_predicted"] > 0
