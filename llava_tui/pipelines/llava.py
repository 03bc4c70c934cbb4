"""Vision-language models through transformers: frames are encoded once, then generated from.

Step 2 calls the model's own ``get_image_features`` or ``get_video_features``; step 3 hands what it returned to
``generate()`` as ``mm_encoder_outputs``, which is what ``generate()`` does by itself, so the tokens are those of a
plain call. A model that cannot be split so encodes within its prefill, and that is told as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llava_tui import architecture
from llava_tui.events import ModelFacts, StageInfo
from llava_tui.pipelines import batching, compiling, families, overflow
from llava_tui.pipelines.base import (
    LLAVA_STAGES,
    BrokenInput,
    Input,
    PipelineError,
    Probe,
    RunResult,
    first_line,
    of_sequence,
    paths_of,
    prompt_of,
    shown,
    stage,
)
from llava_tui.pipelines.batching import Batching
from llava_tui.pipelines.families import Parts
from llava_tui.pipelines.frames import Frames, sample_frames
from llava_tui.pipelines.hooks import Watch
from llava_tui.pipelines.loading import LoadedModel
from llava_tui.plan import Case, Plan
from llava_tui.session_files import Item
from llava_tui.units import counted

if TYPE_CHECKING:
    from pathlib import Path

    from llava_tui.pipelines.generate import TimedLoop


class LlavaPipeline(LoadedModel):
    """One model that reads pictures on one set of inputs (see :class:`llava_tui.pipelines.base.Pipeline`)."""

    stages: tuple[StageInfo, ...] = LLAVA_STAGES

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._family: dict[str, str] = {}
        """What is known of how the model's family runs here."""

    # --- what was loaded -------------------------------------------------------------------------------------------

    def _unsupported(self) -> str:
        kind = self.model.config.model_type
        if not self.model.can_generate():
            return f"{kind} models write no text; use a model that describes pictures"
        if not families.reads_pictures(self.model):
            return f"{kind} models read no pictures; use a vision-language model"
        return ""

    def _loaded(self) -> None:
        super()._loaded()
        kind = architecture.model_type(self.config)
        tested, unsplit = kind in architecture.KNOWN_FAMILIES, families.unsplit(self.model)
        self._family = {"family": "tested" if tested else "untested"} | ({"unsplit": unsplit} if unsplit else {})
        if not tested:
            self._warn(f"{kind} models are untested: each session checks them against plain generate(), no test does")
        if unsplit:
            self._warn(f"{kind} models cannot be split ({unsplit}): what encoding takes is a part of prefill")

    def _facts(self, torch: Any, folder: Path | None) -> ModelFacts:
        facts = super()._facts(torch, folder)
        return msgspec.structs.replace(facts, extra=facts.extra | self._family)

    def check_case(self, case: Case) -> str:
        """Why ``case`` cannot run, or "". The model is loaded."""
        if problem := self.check_settings(case):
            return problem
        if problem := self._stands_for_frames(case, self.plan.prompt):
            return f"the prompt {problem}"
        return overflow.before_running(self._batching, self.config, self.plan, case)

    def _stands_for_frames(self, case: Case, prompt: str) -> str:
        """What is wrong with a prompt that has a frame's token in it, or ""."""
        tokens = {self._batching.token("image"), self._batching.token("video")}
        found = next((token for token in sorted(tokens if case.frames else ()) if token in prompt), "")
        told = f"contains {found}, which stands for a frame: leave it out, frames are put in by themselves"
        return told if found else ""

    def detokenize(self, ids: list[int]) -> str:
        """Text of new token ids, special tokens left out."""
        return str(self.processor.decode(ids, skip_special_tokens=True))

    # --- a run -----------------------------------------------------------------------------------------------------

    def run(self, case: Case, inputs: tuple[Input, ...], seed: int, probe: Probe) -> RunResult:
        """One execution: sequence i of the batch is about ``inputs[i % len(inputs)]``."""
        import torch

        from llava_tui.pipelines.generate import TimedLoop

        torch.manual_seed(seed)
        compiled, step = compiling.graphs(), self._compiled_step(case)
        split = "unsplit" not in self._family
        clips: list[Frames] = []
        features = None
        with Watch(self.model, self._parts(), probe) as watch, torch.no_grad():
            if case.frames:
                with stage(probe, "frames"), stage(probe, "frames.decode_frames"):
                    clips = self._decode(case, inputs, probe)
            with stage(probe, "encode"):
                with stage(probe, "encode.preprocess"):
                    batch = self._preprocess(case, clips, inputs)
                    counts = self._batching.count(batch)
                probe.check()
                with stage(probe, "encode.h2d"):
                    batch = batch.to(self.device, dtype=self.model.dtype)
                if split and clips:
                    with watch.encoding():
                        features = self._encode(batch)
            with stage(probe, "generate"):
                loop = TimedLoop(probe, watch.stop_checking, step)
                if clips and not split:
                    loop.begin_prefill()  # with encoding in it
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
            # Where it cannot be split there is no once, and what the tower is may not be known either.
            vision_calls=watch.vision_calls if split else None,
            facts={
                "media": self._media(clips),
                "pictures": batching.pictures(batch, clips),
                "sampling": ", ".join(sorted({clip.sampling for clip in clips})),
                "frames_decoded": sum(clip.decoded for clip in clips),
                "frame_indices": [clip.indices for clip in clips],
                **self._cache_facts(loop, batch["input_ids"].shape[1]),
                **({"compiled_graphs": compiled} if compiled else {}),
            },
            disturbed="a step of decoding was compiled in it" if compiled else "",
        )

    def reference(self, case: Case, inputs: tuple[Input, ...], probe: Probe) -> list[list[int]]:
        """New token ids of the library's plain one-shot ``generate()``; nothing of ours is on the model.

        Can be cut short between frames and tokens.
        """
        from transformers import StoppingCriteriaList

        from llava_tui.pipelines.generate import Cut

        batch = self._preprocess(case, self._decode(case, inputs, probe), inputs)
        batch = batch.to(self.device, dtype=self.model.dtype)
        # The length of the longest static cache so far, which this one would have as well.
        self.model.__dict__.pop("_previous_max_cache_length", None)
        options = self._options(case) | self._cache_options(case)
        ids = self.model.generate(**batch, stopping_criteria=StoppingCriteriaList([Cut(probe)]), **options)
        # Of fixed length; some models return the prompt before it, some do not.
        new: list[list[int]] = ids[:, -case.new_tokens :].tolist()
        return new

    def _decode(self, case: Case, inputs: tuple[Input, ...], probe: Probe) -> list[Frames]:
        clips = []
        for sequence in range(case.batch if case.frames else 0):
            probe.check()
            paths = paths_of(inputs[sequence % len(inputs)])
            source = shown(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
            with of_sequence(sequence):
                clip = sample_frames(paths[0] if len(paths) == 1 else paths, case.frames, probe.check)
            if clip.total < case.frames:
                self._warn(
                    f"{source} has {clip.total} of the {case.frames} frames asked for: some are used more than once"
                )
            if clip.replaced:
                lost = counted(len(clip.replaced), "frame")
                self._warn(f"{source}: {lost} cannot be decoded; the nearest later one is used instead")
            clips.append(clip)
        return clips

    def _media(self, clips: list[Frames]) -> str:
        return self._batching.media(clips, self.plan.media)

    def _preprocess(self, case: Case, clips: list[Frames], inputs: tuple[Input, ...] = ("",)) -> Any:
        """The processor's tensors, on the host; see :meth:`Batching.tensors`. No clips: of the prompts alone.

        Raises :class:`BrokenInput` where the prompt of an item of a data set does not fit the context or has a frame's
        token in it, and for an item that the processor refuses.
        """
        media = self._media(clips)
        prompts = [prompt_of(inputs[sequence % len(inputs)], self.plan.prompt) for sequence in range(case.batch)]
        for sequence, prompt in enumerate(prompts):
            if prompt != self.plan.prompt and (problem := self._stands_for_frames(case, prompt)):
                with of_sequence(sequence):
                    raise BrokenInput(paths_of(inputs[sequence % len(inputs)])[0], f"its prompt {problem}")
        texts = [self._batching.prompt(prompt, case.frames, media) for prompt in prompts]
        try:
            batch = self._batching.tensors(texts, clips, media)
        except ValueError:
            self._blame(inputs, texts, clips, media)
            raise
        if any(prompt != self.plan.prompt for prompt in prompts):
            self._check_length(case, inputs, batch)
        return batch

    def _blame(self, inputs: tuple[Input, ...], texts: list[str], clips: list[Frames], media: str) -> None:
        """Raises :class:`BrokenInput` for the first item of a data set that the processor refuses by itself: too narrow
        a picture, for one."""
        for sequence, text in enumerate(texts):
            given = inputs[sequence % len(inputs)]
            try:
                if isinstance(given, Item):
                    self._batching.tensors([text], clips[sequence : sequence + 1], media)
            except ValueError as error:
                with of_sequence(sequence):
                    raise BrokenInput(
                        paths_of(given)[0], f"the model's processor refuses it: {first_line(error)}"
                    ) from None

    def _check_length(self, case: Case, inputs: tuple[Input, ...], batch: Any) -> None:
        """What the plan's own prompt takes was checked before the first run."""
        room = architecture.context_length(self.config) or batch["input_ids"].shape[1] + case.new_tokens
        for sequence, tokens in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
            if tokens + case.new_tokens > room:
                with of_sequence(sequence):
                    raise BrokenInput(
                        paths_of(inputs[sequence % len(inputs)])[0],
                        f"its prompt: {tokens:,} tokens + {case.new_tokens:,} new > {room:,} context; shorten it",
                    )

    def _encode(self, batch: Any) -> dict[str, Any]:
        """What the encoders return, by modality."""
        features = {}
        for modality, keys in families.MODALITIES.items():
            if any(key in batch for key in keys):
                encode = families.encoder(self.model, modality)
                features[modality] = encode(**families.given(encode, batch), return_dict=True)
        return features

    def _generate(self, case: Case, batch: Any, features: Any, loop: TimedLoop) -> None:
        rest = dict(batch.items())
        if features is not None:
            # With the pixels there generate() would encode them again, or refuse them. Sizes and grids stay: positions
            # are made of them.
            rest = {key: value for key, value in rest.items() if key not in families.PIXELS}
            rest["mm_encoder_outputs"] = features
        if self.plan.cache_of(case) == "static":
            length = batch["input_ids"].shape[1] + case.new_tokens - 1  # the last token is not read again
            rest["past_key_values"] = self._caches.take(case.id, self.model, length)
        try:
            self.model.generate(**rest, custom_generate=loop, **self._options(case))
        except Exception as error:
            if self.plan.compile_of(case) == "off" or not compiling.failed(error):
                raise
            raise PipelineError(f"a step of decoding cannot be compiled: {first_line(error)}") from error
        finally:
            loop.end_prefill()

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

    def _parts(self) -> Parts:
        return families.parts(self.model)

    @property
    def _batching(self) -> Batching:
        return Batching(self.processor, self.config)
