"""FLOPs and bytes from a config, against the closed formulas of LLaVA-1.5-7B and what torch counts on real models."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llava_7b import CONFIG, PARAMETERS

from llava_tui.costs import Underived, architecture


def test_llava_7b_costs_what_the_closed_formulas_say() -> None:
    made = architecture(CONFIG, "float16", PARAMETERS)
    assert not made.missing
    assert made.weights == pytest.approx(PARAMETERS, rel=1e-3)
    assert made.vision_cost(1).flops == pytest.approx(0.382e12, rel=2e-3)
    assert made.projector_cost(1).flops == pytest.approx(0.024e12, rel=1e-2)
    for frames, tera in ((1, 8.4), (2, 16.1), (3, 24.1)):
        tokens = 576 * frames + 64
        closed = 2 * 6.476e9 * tokens + 2 * tokens**2 * 4096 * 32 + 2 * 0.131e9
        assert made.prefill_cost(tokens).flops == pytest.approx(closed, rel=1e-4)
        assert made.prefill_cost(tokens).flops / 1e12 == pytest.approx(tera, abs=0.06)
    assert made.decode_weight_bytes == pytest.approx(13.21e9, rel=1e-3)
    assert made.kv_bytes == 0.524288e6
    assert made.kv_bytes * 576 == 288 * 2**20
    assert made.decode_cost(1000).bytes == pytest.approx(13.21e9 + 0.524e6 * 1000, rel=1e-3)
    # A frame costs 7.8 TFLOP in prefill against 0.41 in encode.
    assert (made.prefill_cost(1216).flops - made.prefill_cost(640).flops) / 1e12 == pytest.approx(7.74, abs=0.1)
    assert (made.vision_cost(1) + made.projector_cost(1)).flops / 1e12 == pytest.approx(0.41, abs=0.005)


def test_a_batch_shares_the_weights_and_nothing_else() -> None:
    made = architecture(CONFIG)
    one, four = made.decode_cost(1000), made.decode_cost(1000, 4)
    assert four.flops == 4 * one.flops
    assert four.bytes - made.decode_weight_bytes == 4 * (one.bytes - made.decode_weight_bytes)


@pytest.mark.parametrize(
    ("quantization", "low", "high"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.55, 0.57),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 0.51, 0.52),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1.0, 1.01),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 0.51, 0.53),
    ],
)
def test_quantised_weights_are_read_with_their_scales(quantization: dict[str, Any], low: float, high: float) -> None:
    made = architecture(CONFIG | {"quantization_config": quantization}, "float16", PARAMETERS // 2)
    assert low <= made.weight_bytes <= high
    # The output matrix stays as it was.
    assert made.language is not None
    assert made.decode_weight_bytes == made.language.blocks * made.weight_bytes + 2 * made.language.head


def test_shared_keys_and_tied_heads_are_not_counted_twice() -> None:
    text = CONFIG["text_config"] | {"num_key_value_heads": 8, "tie_word_embeddings": True}
    grouped, plain = architecture(CONFIG | {"text_config": text}), architecture(CONFIG)
    assert grouped.kv_bytes == plain.kv_bytes / 4
    assert plain.weights - grouped.weights == 32064 * 4096 + 32 * 2 * 4096 * 3072
    assert grouped.decode_weight_bytes == plain.decode_weight_bytes - 2 * 32 * 2 * 4096 * 3072


@pytest.mark.parametrize(
    ("change", "part", "says"),
    [
        ({"text_config": {"model_type": "llama"}}, "language", "num_hidden_layers"),
        ({"text_config": CONFIG["text_config"] | {"model_type": "mamba"}}, "language", "mamba"),
        ({"text_config": CONFIG["text_config"] | {"num_local_experts": 8}}, "language", "experts"),
        ({"text_config": CONFIG["text_config"] | {"hidden_size": "4096"}}, "language", "hidden_size"),
        ({"text_config": CONFIG["text_config"] | {"head_dim": [1]}}, "language", "config"),
        ({"vision_config": {"model_type": "qwen2_vl_vision"}}, "vision", "qwen2_vl_vision"),
        ({"vision_config": None}, "vision", "no vision part"),
        ({"model_type": "fuyu"}, "projector", "fuyu"),
    ],
)
def test_what_a_config_does_not_tell_is_unknown_with_its_reason(change: dict[str, Any], part: str, says: str) -> None:
    made = architecture(CONFIG | change)
    assert getattr(made, part) is None
    assert says in made.missing[part]


def test_a_model_that_is_not_what_its_config_says_is_unknown() -> None:
    made = architecture(CONFIG, "float16", 2 * PARAMETERS)
    assert made.language is None
    assert "7,062,828,032 parameters" in made.missing["language"]


SIZES = st.one_of(
    st.none(), st.booleans(), st.text(max_size=3), st.integers(-2, 10**30), st.integers(1, 4096), st.floats(),
    st.lists(st.integers(-1, 10**20), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def parts(known: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A config's part with some of its entries damaged."""
    return st.dictionaries(st.sampled_from(sorted(known)), SIZES, max_size=4).map(lambda damage: known | damage)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])  # the first text takes seconds
