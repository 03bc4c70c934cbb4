"""What a vision-language model's ``config.json`` tells without loading it: tokens a frame, context, parameters."""

from __future__ import annotations

import math
from typing import Any

from llava_tui.units import counted

VIDEO_FAMILIES: tuple[str, ...] = (
    *("llava_next_video", "llava_onevision", "video_llava", "internvl", "smolvlm"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
)
"""Tested model types that read a video as such; the others read its frames as pictures."""
KNOWN_FAMILIES: tuple[str, ...] = (
    *("llava", "vipllava", "llava_next", "idefics3", "paligemma", "gemma3"),
    *VIDEO_FAMILIES,
)
"""Model types that the tests run: token for token what plain ``generate()`` says, each picture encoded once."""
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


def image_tokens(config: dict[str, Any], frames: int = 1, media: str = "auto") -> int | None:
    """Tokens that ``frames`` frames become in the prompt; ``None`` where the picture's own size decides, or the config
    leaves it to the processor. ``media`` as in a plan: frames are one video, or pictures.

    As the processors of transformers count them. What stands between frames (time stamps, tile numbers) is text.
    """
    if frames == 0:
        return 0
    try:
        return _image_tokens(config, frames, media != "image" and model_type(config) in VIDEO_FAMILIES)
    except (TypeError, ValueError, ArithmeticError):  # damaged
        return None


def _image_tokens(config: dict[str, Any], frames: int, video: bool) -> int | None:
    kind = model_type(config)
    if kind == "gemma3":
        pooled = config.get("mm_tokens_per_image", 256)
        return frames * int(pooled) if pooled else None
    patches = _patches(config)
    if patches is None:
        length = config.get("image_seq_length") if kind in ("llava", "vipllava") else None
        return length * frames if isinstance(length, int) else None
    # CLIP prepends a class token, SigLIP has none; "default" drops the first token, "full" keeps all. VipLLaVA drops.
    class_token = 0 if "siglip" in str(config["vision_config"].get("model_type")) else 1
    dropped = int(kind == "vipllava" or config.get("vision_feature_select_strategy", "default") == "default")
    if kind in ("llava", "vipllava") or (kind == "video_llava" and not video):
        return frames * (patches + class_token - dropped)
    if kind == "video_llava":  # the class token stays
        return frames * (patches + class_token)
    if kind == "llava_next_video" and video:
        return frames * (patches // 4)
    if kind == "llava_onevision" and video:  # one for the end of the video
        return frames * math.ceil(math.isqrt(patches) / 2) ** 2 + 1
    if kind == "llava_onevision" and frames > 1:  # several pictures are not cut up
        return frames * (patches + 1 - dropped)
    if kind == "internvl" and video:
        return frames * int(patches * float(config.get("downsample_ratio", 0.5)) ** 2)
    if kind == "smolvlm" and video:
        return frames * int(patches / int(config.get("scale_factor", 2)) ** 2)
    return frames * patches if kind == "paligemma" else None


def _patches(config: dict[str, Any]) -> int | None:
    """Patches of a picture of the size that the vision tower is made for; ``None`` where the config does not say."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return None
    sides: list[list[Any]] = []
    for key in ("image_size", "patch_size"):
        value = vision.get(key)
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
            return None
        sides.append(pair)
    (height, width), (tall, wide) = sides
    return int((height // tall) * (width // wide))


def context_length(config: dict[str, Any]) -> int | None:
    """Tokens the language model was made for; ``None`` where the config does not say."""
    for part in (config.get("text_config"), config):
        if isinstance(part, dict) and isinstance(part.get("max_position_embeddings"), int):
            return int(part["max_position_embeddings"])
    return None


def overflow(config: dict[str, Any], frames: int, prompt_tokens: int, new_tokens: int, media: str = "auto") -> str:
    """Why ``frames`` frames, ``prompt_tokens`` of text and ``new_tokens`` do not fit the context; "" if they do.

    "" as well where the config does not say enough. ``media`` as for :func:`image_tokens`.
    """
    seen, context = image_tokens(config, frames, media), context_length(config)
    if seen is None or context is None:
        return ""
    total = seen + prompt_tokens + new_tokens
    if total <= context:
        return ""

    def fits(fewer: int) -> bool:
        needed = image_tokens(config, fewer, media)
        return needed is not None and needed + prompt_tokens + new_tokens <= context

    fitting = next((fewer for fewer in range(frames - 1, 0, -1) if fits(fewer)), 0)
    mend = f"use --frames {fitting}" + (" or fewer" if fitting > 1 else "") if fitting else "use fewer --new-tokens"
    each, rest = divmod(seen, max(frames, 1))
    pictures = f"{counted(frames, 'frame')} × {each:,} tokens" + (f" + {rest:,}" if rest else "")
    return f"{pictures} + {prompt_tokens:,} prompt + {new_tokens:,} new = {total:,} > {context:,} context; {mend}"


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
