"""A genuine tiny checkpoint of every family that is claimed to be supported, made from the family's own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VIDEO = (
    "llava_next_video",
    "llava_onevision",
    "video_llava",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
    "smolvlm",
)
"""The families that read a video as such, not as pictures."""

_HIDDEN = 64
_PALI = 32
"""PaliGemma's vocabulary is large: it names places."""
_LLAMA = {
    "model_type": "llama",
    "hidden_size": _HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
_UNTIED = {"tie_word_embeddings": False}
"""Else a model of few layers says its last token again and again, whatever it sees."""
_GEMMA = _LLAMA | _UNTIED | {"head_dim": 16}
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
_QWEN = _LLAMA | {"rope_parameters": _ROPE, "head_dim": 16}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_CLIP = _TOWER | {"model_type": "clip_vision_model", "projection_dim": 32}
_SIGLIP = _TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False}
_QWEN_TOWER = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
_QWEN_WIDER = _QWEN_TOWER | {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": _HIDDEN}
_QWEN_IDS = {"image_token_id": 4, "video_token_id": 5, "vision_start_token_id": 6, "vision_end_token_id": 7}
_PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def _llava(kind: str, **values: Any) -> dict[str, Any]:
    return {
        "image_token_index": 4,
        "text_config": _LLAMA,
        "vision_config": _CLIP,
        "image_seq_length": 16,
        **values,
        "model_type": kind,
    }


_CONFIGS: dict[str, dict[str, Any]] = {
    "llava": _llava("llava"),
    "vipllava": _llava("vipllava", vision_feature_layers=[-2, -1]),
    "llava_next": _llava("llava_next", image_grid_pinpoints=_PINPOINTS),
    "llava_next_video": _llava("llava_next_video", image_grid_pinpoints=_PINPOINTS, video_token_index=5),
    "llava_onevision": _llava(
        "llava_onevision",
        image_grid_pinpoints=_PINPOINTS,
        video_token_index=5,
        vision_config=_SIGLIP,
        text_config=_LLAMA | {"model_type": "qwen2"},
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
    ),
    "video_llava": _llava("video_llava", image_token_index=4, video_token_index=5, video_seq_length=136),
    "qwen2_vl": _QWEN_IDS
    | {
        "model_type": "qwen2_vl",
        "text_config": _QWEN | {"model_type": "qwen2_vl_text"},
        "vision_config": _QWEN_TOWER | {"model_type": "qwen2_vl_vision", "embed_dim": 32, "hidden_size": _HIDDEN},
    },
    "qwen2_5_vl": _QWEN_IDS
    | {
        "model_type": "qwen2_5_vl",
        "text_config": _QWEN | {"model_type": "qwen2_5_vl_text"},
        "vision_config": _QWEN_WIDER | {"model_type": "qwen2_5_vl_vision", "fullatt_block_indexes": [1]},
    },
    "qwen3_vl": _QWEN_IDS
    | {
        "model_type": "qwen3_vl",
        "text_config": _QWEN | {"model_type": "qwen3_vl_text"},
        "vision_config": _QWEN_WIDER
        | {
            "model_type": "qwen3_vl_vision",
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
    },
    "internvl": _UNTIED
    | {
        "model_type": "internvl",
        "image_token_id": 4,
        "image_seq_length": 4,
        "text_config": _LLAMA | {"model_type": "qwen2"},
        "vision_config": _TOWER | {"model_type": "internvl_vision"},
    },
    "smolvlm": {
        "model_type": "smolvlm",
        "scale_factor": 2,
        "image_token_id": 4,
        "text_config": _LLAMA,
        "vision_config": _TOWER | {"model_type": "smolvlm_vision"},
    },
    "idefics3": {
        "model_type": "idefics3",
        "scale_factor": 2,
        "image_token_id": 4,
        "text_config": _LLAMA,
        "vision_config": _TOWER | {"model_type": "idefics3_vision"},
    },
    "paligemma": _UNTIED
    | {
        "model_type": "paligemma",
        "image_token_index": 4,
        "projection_dim": _PALI,
        "hidden_size": _PALI,
        "vocab_size": 1500,
        "text_config": _GEMMA
        | {"model_type": "gemma", "vocab_size": 1500, "num_key_value_heads": 1, "hidden_size": _PALI},
        "vision_config": _SIGLIP,
    },
    "gemma3": _UNTIED
    | {
        "model_type": "gemma3",
        "image_token_index": 4,
        "boi_token_index": 5,
        "eoi_token_index": 6,
        "mm_tokens_per_image": 16,
        "text_config": _GEMMA | {"model_type": "gemma3_text", "query_pre_attn_scalar": 16, "sliding_window": 64},
        "vision_config": _SIGLIP,
    },
}
FAMILIES = tuple(_CONFIGS)


def config(family: str) -> dict[str, Any]:
    """What the family's tiny ``config.json`` says, a copy."""
    return dict(json.loads(json.dumps(_CONFIGS[family])))


def build(family: str, folder: Path) -> Path:
    """Writes a tiny model of ``family`` to ``folder``, as ``save_pretrained`` does: two layers, random weights.

    Loads through AutoModelForImageTextToText and AutoProcessor. Returns ``folder``.
    """
    import torch
    import transformers

    from llava_tui.pipelines import built_processors, random_weights

    given = config(family)
    processor = built_processors.build(transformers, random_weights.parsed(transformers, given))
    model = random_weights.build(torch, transformers, family, given, ["float32"], torch.device("cpu"), 0)
    built_processors.tell_ids(transformers, model, processor.tokenizer)
    with torch.no_grad():  # Only words are ever said: a row of zeros never wins over the best of many random ones.
        model.lm_head.weight[: 256 + len(built_processors.special_tokens(model.config))] = 0
    if family.startswith("qwen"):  # tokens stay few
        token = (model.config.vision_config.patch_size * 2) ** 2
        processor.image_processor.size = {"shortest_edge": 4 * token, "longest_edge": 16 * token}
        processor.video_processor.size = {"shortest_edge": 4 * token, "longest_edge": 64 * token}
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
