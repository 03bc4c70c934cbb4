"""What a vision-language model's ``config.json`` tells without loading it: tokens a frame, context, parameters."""

from __future__ import annotations

from typing import Any

from llava_tui.units import counted

KNOWN_FAMILIES: tuple[str, ...] = ("llava", "vipllava")
"""Model types that this pipeline was tried on."""
EVENTGPT = "EventChat_llama"
"""The model type of EventGPT's own checkpoints, which have a pipeline of their own."""

_GENERATIVE = ("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "ForImageTextToText")


def model_type(config: dict[str, Any]) -> str:
    """The family's name as transformers has it; "" where the config does not say."""
    return str(config.get("model_type") or "")


def is_vlm(config: dict[str, Any]) -> bool:
    """Whether the config is of a model that reads pictures and writes text.

    A dual encoder (CLIP, SigLIP) has a vision config too but writes nothing.
    """
    if not isinstance(config.get("vision_config"), dict):
        return False
    architectures = config.get("architectures")
    if architectures:
        return any(str(name).endswith(_GENERATIVE) for name in architectures)
    return model_type(config) in KNOWN_FAMILIES


def is_original_llava(config: dict[str, Any]) -> bool:
    """Whether the config is in the layout of LLaVA's own repository, which transformers does not load."""
    return "mm_vision_tower" in config and "vision_config" not in config


def is_eventgpt(config: dict[str, Any]) -> bool:
    """Whether the config is of a model that reads event streams, in its own repository's layout."""
    return model_type(config) == EVENTGPT


def image_tokens(config: dict[str, Any], frames: int = 1) -> int | None:
    """Tokens that ``frames`` frames become in the prompt; ``None`` for families where it depends on the picture."""
    if model_type(config) not in KNOWN_FAMILIES:
        return None
    vision = config.get("vision_config") or {}
    side, patch = vision.get("image_size"), vision.get("patch_size")
    if not isinstance(side, int) or not isinstance(patch, int):
        length = config.get("image_seq_length")
        return length * frames if isinstance(length, int) else None
    # CLIP prepends a class token, SigLIP has none; "default" drops the first token, "full" keeps all. VipLLaVA drops.
    tokens = (side // patch) ** 2 + (0 if "siglip" in str(vision.get("model_type")) else 1)
    if model_type(config) == "vipllava" or config.get("vision_feature_select_strategy", "default") == "default":
        tokens -= 1
    return tokens * frames


def context_length(config: dict[str, Any]) -> int | None:
    """Tokens the language model was made for; ``None`` where the config does not say."""
    for part in (config.get("text_config"), config):
        if isinstance(part, dict) and isinstance(part.get("max_position_embeddings"), int):
            return int(part["max_position_embeddings"])
    return None


def overflow(config: dict[str, Any], frames: int, prompt_tokens: int, new_tokens: int) -> str:
    """Why ``frames`` frames, ``prompt_tokens`` of text and ``new_tokens`` do not fit the context; "" if they do.

    "" as well where the config does not say enough.
    """
    each, context = image_tokens(config), context_length(config)
    if each is None or context is None:
        return ""
    total = frames * each + prompt_tokens + new_tokens
    if total <= context:
        return ""
    fitting = (context - prompt_tokens - new_tokens) // each
    mend = (
        f"use --frames {fitting}" + (" or fewer" if fitting > 1 else "") if fitting >= 1 else "use fewer --new-tokens"
    )
    return (
        f"{counted(frames, 'frame')} × {each:,} tokens + {prompt_tokens:,} prompt + {new_tokens:,} new"
        f" = {total:,} > {context:,} context; {mend}"
    )


def parameters(config: dict[str, Any]) -> dict[str, int] | None:
    """Parameters of a LLaVA's parts (``vision``, ``projector``, ``language``, ``head``); ``None`` for other families.

    ``vision`` is a CLIP tower, ``language`` a Llama with its embeddings. ``None`` too where the config leaves something
    to the library's defaults.
    """
    if model_type(config) != "llava":
        return None
    try:
        return _llava_parameters(config, config["vision_config"], config["text_config"])
    except KeyError:
        return None


def _llava_parameters(config: dict[str, Any], vision: dict[str, Any], text: dict[str, Any]) -> dict[str, int]:
    v, v_wide, h, wide = (
        vision["hidden_size"],
        vision["intermediate_size"],
        text["hidden_size"],
        text["intermediate_size"],
    )
    positions = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    layer = 4 * (v * v + v) + 2 * v * v_wide + v_wide + v + 4 * v
    # Class embedding, patches without bias, positions, the norms before and after.
    tower = v + 3 * vision["patch_size"] ** 2 * v + positions * v + 4 * v + vision["num_hidden_layers"] * layer

    layers_read = config.get("vision_feature_layer", -2)
    v_read = v * (len(layers_read) if isinstance(layers_read, list) else 1)
    projector = v_read * h + h * h + (2 * h if config.get("multimodal_projector_bias", True) else 0)

    heads = text["num_attention_heads"]
    head_dim = text.get("head_dim") or h // heads
    kv = (text.get("num_key_value_heads") or heads) * head_dim
    block = 2 * h * heads * head_dim + 2 * h * kv + 3 * h * wide + 2 * h
    language = text["vocab_size"] * h + text["num_hidden_layers"] * block + h
    tied = config.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False)
    return {
        "vision": tower,
        "projector": projector,
        "language": language,
        "head": 0 if tied else text["vocab_size"] * h,
    }
