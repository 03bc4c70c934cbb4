"""Where a family has its parts, and what it cannot do: all that a run has to know of a model's insides.

Most of it is found by the names that the library gives parts of the same kind; only what no name tells is listed by
family.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

MODALITIES: dict[str, tuple[str, ...]] = {
    "image": ("pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos",),
}
"""What ``generate()`` takes encoded, and of which of a processor's tensors that is made."""
PIXELS: tuple[str, ...] = (*MODALITIES["image"], *MODALITIES["video"])
"""What the encoders read; all else that a processor makes goes on to the language model."""

_PROJECTORS = (
    *("multi_modal_projector", "connector", "aligner", "embed_vision"),
    *("language_projection", "vision_projection", "mm_projector"),
)
"""Beside the vision tower."""
_NESTED = ("merger", "deepstack_merger_list")
"""Within it."""
_WITHOUT_TEMPLATE = {
    "paligemma": "{pictures}{prompt}",
    "blip-2": "Question: {prompt} Answer:",
    "git": "{prompt}",
}
"""Prompts of families whose processors write the rest themselves."""
_FALLBACK = "USER: {lines}{prompt} ASSISTANT:"
"""LLaVA-1.5's, for processors that were saved without a template."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules of a model that stages are told of."""

    towers: tuple[Any, ...]
    """What encodes pictures and videos: one, or one each; none where it is not known."""
    projectors: tuple[Any, ...]
    """What makes the language model's tokens of their output; may be inside them."""


def parts(model: Any) -> Parts:
    """The parts that pictures and videos go through on their way to the language model."""
    base = model.base_model
    found = [model.get_encoder("image"), getattr(base, "video_tower", None)]
    # The library's word for none of a name that it knows is the model itself.
    towers = [tower for tower in found if tower is not None and tower is not model and tower is not base]
    beside = [getattr(base, name) for name in _PROJECTORS if getattr(base, name, None) is not None][:1]
    nested = [getattr(tower, name) for tower in towers for name in _NESTED if getattr(tower, name, None) is not None]
    projectors = beside or [each for part in nested for each in (part if _is_list(part) else (part,))]
    return Parts(tuple(towers), tuple(projectors))


def encoder(model: Any, modality: str) -> Any:
    """What encodes a modality, as ``generate()`` finds it; ``None`` where the model has no such function."""
    return getattr(model.base_model, f"get_{modality}_features", None)


def given(encode: Any, batch: Any) -> dict[str, Any]:
    """What ``encode`` takes of a processor's tensors."""
    return {key: batch[key] for key in inspect.signature(encode).parameters if key in batch}


def reads_pictures(model: Any) -> bool:
    """Whether pictures can be given to the model at all."""
    forward = inspect.signature(model.forward).parameters
    named = "image" in getattr(model, "input_modalities", ())
    return named or encoder(model, "image") is not None or any(key in forward for key in PIXELS)


def unsplit(model: Any) -> str:
    """Why encoding cannot be done before ``generate()``; "" where it can.

    Since transformers 5.18 ``generate()`` takes what the encoders returned (``mm_encoder_outputs``), of models whose
    ``forward()`` does.
    """
    from transformers import GenerationMixin

    if model.config.is_encoder_decoder:
        return "its text is written by an encoder and a decoder"
    if encoder(model, "image") is None and encoder(model, "video") is None:
        return "it has no function that encodes pictures alone"
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return "it takes no pictures that are encoded already"
    if type(model).generate is not GenerationMixin.generate:
        return "it has a generate() of its own"
    return ""


def has_video_road(processor: Any) -> bool:
    """Whether a video can be given as such, and not only as pictures."""
    return getattr(processor, "video_processor", None) is not None


def picture_tokens(config: dict[str, Any]) -> set[int]:
    """Ids that stand for pictures and videos in a prompt, by ``config.json``."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    found = {config.get(name) for name in names}
    return {token for token in found if isinstance(token, int)}


def plain_prompt(model_type: str, tokens: list[str], prompt: str) -> str:
    """A prompt for a processor without a template; ``tokens`` stand for its pictures or its video."""
    form = _WITHOUT_TEMPLATE.get(model_type, _FALLBACK)
    return form.format(pictures="".join(tokens), lines="".join(f"{token}\n" for token in tokens), prompt=prompt)


def _is_list(module: Any) -> bool:
    return type(module).__name__ == "ModuleList"
