"""Processors and tokenizers for models of which there is only a config: the family's own classes, with its sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava_tui import models
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.checkpoints import byte_tokenizer, chat_template
from llava_tui.pipelines.random_weights import parsed


def processor_of(transformers: Any, config: dict[str, Any], folder: Path | None) -> Any:
    """The processor of ``folder`` where it has the files, else one of the family's class for ``config``, with a
    tokenizer of bytes. Raises :class:`PipelineError` for families that there is none for."""
    if has_processor(folder):
        return transformers.AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    return build(transformers, parsed(transformers, config))


def has_processor(folder: Path | None) -> bool:
    """Whether the files of a processor and of its tokenizer are there."""
    return folder is not None and not models.missing_files(folder)


def check_family(config: dict[str, Any]) -> None:
    """Raises :class:`PipelineError` where no processor can be built for the family of a ``config.json``."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise PipelineError(
            f"no processor can be built for {kind} models: put the processor's and the tokenizer's files "
            f"beside config.json, or use one of: {', '.join(FAMILIES)}"
        )


def build(transformers: Any, config: Any) -> Any:
    """See :func:`processor_of`; ``config`` is the library's."""
    check_family(config.to_dict())
    family = FAMILIES[config.model_type]
    return getattr(transformers, f"{family.processor}Processor")(
        tokenizer=byte_tokenizer(special_tokens(config), config.text_config.vocab_size, family.named),
        chat_template=chat_template(family.image, family.video),
        **family.parts(transformers, config),
    )


# --- what each family's processor is made of -----------------------------------------------------------------------


def _side(config: Any) -> int:
    """Pixels a side of what the vision tower sees."""
    side = config.vision_config.image_size
    return int(side if isinstance(side, int) else side[0])


def _patch(config: Any) -> int:
    patch = config.vision_config.patch_size
    return int(patch if isinstance(patch, int) else patch[0])


def _square(config: Any) -> dict[str, int]:
    return {"height": _side(config), "width": _side(config)}


def _cropped(config: Any) -> dict[str, Any]:
    return {"size": {"shortest_edge": _side(config)}, "crop_size": _square(config)}


def _class_token(config: Any) -> int:
    return int("clip" in config.vision_config.model_type)


def _llava(transformers: Any, config: Any) -> dict[str, Any]:
    """What LLaVA's processors count tokens with, and pictures as its towers see them."""
    if _class_token(config):
        images = transformers.CLIPImageProcessor(**_cropped(config))
    else:
        images = transformers.SiglipImageProcessor(size=_square(config))
    return {
        "image_processor": images,
        "patch_size": _patch(config),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": _class_token(config),
    }


def _llava_next(transformers: Any, config: Any) -> dict[str, Any]:
    pinpoints = config.image_grid_pinpoints
    images = transformers.LlavaNextImageProcessor(**_cropped(config), image_grid_pinpoints=pinpoints)
    return _llava(transformers, config) | {"image_processor": images}


def _llava_next_video(transformers: Any, config: Any) -> dict[str, Any]:
    videos = transformers.LlavaNextVideoVideoProcessor(**_cropped(config))
    return _llava_next(transformers, config) | {"video_processor": videos}


