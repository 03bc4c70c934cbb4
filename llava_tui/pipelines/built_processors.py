"""Processors and tokenizers for models of which there is only a config: the family's own classes, with its sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.checkpoints import CHAT_TEMPLATE, byte_tokenizer
from llava_tui.pipelines.random_weights import parsed

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def processor_of(transformers: Any, config: dict[str, Any], folder: Path | None) -> Any:
    """The processor of ``folder`` where it has the files, else one of the family's class for ``config``, with a
    tokenizer of bytes. Raises :class:`PipelineError` for families that there is none for."""
    if has_processor(folder):
        return transformers.AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    return build(transformers, parsed(transformers, config))


def has_processor(folder: Path | None) -> bool:
    """Whether the files of a processor and of its tokenizer are there."""
    return folder is not None and all(
        any((folder / name).is_file() for name in names) for names in (_TOKENIZER_FILES, _PROCESSOR_FILES)
    )


def check_family(config: dict[str, Any]) -> None:
    """Raises :class:`PipelineError` where no processor can be built for the family of a ``config.json``."""
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        raise PipelineError(
            f"no processor can be built for {kind} models: put the processor's and the tokenizer's files "
            f"beside config.json, or use one of: {', '.join(_FAMILIES)}"
        )


def build(transformers: Any, config: Any) -> Any:
    """See :func:`processor_of`; ``config`` is the library's."""
    check_family(config.to_dict())
    vision = config.vision_config
    side, class_token = vision.image_size, int("clip" in vision.model_type)
    given: dict[str, Any] = {
        "tokenizer": byte_tokenizer(special_tokens(config), config.text_config.vocab_size),
        "chat_template": CHAT_TEMPLATE,
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": class_token,
    }
    square = {"height": side, "width": side}
    clip = {"size": {"shortest_edge": side}, "crop_size": square}
    family = _FAMILIES[config.model_type]
    if family == "LlavaNext":
        images = transformers.LlavaNextImageProcessor(**clip, image_grid_pinpoints=config.image_grid_pinpoints)
    elif family == "LlavaOnevision":
        pinpoints = config.image_grid_pinpoints
        images = transformers.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=pinpoints)
        given |= {
            "video_processor": transformers.LlavaOnevisionVideoProcessor(size=square),
            "num_image_tokens": (side // vision.patch_size) ** 2 + class_token,
            "vision_aspect_ratio": config.vision_aspect_ratio,
        }
    elif family == "VideoLlava":
        images = transformers.VideoLlavaImageProcessor(**clip)
        given["video_processor"] = transformers.VideoLlavaVideoProcessor(**clip)
    elif class_token:
        images = transformers.CLIPImageProcessor(**clip)
    else:
        images = transformers.SiglipImageProcessor(size=square)
    return getattr(transformers, f"{family}Processor")(image_processor=images, **given)


_FAMILIES = {
    "llava": "Llava",
    "vipllava": "Llava",
    "llava_next": "LlavaNext",
    "llava_onevision": "LlavaOnevision",
    "video_llava": "VideoLlava",
}
"""Model types that a processor can be built for, and how their classes' names begin."""


def special_tokens(config: Any) -> dict[int, str]:
    """The id of each special token: the config's, or the first that is free where it names none, or one for two."""
    text = config.text_config
    wanted = {
        "<image>": config.image_token_id,
        "<video>": getattr(config, "video_token_id", None),
        "</s>": text.eos_token_id,
        "<s>": text.bos_token_id,
        "<pad>": config.pad_token_id if getattr(config, "pad_token_id", None) is not None else text.pad_token_id,
        "<unk>": 0,
    }
    found: dict[int, str] = {}
    for token, wish in wanted.items():
        wish = wish[0] if isinstance(wish, list) and wish else wish
        if wish is None and token == "<video>":
            continue
        free = next(i for i in range(len(wanted)) if i not in found)
        found[wish if isinstance(wish, int) and wish >= 0 and wish not in found else free] = token
    return found


def tell_ids(transformers: Any, model: Any, tokenizer: Any) -> None:
    """Makes the model end and pad with the tokenizer's ids."""
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
