"""What a model is given: frames and a prompt, as the tensors of its family's processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from llava_tui import architecture
from llava_tui.pipelines import families
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.frames import Frames

_USUAL_RATE = 24.0
"""Frames a second of what does not say: what the library's processors take too."""
_OF_TRAINING = ("labels",)
"""What processors make for the loss alone: given to ``generate()`` it would be computed."""


def media_of(clips: list[Frames], wanted: str, processor: Any) -> str:
    """How frames are given: ``video`` (the frames of an input as one), ``image`` (each as a picture), or ``text``
    where there are none. ``wanted`` is one of :data:`llava_tui.plan.MEDIA`.

    ``auto`` is video where the family has a road for it and every input of the batch is one: a video, or a folder of
    its frames. Raises :class:`PipelineError` where a video is wanted and cannot be.
    """
    if not clips:
        return "text"
    road = families.has_video_road(processor)
    if wanted == "video" and not road:
        raise PipelineError("media: this model takes no videos, only pictures; use --media image")
    alike = all(image.shape == clip.images[0].shape for clip in clips for image in clip.images)
    if wanted == "video" and not alike:
        raise PipelineError("media: the pictures of a video have to be of one size; use --media image")
    if wanted == "auto":
        moving = all(not clip.separate and (clip.sampling != "files" or clip.total > 1) for clip in clips)
        return "video" if road and alike and moving else "image"
    return wanted


class Batching:
    """One model's way from frames and text to tensors."""

    def __init__(self, processor: Any, config: dict[str, Any]) -> None:
        """``config`` as ``config.json`` has it, whole."""
        self._processor = processor
        self._config = config

    def prompt(self, text: str, frames: int, media: str) -> str:
        """The whole prompt with what stands in for pictures: the processor's own form, where it has one."""
        parts = {"text": 0, "video": 1, "image": frames}[media]
        if getattr(self._processor, "chat_template", None):
            content = [{"type": media}] * parts + [{"type": "text", "text": text}]
            conversation = [{"role": "user", "content": content}]
            return str(self._processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
        return families.plain_prompt(architecture.model_type(self._config), [self.token(media)] * parts, text)

    def media(self, clips: list[Frames], wanted: str) -> str:
        """See :func:`media_of`."""
        return media_of(clips, wanted, self._processor)

    def length(self, text: str) -> int:
        """Tokens of a whole prompt in which pictures are one token each."""
        return len(self._processor.tokenizer(text).input_ids)

    def token(self, media: str) -> str:
        """What stands for a picture or a video in a prompt."""
        return str(getattr(self._processor, f"{media}_token", "") or f"<{media}>")

    def tensors(self, texts: list[str], clips: list[Frames], media: str) -> Any:
        """The processor's tensors, on the host: ids and mask (batch, prompt), pixels as the family has them.

        ``texts`` are whole prompts, one a sequence; ``clips`` the sequences' frames, none for text only.
        """
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        bos = self._processor.tokenizer.bos_token
        if bos and texts[0].startswith(bos):  # Templates may write the beginning-of-sequence token themselves.
            options["add_special_tokens"] = False
        if media == "text":
            from transformers import BatchFeature

            return BatchFeature(dict(self._processor.tokenizer(texts, **options)))
        options["input_data_format"] = "channels_last"
        if media == "video":
            options |= self._videos(clips)
        else:
            options["images"] = [clip.images for clip in clips]
        batch = self._processor(text=texts, **options)
        for name in _OF_TRAINING:
            batch.pop(name, None)
        return batch

    def _videos(self, clips: list[Frames]) -> dict[str, Any]:
        """Videos that are decoded and sampled already, and when each of their frames was."""
        from transformers.video_utils import VideoMetadata

        # Frames that are made into one token each: processors repeat the last where some lack, but not all of them do
        # for a video of fewer than that.
        least = getattr(self._processor.video_processor, "temporal_patch_size", None) or 1
        videos, metadata = [], []
        for clip in clips:
            images, indices = ([*of, *of[-1:] * (least - len(of))] for of in (clip.images, clip.indices))
            rate = clip.fps or _USUAL_RATE
            videos.append(np.stack(images))
            metadata.append(
                VideoMetadata(
                    total_num_frames=clip.total,
                    fps=rate,
                    duration=clip.total / rate,
                    height=images[0].shape[0],
                    width=images[0].shape[1],
                    frames_indices=indices,
                )
            )
        return {"videos": videos, "do_sample_frames": False, "video_metadata": metadata}

    def count(self, batch: Any) -> tuple[int, int]:
        """Tokens of the first sequence's prompt, and how many of them are pictures."""
        ids = batch["input_ids"][0]
        pictures = sum(int((ids == token).sum()) for token in families.picture_tokens(self._config))
        return int(batch["attention_mask"][0].sum()), pictures


def pictures(batch: Any, clips: list[Frames]) -> int:
    """Pictures that the vision tower is given: crops counted, where the pixels tell them apart."""
    pixels = next((batch[key] for key in families.PIXELS if key in batch), None)
    if pixels is None or not hasattr(pixels, "shape") or len(pixels.shape) < 4:  # patches of all of them in one row
        return sum(len(clip.images) for clip in clips)
    return int(pixels.shape[:-3].numel())
