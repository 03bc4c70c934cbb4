"""LLaVA through transformers: frames are images, encoded once, then generated from.

Step 2 calls the model's own ``get_image_features``; step 3 hands what it returned to ``generate()`` as
``mm_encoder_outputs``, which is what ``generate()`` does by itself, so the tokens are those of a plain call.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from llava_tui import architecture
from llava_tui.events import StageInfo
from llava_tui.pipelines import compiling
from llava_tui.pipelines.base import LLAVA_STAGES, PipelineError, Probe, RunResult, first_line, stage
from llava_tui.pipelines.frames import Frames, sample_frames
from llava_tui.pipelines.hooks import Watch
from llava_tui.pipelines.loading import LoadedModel
from llava_tui.plan import Case
from llava_tui.units import counted

if TYPE_CHECKING:
    from llava_tui.pipelines.generate import TimedLoop

_FALLBACK_PROMPT = "USER: {images}{prompt} ASSISTANT:"
_PROJECTORS = ("multi_modal_projector", "connector")


class LlavaPipeline(LoadedModel):
    """One LLaVA-like model on one set of inputs (see :class:`llava_tui.pipelines.base.Pipeline`)."""

    stages: tuple[StageInfo, ...] = LLAVA_STAGES

    def _unsupported(self) -> str:
        if callable(getattr(self.model.base_model, "get_image_features", None)) and self._projector() is not None:
            return ""
        return (
            f"{self.model.config.model_type} models are not supported yet; "
            f"use one of: {', '.join(architecture.KNOWN_FAMILIES)}"
        )

    def check_case(self, case: Case) -> str:
        """Why ``case`` cannot run, or "". The model is loaded."""
        if problem := self.check_settings(case):
            return problem
        image = self._image_token()
        if image and image in self.plan.prompt:
            return (
                f"the prompt contains {image}, which stands for a frame: leave it out, frames are put in by themselves"
            )
        text = len(self.processor.tokenizer(self._prompt(case.frames)).input_ids) - case.frames
        return architecture.overflow(self.config, case.frames, text, case.new_tokens)

    def detokenize(self, ids: list[int]) -> str:
        """Text of new token ids, special tokens left out."""
        return str(self.processor.decode(ids, skip_special_tokens=True))

    # --- a run -----------------------------------------------------------------------------------------------------

    def run(self, case: Case, inputs: tuple[str, ...], seed: int, probe: Probe) -> RunResult:
        """One execution: sequence i of the batch is about ``inputs[i % len(inputs)]``."""
        import torch

        from llava_tui.pipelines.generate import TimedLoop

        torch.manual_seed(seed)
        compiled, step = compiling.graphs(), self._compiled_step(case)
        with Watch(self.model, self._vision(), self._projector(), probe) as watch, torch.no_grad():
            with stage(probe, "frames"), stage(probe, "frames.decode_frames"):
                clips = self._decode(case, inputs, probe)
            with stage(probe, "encode"):
                with stage(probe, "encode.preprocess"):
                    batch = self._preprocess(case, clips)
                    counts = self._count(batch)
                probe.check()
                with stage(probe, "encode.h2d"):
                    batch = batch.to(self.device, dtype=self.model.dtype)
                with watch.encoding():
                    features = self._encode(batch)
            with stage(probe, "generate"):
                loop = TimedLoop(probe, watch.stop_checking, step)
                self._generate(case, batch, features, loop)
                with stage(probe, "generate.detokenize"):
                    text = self.processor.batch_decode(loop.new_ids, skip_special_tokens=True)
        compiled = compiling.graphs() - compiled
        return RunResult(
            token_ids=loop.new_ids,
            text=text,
            frames=sum(len(set(clip.indices)) for clip in clips),
            prompt_tokens=counts[0],
            image_tokens=counts[1],
            vision_calls=watch.vision_calls,
            facts={
                "pictures": int(next(batch[key] for key in batch if key.startswith("pixel_values")).shape[:-3].numel()),
                "sampling": ", ".join(sorted({clip.sampling for clip in clips})),
                "frames_decoded": sum(clip.decoded for clip in clips),
                "frame_indices": [clip.indices for clip in clips],
                **self._cache_facts(loop, batch["input_ids"].shape[1]),
                **({"compiled_graphs": compiled} if compiled else {}),
            },
            disturbed="a step of decoding was compiled in it" if compiled else "",
        )

    def reference(self, case: Case, inputs: tuple[str, ...], probe: Probe) -> list[list[int]]:
        """New token ids of the library's plain one-shot ``generate()``; nothing of ours is on the model.

        Can be cut short between frames and tokens.
        """
        from transformers import StoppingCriteriaList

        from llava_tui.pipelines.generate import Cut

        batch = self._preprocess(case, self._decode(case, inputs, probe)).to(self.device, dtype=self.model.dtype)
        # The length of the longest static cache so far, which this one would have as well.
        self.model.__dict__.pop("_previous_max_cache_length", None)
        options = self._options(case) | self._cache_options(case)
        ids = self.model.generate(**batch, stopping_criteria=StoppingCriteriaList([Cut(probe)]), **options)
        new: list[list[int]] = ids[:, batch["input_ids"].shape[1] :].tolist()
        return new

    def _decode(self, case: Case, inputs: tuple[str, ...], probe: Probe) -> list[Frames]:
        clips = []
        for sequence in range(case.batch):
            probe.check()
            source = inputs[sequence % len(inputs)]
            clip = sample_frames(source, case.frames, probe.check)
            if clip.total < case.frames:
                self._warn(
                    f"{source} has {clip.total} of the {case.frames} frames asked for: some are used more than once"
                )
            if clip.replaced:
                lost = counted(len(clip.replaced), "frame")
                self._warn(f"{source}: {lost} cannot be decoded; the nearest later one is used instead")
            clips.append(clip)
        return clips

    def _preprocess(self, case: Case, clips: list[Frames]) -> Any:
        """The processor's tensors, on the host: ids, mask (batch, prompt), pixels (batch × frames, 3, side, side)."""
        text = self._prompt(case.frames)
        bos = self.processor.tokenizer.bos_token
        return self.processor(
            images=[image for clip in clips for image in clip.images],
            text=[text] * len(clips),
            padding=True,
            return_tensors="pt",
            input_data_format="channels_last",
            # Templates may write the beginning-of-sequence token themselves.
            add_special_tokens=not (bos and text.startswith(bos)),
        )

    def _prompt(self, frames: int) -> str:
        content = [{"type": "image"}] * frames + [{"type": "text", "text": self.plan.prompt}]
        if getattr(self.processor, "chat_template", None):
            conversation = [{"role": "user", "content": content}]
            return str(self.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
        return _FALLBACK_PROMPT.format(images=f"{self._image_token()}\n" * frames, prompt=self.plan.prompt)

    def _count(self, batch: Any) -> tuple[int, int]:
        """Tokens of the first sequence's prompt, and how many of them are frames."""
        image = int((batch["input_ids"][0] == self.model.config.image_token_id).sum())
        return int(batch["attention_mask"][0].sum()), image

    def _encode(self, batch: Any) -> Any:
        encode = self.model.base_model.get_image_features
        given = {key: batch[key] for key in inspect.signature(encode).parameters if key in batch}
        return encode(**given, return_dict=True)

    def _generate(self, case: Case, batch: Any, features: Any, loop: TimedLoop) -> None:
        # What went into the features is left out: generate() would encode it again, or refuse it.
        encoded = inspect.signature(self.model.base_model.get_image_features).parameters
        rest = {key: value for key, value in batch.items() if key not in encoded}
        if self.plan.cache_of(case) == "static":
            length = batch["input_ids"].shape[1] + case.new_tokens - 1  # the last token is not read again
            rest["past_key_values"] = self._caches.take(case.id, self.model, length)
        try:
            self.model.generate(
                **rest, mm_encoder_outputs={"image": features}, custom_generate=loop, **self._options(case)
            )
        except Exception as error:
            if self.plan.compile_of(case) == "off" or not compiling.failed(error):
                raise
            raise PipelineError(f"a step of decoding cannot be compiled: {first_line(error)}") from error

    def _compiled_step(self, case: Case) -> Any:
        """The model as it runs the case's steps, where it is compiled."""
        mode = self.plan.compile_of(case)
        return None if mode == "off" else self.model.get_compiled_call(compiling.config(mode, self.device))

    def _cache_options(self, case: Case) -> dict[str, Any]:
        """What makes generate() decode as the case does."""
        if self.plan.cache_of(case) == "dynamic":
            return {}
        mode = self.plan.compile_of(case)
        if mode == "off":  # With a static cache it compiles on accelerators unless it is told not to.
            return {"cache_implementation": "static", "disable_compile": True}
        return {"cache_implementation": "static", "compile_config": compiling.config(mode, self.device)}

    def _options(self, case: Case) -> dict[str, Any]:
        """Greedy and of fixed length: runs compare, and ids can be checked."""
        return {
            "do_sample": False,
            "num_beams": 1,
            "min_new_tokens": case.new_tokens,
            "max_new_tokens": case.new_tokens,
            "use_cache": True,
            "return_dict_in_generate": False,
            "pad_token_id": self.processor.tokenizer.pad_token_id,
        }

    def _vision(self) -> Any:
        return self.model.get_encoder("image")

    def _projector(self) -> Any:
        base = self.model.base_model
        return next((getattr(base, name) for name in _PROJECTORS if hasattr(base, name)), None)

    def _image_token(self) -> str:
        return str(getattr(self.processor, "image_token", "") or "<image>")