@given(
    family=st.sampled_from(["llava", "vipllava", "internvl", "gemma3", "idefics3", "paligemma", ""]),
    text=parts(CONFIG["text_config"] | {"head_dim": 128, "sliding_window": 4096, "layer_types": []}),
    vision=parts(CONFIG["vision_config"] | {"num_channels": 3}),
    own=st.dictionaries(
        st.sampled_from(
            ["vision_feature_layer", "downsample_ratio", "mm_tokens_per_image", "scale_factor", "quantization_config"]
        ),
        SIZES,
        max_size=3,
    ),
)
def test_a_damaged_config_is_unknown_and_never_an_error(
    family: str, text: dict[str, Any], vision: dict[str, Any], own: dict[str, Any]
) -> None:
    """Sessions come from elsewhere: whatever their config holds, a page can be drawn."""
    made = architecture({"model_type": family, "text_config": text, "vision_config": vision, **own})
    for cost in (
        lambda: made.vision_cost(3),
        lambda: made.projector_cost(3),
        lambda: made.prefill_cost(1000, 2),
        lambda: made.decode_cost(1000, 2),
    ):
        try:
            found = cost()
        except Underived:
            assert made.missing
        else:
            assert found.flops >= 0
            assert found.dense >= found.flops * 0.999
            assert found.bytes >= 0


# --- against torch ------------------------------------------------------------------------------------------------

TEXT = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL = {"vocab_size": 512, "num_key_value_heads": 4, "pad_token_id": 0}
SHARED = {"vocab_size": 512, "num_key_value_heads": 2, "pad_token_id": 0}
EYE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
EYE |= {"image_size": 56, "patch_size": 14}
IMAGE = 500


def llava_clip_llama(t: Any) -> Any:
    return t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**EYE), text_config=t.LlamaConfig(**TEXT, **SMALL), image_token_id=IMAGE
    )


def llava_siglip_qwen2(t: Any) -> Any:
    """Grouped queries, a tied head, and a pooling head on the tower."""
    return t.LlavaConfig(
        vision_config=t.SiglipVisionConfig(**EYE),
        text_config=t.Qwen2Config(**TEXT, **SHARED, tie_word_embeddings=True),
        vision_feature_select_strategy="full",
        image_token_id=IMAGE,
    )


def llava_two_layers_mistral(t: Any) -> Any:
    """Features of two layers side by side; a window shorter than the prompt."""
    return t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**EYE),
        text_config=t.MistralConfig(**TEXT, **SHARED, sliding_window=16),
        vision_feature_layer=[-1, -2],
        image_token_id=IMAGE,
    )


def vipllava(t: Any) -> Any:
    return t.VipLlavaConfig(
        vision_config=t.CLIPVisionConfig(**EYE),
        text_config=t.LlamaConfig(**TEXT, **SMALL),
        vision_feature_layers=[-1, -2, 1],
        image_token_id=IMAGE,
    )


def llava_onevision(t: Any) -> Any:
    return t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**EYE, vision_use_head=False),
        text_config=t.Qwen2Config(**TEXT, **SHARED),
        image_grid_pinpoints=[[56, 56]],
        image_token_id=IMAGE,
    )


def internvl(t: Any) -> Any:
    return t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**EYE), text_config=t.Qwen2Config(**TEXT, **SHARED), image_token_id=IMAGE
    )


def paligemma(t: Any) -> Any:
    """Heads wider than hidden / heads."""
    return t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**EYE, vision_use_head=False),
        text_config=t.GemmaConfig(**TEXT, **SHARED, head_dim=32, tie_word_embeddings=True),
        projection_dim=64,
        image_token_id=IMAGE,
    )


def gemma3(t: Any) -> Any:
    """Pooled image tokens; most layers see a short window."""
    return t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**EYE, vision_use_head=False),
        text_config=t.Gemma3TextConfig(
            **TEXT | {"num_hidden_layers": 6}, **SHARED, head_dim=16, sliding_window=8, tie_word_embeddings=True
        ),
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
    )


FAMILIES = [
    *(llava_clip_llama, llava_siglip_qwen2, llava_two_layers_mistral, vipllava),
    *(llava_onevision, internvl, paligemma, gemma3),
]


@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_derived_flops_are_those_that_torch_counts(family: Callable[[Any], Any]) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.AutoModelForImageTextToText.from_config(family(transformers), attn_implementation="eager")
    model.eval()
    config = json.loads(model.config.to_json_string(use_diff=False))
    made = architecture(config, "float32", sum(parameter.numel() for parameter in model.parameters()))
    assert not made.missing

    pictures = 2
    pixels = torch.randn(pictures, 3, 56, 56)
    sizes = {}
    if config["model_type"] == "llava_onevision":
        # A picture is seen whole and in tiles: here two of one tile each.
        pixels, pictures = torch.stack([pixels, pixels], 1), 2 * pictures
        sizes = {"image_sizes": torch.tensor([[56, 56]] * 2)}
    features, counted = count(model, lambda: model.base_model.get_image_features(pixels, **sizes, return_dict=True))
    projector = next(value for name, value in counted.items() if name.endswith("MultiModalProjector"))
    assert projector == pytest.approx(made.projector_cost(pictures).dense, rel=0.02)
    assert counted["Global"] - projector == pytest.approx(made.vision_cost(pictures).dense, rel=0.02)

    images = sum(len(feature) for feature in features.pooler_output)
    ids = torch.cat([torch.full((1, images), IMAGE), torch.arange(1, 21)[None]], 1)
    options = {"use_cache": True, "logits_to_keep": 1, "mm_encoder_outputs": {"image": features}}
    out, counted = count(model, lambda: model(input_ids=ids, **options))
    assert counted["Global"] == pytest.approx(made.prefill_cost(ids.shape[1]).dense, rel=0.02)

    _, counted = count(
        model, lambda: model(input_ids=ids[:, -1:], past_key_values=out.past_key_values, logits_to_keep=1)
    )
    assert counted["Global"] == pytest.approx(made.decode_cost(ids.shape[1] + 1).dense, rel=0.02)


def count(model: Any, call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``call`` returns, and FLOPs by module as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        result = call()
    return result, {name: float(sum(ops.values())) for name, ops in counter.get_flop_counts().items()}