def _llava_onevision(transformers: Any, config: Any) -> dict[str, Any]:
    pinpoints = config.image_grid_pinpoints
    return _llava(transformers, config) | {
        "image_processor": transformers.LlavaOnevisionImageProcessor(
            size=_square(config), image_grid_pinpoints=pinpoints
        ),
        "video_processor": transformers.LlavaOnevisionVideoProcessor(size=_square(config)),
        "num_image_tokens": (_side(config) // _patch(config)) ** 2 + _class_token(config),
        "vision_aspect_ratio": config.vision_aspect_ratio,
    }


def _video_llava(transformers: Any, config: Any) -> dict[str, Any]:
    return _llava(transformers, config) | {
        "image_processor": transformers.VideoLlavaImageProcessor(**_cropped(config)),
        "video_processor": transformers.VideoLlavaVideoProcessor(**_cropped(config)),
    }


def _qwen(videos: str, least: int) -> Callable[[Any, Any], dict[str, Any]]:
    """Pictures of any size, from ``least`` tokens to 16,384, as the published checkpoints have it."""

    def parts(transformers: Any, config: Any) -> dict[str, Any]:
        vision = config.vision_config
        cut = {
            "patch_size": _patch(config),
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        token = (_patch(config) * vision.spatial_merge_size) ** 2  # pixels
        sizes = {"shortest_edge": least * token, "longest_edge": 16384 * token}
        video_sizes = {"shortest_edge": 128 * token, "longest_edge": 768 * token}
        return {
            "image_processor": transformers.Qwen2VLImageProcessor(size=sizes, **cut),
            "video_processor": getattr(transformers, videos)(size=video_sizes, **cut),
        }

    return parts


def _internvl(transformers: Any, config: Any) -> dict[str, Any]:
    return {
        "image_processor": transformers.GotOcr2ImageProcessor(size=_square(config)),
        "video_processor": transformers.InternVLVideoProcessor(size=_square(config)),
        "image_seq_length": int((_side(config) // _patch(config)) ** 2 * config.downsample_ratio**2),
    }


def _idefics3(transformers: Any, config: Any, prefix: str = "Idefics3") -> dict[str, Any]:
    """Pictures are scaled to four tiles a side and cut, and seen whole as well."""
    tile = {"longest_edge": _side(config)}
    images = getattr(transformers, f"{prefix}ImageProcessor")
    return {
        "image_processor": images(size={"longest_edge": 4 * _side(config)}, max_image_size=tile),
        "image_seq_len": int((_side(config) // _patch(config)) ** 2 / config.scale_factor**2),
    }


def _smolvlm(transformers: Any, config: Any) -> dict[str, Any]:
    tile = {"longest_edge": _side(config)}
    videos = transformers.SmolVLMVideoProcessor(size=tile, max_image_size=tile)
    return _idefics3(transformers, config, "SmolVLM") | {"video_processor": videos}


def _paligemma(transformers: Any, config: Any) -> dict[str, Any]:
    images = transformers.SiglipImageProcessor(size=_square(config))
    images.image_seq_length = (_side(config) // _patch(config)) ** 2
    return {"image_processor": images}


def _gemma3(transformers: Any, config: Any) -> dict[str, Any]:
    return {
        "image_processor": transformers.Gemma3ImageProcessor(size=_square(config)),
        "image_seq_length": config.mm_tokens_per_image,
    }


_IMAGE = {"image_token": "<image>"}


@dataclass(frozen=True, slots=True)
class Family:
    """How the processor of a family is made."""

    processor: str
    """How its class's name begins."""
    parts: Callable[[Any, Any], dict[str, Any]]
    """From the library and a config, what the processor is made of beside the tokenizer."""
    named: Mapping[str, str] = field(default_factory=lambda: _IMAGE)
    """The attribute under which the processor asks the tokenizer for each of its special tokens."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """The config's name for the id of each, where that is not the attribute's own."""
    image: str = "<image>"
    """What stands for a picture in a prompt."""
    video: str = ""
    """What stands for a video; "" where the family has none."""
    others: tuple[str, ...] = ()
    """More special tokens, of which no config has the id."""


_BOTH = {"image_token": "<image>", "video_token": "<video>"}
_QWEN_TOKENS: dict[str, Any] = {
    "named": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
_SMOL_TOKENS: dict[str, Any] = {
    "named": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    },
    "others": _TILES,
}
_PLACES = (*(f"<loc{i:04}>" for i in range(1024)), *(f"<seg{i:03}>" for i in range(128)))
"""Which PaliGemma's processor adds to a tokenizer that has none."""

FAMILIES: dict[str, Family] = {
    "llava": Family("Llava", _llava),
    "vipllava": Family("Llava", _llava),
    "llava_next": Family("LlavaNext", _llava_next),
    "llava_next_video": Family("LlavaNextVideo", _llava_next_video, named=_BOTH, video="<video>"),
    "llava_onevision": Family("LlavaOnevision", _llava_onevision, named=_BOTH, video="<video>"),
    "video_llava": Family("VideoLlava", _video_llava, named=_BOTH, video="<video>"),
    "qwen2_vl": Family("Qwen2VL", _qwen("Qwen2VLVideoProcessor", 4), **_QWEN_TOKENS),
    "qwen2_5_vl": Family("Qwen2_5_VL", _qwen("Qwen2VLVideoProcessor", 4), **_QWEN_TOKENS),
    "qwen3_vl": Family("Qwen3VL", _qwen("Qwen3VLVideoProcessor", 64), **_QWEN_TOKENS),
    "internvl": Family(
        "InternVL",
        _internvl,
        named={
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        },
        ids={"context_image_token": "image_token_id"},
        image="<IMG_CONTEXT>",
        video="<video>",
    ),
    "smolvlm": Family("SmolVLM", _smolvlm, video="<video>", **_SMOL_TOKENS),
    "idefics3": Family("Idefics3", _idefics3, **_SMOL_TOKENS),
    "paligemma": Family("PaliGemma", _paligemma, others=_PLACES),
    "gemma3": Family(
        "Gemma3",
        _gemma3,
        named={"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        image="<start_of_image>",
    ),
}
"""Model types that a processor can be built for."""


def special_tokens(config: Any) -> dict[int, str]:
    """The id of each special token: the config's, or the first that is free where it names none, or one for two."""
    family, text = FAMILIES[config.model_type], config.text_config
    pad = None if config.model_type in ("smolvlm", "idefics3") else getattr(config, "pad_token_id", None)
    wanted = {
        token: getattr(config, family.ids.get(name, f"{name}_id"), None) for name, token in family.named.items()
    } | {
        "</s>": text.eos_token_id,
        "<s>": text.bos_token_id,
        "<pad>": pad if pad is not None else text.pad_token_id,
        "<unk>": 0,
        **dict.fromkeys(family.others),
    }
    found: dict[int, str] = {}
    homeless = []
    for token, wish in wanted.items():
        wish = wish[0] if isinstance(wish, list) and wish else wish
        if isinstance(wish, int) and wish >= 0 and wish not in found:
            found[wish] = token
        else:
            homeless.append(token)
    free = (i for i in itertools.count() if i not in found)
    for token in homeless:
        found[next(free)] = token
    return found


def tell_ids(transformers: Any, model: Any, tokenizer: Any) -> None:
    """Makes the model end and pad with the tokenizer's ids."""
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
