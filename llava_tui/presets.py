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
_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
"""SigLIP's tower in other families: with all of its layers, without what pools them."""
_QWEN_VL = {
    "dtype": "bfloat16",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": False,
}
_QWEN_VL_TOWER = {"depth": 32, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}


def _mrope(theta: float, *section: int) -> dict[str, Any]:
    """Rotary positions in time, height and width."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, "mrope_section": list(section)}}


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
    Preset(
        name="qwen2-vl-7b",
        hub_id="Qwen/Qwen2-VL-7B-Instruct",
        parameters=8_291_375_616,
        config=_QWEN_VL
        | {
            "model_type": "qwen2_vl",
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "text_config": _QWEN2_7B
            | {"model_type": "qwen2_vl_text", "vocab_size": 152064}
            | _mrope(1_000_000.0, 16, 24, 24),
            "vision_config": _QWEN_VL_TOWER
            | {"model_type": "qwen2_vl_vision", "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4},
        },
    ),
    Preset(
        name="qwen2.5-vl-7b",
        hub_id="Qwen/Qwen2.5-VL-7B-Instruct",
        parameters=8_292_166_656,
        config=_QWEN_VL
        | {
            "model_type": "qwen2_5_vl",
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "text_config": _QWEN2_7B
            | {"model_type": "qwen2_5_vl_text", "vocab_size": 152064, "max_position_embeddings": 128_000}
            | _mrope(1_000_000.0, 16, 24, 24),
            "vision_config": _QWEN_VL_TOWER
            | {
                "model_type": "qwen2_5_vl_vision",
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "out_hidden_size": 3584,
                "window_size": 112,
                "fullatt_block_indexes": [7, 15, 23, 31],
                "tokens_per_second": 2,
            },
        },
    ),
    Preset(
        name="qwen3-vl-8b",
        hub_id="Qwen/Qwen3-VL-8B-Instruct",
        parameters=8_767_123_696,
        config=_QWEN_VL
        | {
            "model_type": "qwen3_vl",
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "text_config": _QWEN2_7B
            | {
                "model_type": "qwen3_vl_text",
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 151_936,
                "max_position_embeddings": 262_144,
            }
            | _mrope(5_000_000.0, 24, 20, 20),
            "vision_config": _QWEN_VL_TOWER
            | {
                "model_type": "qwen3_vl_vision",
                "depth": 27,
                "patch_size": 16,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "out_hidden_size": 4096,
                "num_position_embeddings": 2304,
                "deepstack_visual_indexes": [8, 16, 24],
            },
        },
    ),
    Preset(
        name="internvl3-8b",
        hub_id="OpenGVLab/InternVL3-8B-hf",
        parameters=7_944_373_760,
        config={
            "model_type": "internvl",
            "architectures": ["InternVLForConditionalGeneration"],
            "dtype": "bfloat16",
            "image_token_id": 151667,
            "image_seq_length": 256,
            "downsample_ratio": 0.5,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
            "text_config": _QWEN2_7B | {"vocab_size": 151_674},
            "vision_config": {
                "model_type": "internvl_vision",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "attention_bias": True,
                "image_size": [448, 448],
                "patch_size": [14, 14],
            },
        },
    ),
    Preset(
        name="smolvlm2-2.2b",
        hub_id="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        parameters=2_246_784_880,
        config={
            "model_type": "smolvlm",
            "architectures": ["SmolVLMForConditionalGeneration"],
            "dtype": "bfloat16",
            "image_token_id": 49190,
            "scale_factor": 3,
            "tie_word_embeddings": False,
            "text_config": _llama(2048, 8192, 24, 32)
            | {"vocab_size": 49280, "max_position_embeddings": 8192, "eos_token_id": 49279, "pad_token_id": 2},
            "vision_config": _SO400M | {"model_type": "smolvlm_vision", "image_size": 384},
        },
    ),
    Preset(
        name="paligemma-3b-224",
        hub_id="google/paligemma-3b-pt-224",
        parameters=2_923_466_480,
        config={
            "model_type": "paligemma",
            "architectures": ["PaliGemmaForConditionalGeneration"],
            "dtype": "bfloat16",
            "image_token_index": 257_152,
            "projection_dim": 2048,
            "hidden_size": 2048,
            "tie_word_embeddings": True,
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "vocab_size": 257_216,
                "max_position_embeddings": 8192,
                "bos_token_id": 2,
                "eos_token_id": 1,
                "pad_token_id": 0,
            },
            "vision_config": _SO400M
            | {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": 224},
        },
    ),
    Preset(
        name="gemma-3-4b",
        hub_id="google/gemma-3-4b-it",
        parameters=4_300_079_472,
        config={
            "model_type": "gemma3",
            "architectures": ["Gemma3ForConditionalGeneration"],
            "dtype": "bfloat16",
            "image_token_index": 262_144,
            "boi_token_index": 255_999,
            "eoi_token_index": 256_000,
            "mm_tokens_per_image": 256,
            "tie_word_embeddings": True,
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "vocab_size": 262_208,
                "max_position_embeddings": 131_072,
                "sliding_window": 1024,
                "bos_token_id": 2,
                "eos_token_id": 1,
                "pad_token_id": 0,
            },
            "vision_config": _SO400M
            | {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": 896},
        },
    ),
    Preset(
        name="eventgpt-7b",
        hub_id="XduSyL/EventGPT",
        parameters=7_079_684_096,
        config=_VICUNA_7B
        | {
            "model_type": "EventChat_llama",
            "architectures": ["EventChatModel"],
            "dtype": "float16",
            "vocab_size": 32000,
            "mm_visual_tower": "openai/clip-vit-large-patch14-336",
            "vision_config": _clip(336),
            "event_feature_adaptor": True,
            "tie_word_embeddings": False,
        },
    ),
)
