"""Published architectures by name: their configs as dictionaries, for models that are built here with random weights.

A config says the sizes, not what was learnt. Names, sizes and token ids are those of the checkpoints in transformers'
format that each preset names.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture that can be built without a download."""

    name: str
    hub_id: str
    """The published checkpoint of that architecture."""
    parameters: int
    """As transformers counts them, tied ones once."""
    config: dict[str, Any]


def find(name: str) -> Preset | None:
    """The preset of that name, its config a copy of its own; ``None`` if there is none."""
    for preset in PRESETS:
        if preset.name == name:
            return msgspec.structs.replace(preset, config=copy.deepcopy(preset.config))
    return None


def _llama(hidden: int, intermediate: int, layers: int, heads: int) -> dict[str, Any]:
    """Vicuna 1.5: Llama 2 with room for the image tokens in its vocabulary."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _clip(image: int) -> dict[str, Any]:
    """CLIP ViT-L/14."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": image,
        "patch_size": 14,
        "projection_dim": 768,
    }


def _llava(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "dtype": "float16",
        "image_token_index": 32000,
        "pad_token_id": 32001,
        "image_seq_length": 576,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "text_config": text,
        "vision_config": _clip(336),
    }


_VICUNA_7B = _llama(4096, 11008, 32, 32)
_VICUNA_13B = _llama(5120, 13824, 40, 40)
_QWEN2_7B = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152128,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
_STEPS = range(384, 2305, 384)
"""Sides of the pictures that LLaVA-OneVision cuts into squares of 384."""

PRESETS: tuple[Preset, ...] = (
    Preset(
        name="llava-1.5-7b",
        hub_id="llava-hf/llava-1.5-7b-hf",
        parameters=7_063_427_072,
        config=_llava(_VICUNA_7B),
    ),
    Preset(
        name="llava-1.5-13b",
        hub_id="llava-hf/llava-1.5-13b-hf",
        parameters=13_351_494_656,
        config=_llava(_VICUNA_13B),
    ),
    Preset(
        name="llava-1.6-vicuna-7b",
        hub_id="llava-hf/llava-v1.6-vicuna-7b-hf",
        parameters=7_063_431_168,
        config=_llava(_VICUNA_7B)
        | {
            "model_type": "llava_next",
            "architectures": ["LlavaNextForConditionalGeneration"],
            "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
            "use_image_newline_parameter": True,
        },
    ),
    Preset(
        name="llava-onevision-qwen2-7b",
        hub_id="llava-hf/llava-onevision-qwen2-7b-ov-hf",
        parameters=8_030_807_584,
        config={
            "model_type": "llava_onevision",
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "dtype": "float16",
            "image_token_index": 151646,
            "video_token_index": 151647,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
            "image_grid_pinpoints": [[height, width] for height in _STEPS for width in _STEPS],
            "tie_word_embeddings": False,
            "text_config": _QWEN2_7B,
            "vision_config": _SIGLIP,
        },
    ),
    Preset(
        name="video-llava-7b",
        hub_id="LanguageBind/Video-LLaVA-7B-hf",
        parameters=7_366_279_168,
        config=_llava(_VICUNA_7B)
        | {
            "model_type": "video_llava",
            "architectures": ["VideoLlavaForConditionalGeneration"],
            "video_token_index": 32001,
            "pad_token_id": 32002,
            "image_seq_length": 256,
            "video_seq_length": 2056,
            "vision_config": _clip(224),
        },
    ),
)
