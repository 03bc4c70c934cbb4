"""EventGPT: slices of an event stream are pictures, encoded at once, averaged over space and over time, and generated
from.

Two groupings of the same leaves into five steps, by the plan: ``pipeline``, as the model is built, and ``5stage``, as
its serving is usually profiled. What a leaf measures is the same in both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from llava_tui import architecture, models
from llava_tui.events import ModelFacts, StageInfo
from llava_tui.pipelines import compiling, event_streams
from llava_tui.pipelines.base import (
    BrokenInput,
    Input,
    PipelineError,
    Probe,
    RunResult,
    first_line,
    of_sequence,
    paths_of,
    prompt_of,
    stage,
)
from llava_tui.pipelines.families import Parts
from llava_tui.pipelines.hooks import Watch
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import DEMO, Case, Plan

if TYPE_CHECKING:
    from llava_tui.pipelines.event_streams import EventStream, Picture
    from llava_tui.pipelines.generate import TimedLoop

LONGEST_PROMPT = 2048
"""Tokens of text and events together: upstream cuts off what is beyond."""

_BEFORE = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: <ev_start>"
)
_AFTER = "<ev_end>\n{prompt} ASSISTANT:"
_EVENT = "<event>"
"""Stands for the events between the two, in upstream's prompts."""

_LEAVES = {
    "read": ("read events", "host"),
    "render": ("render slices", "host"),
    "pixels": ("CLIP preprocessing", "host"),
    "tokenize": ("tokenize", "host"),
    "h2d": ("to device", "device"),
    "vision_tower": ("vision tower", "device"),
    "projector": ("projector", "device"),
    "adaptor": ("feature adaptor", "device"),
    "aggregate": ("aggregate", "device"),
    "merge": ("merge with text", "device"),
    "prefill": ("prefill", "device"),
    "decode": ("decode", "device"),
    "detokenize": ("detokenize", "host"),
}
"""In the order that a run goes through them: title, and which clock measures each."""

_STEPS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "pipeline": {
        "events": ("1 read and render", ("read", "render")),
        "preprocess": ("2 preprocess", ("pixels", "tokenize")),
        "encode": ("3 encode", ("h2d", "vision_tower", "projector", "adaptor")),
        "merge": ("4 aggregate and merge", ("aggregate", "merge")),
        "generate": ("5 generate", ("prefill", "decode", "detokenize")),
    },
    "5stage": {
        "events": ("1 load", ("read",)),
        "preprocess": ("2 preprocess", ("render", "pixels", "tokenize")),
        "encode": ("3 vision encoding", ("h2d", "vision_tower", "projector", "adaptor", "aggregate")),
        "prefill": ("4 prefill", ("merge", "prefill")),
        "decode": ("5 decode", ("decode", "detokenize")),
    },
}


def stages_of(grouping: str) -> tuple[StageInfo, ...]:
    """The stage tree of a grouping, one of :data:`llava_tui.plan.GROUPINGS`."""
    tree = []
    for step, (title, leaves) in _STEPS[grouping].items():
        tree.append(StageInfo(step, title))
        for leaf in leaves:
            words, side = _LEAVES[leaf]
            tree.append(StageInfo(f"{step}.{leaf}", words, "device" if side == "device" else "host"))
    return tuple(tree)


class Grouped(AbstractContextManager["Grouped"]):
    """A probe that is told leaves, under whatever step, and tells another the steps of a grouping around them.

    A step lasts until a leaf of another begins, so that what lies between two leaves belongs to a step.
    """

    def __init__(self, probe: Probe, grouping: str) -> None:
        self._probe = probe
        self._paths = {leaf: f"{step}.{leaf}" for step, (_, leaves) in _STEPS[grouping].items() for leaf in leaves}
        self._step = ""
        self.token = probe.token
        self.check = probe.check

    def begin(self, stage: str) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`."""
        path = self._paths[stage.rpartition(".")[2]]
        self.enter(stage)
        self._probe.begin(path)

    def enter(self, stage: str) -> None:
        """What follows is part of the step that this leaf is in: preparing it, for one."""
        step = self._paths[stage.rpartition(".")[2]].partition(".")[0]
        if step != self._step:
            self._close()
            self._probe.begin(step)
            self._step = step

    def end(self, stage: str) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`."""
        self._probe.end(self._paths[stage.rpartition(".")[2]])

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._step:
            self._probe.end(self._step)
            self._step = ""


class EventGptPipeline(LlavaPipeline):
    """EventGPT on event streams (see :class:`llava_tui.pipelines.base.Pipeline`).

    A case's ``frames`` are slices of a stream; upstream takes five. Loading, settings, caches and decoding are those of
    any language model here.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.stages = stages_of(plan.grouping)

    # --- loading ---------------------------------------------------------------------------------------------------

    def _folder(self) -> Path | None:
        if self.plan.model == DEMO:
            from llava_tui.pipelines import eventgpt_checkpoint

            return eventgpt_checkpoint.demo_model()
        try:
            models.check_eventgpt(self.plan.model)
            folder = models.resolve(self.plan.model)
        except models.ModelError as error:
            raise PipelineError(str(error)) from None
        if folder is None:
            raise PipelineError(f"{self.plan.model}: not on this machine; download it: hf download {self.plan.model}")
        return folder

    def _load(self, torch: Any, transformers: Any, source: str, local: bool) -> None:
        from llava_tui.pipelines import eventgpt_checkpoint as checkpoint

        folder = Path(source)
        dtype = self._dtype()
        attention = self.plan.attention.split(",")[0]
        try:
            self.model, missing = checkpoint.load(folder, dtype, "" if attention == "auto" else attention)
            tokenizer = checkpoint.load_tokenizer(folder)
            images = checkpoint.image_processor(folder, self.model)
        except (torch.OutOfMemoryError, MemoryError, PipelineError):
            raise
        except Exception as error:
            raise PipelineError(f"{self.plan.model}: cannot be loaded: {first_line(error)}") from error
        if missing:
            self._warn(f"{len(missing)} weights are not in the checkpoint and have random values, {missing[0]} for one")
        self._have(tokenizer, images)

    def _build(self, torch: Any, transformers: Any) -> None:
        from llava_tui.pipelines import eventgpt_checkpoint as checkpoint

        plan = msgspec.structs.replace(self.plan, dtype=self._wanted.dtype)
        attention = self._attention().get("attn_implementation", "")
        try:
            self.model, tokenizer, images, self._digest = checkpoint.random(plan, self.device, attention)
        except (torch.OutOfMemoryError, MemoryError, PipelineError):
            raise
        except Exception as error:
            raise PipelineError(f"{self.plan.model}: cannot be built: {first_line(error)}") from error
        self._have(tokenizer, images)

    def _have(self, tokenizer: Any, images: Any) -> None:
        """Makes of the parts what other models' processors and configs are."""
        self.processor = SimpleNamespace(
            tokenizer=tokenizer, images=images, decode=tokenizer.decode, batch_decode=tokenizer.batch_decode
        )
        self.config = {
            "model_type": architecture.EVENTGPT,
            "text_config": json.loads(self.model.config.to_json_string(use_diff=False)),
            "vision_config": json.loads(self.model.tower.config.to_json_string(use_diff=False)),
        }

    def _loaded(self) -> None:
        """Nothing is to be completed: the checkpoint is of one family."""

    def _facts(self, torch: Any, folder: Path | None) -> ModelFacts:
        facts = super()._facts(torch, folder)
        return msgspec.structs.replace(
            facts, model_type=architecture.EVENTGPT, extra=facts.extra | {"grouping": self.plan.grouping}
        )

    def _modules(self) -> list[dict[str, Any]]:
        from llava_tui.pipelines import weights

        model = self.model
        own = [("projector", model.projector), ("adaptor", model.adaptor), ("vision tower", model.tower)]
        return weights.modules(model, [*own, *weights.language_parts(model.language)])

    def check_case(self, case: Case) -> str:
        """Why ``case`` cannot run, or "". The model is loaded."""
        if problem := self.check_settings(case):
            return problem
        if _EVENT in self.plan.prompt:
            return f"the prompt contains {_EVENT}, which stands for the events: leave it out, they are put in anyway"
        return self._overflow(case, self.plan.prompt)

    def _overflow(self, case: Case, prompt: str) -> str:
        """Why a prompt is too long for the case, or ""."""
        before, (after,) = self._tokenize([prompt])
        text, events = len(before) + len(after), self._event_tokens(case.frames)
        context = architecture.context_length(self.config) or LONGEST_PROMPT
        told = f"{events:,} tokens of events + {text:,} prompt"
        if text + events > LONGEST_PROMPT:
            return f"{told} = {text + events:,} > {LONGEST_PROMPT:,}, where EventGPT cuts; use a shorter --prompt"
        if (total := text + events + case.new_tokens) > context:
            return f"{told} + {case.new_tokens:,} new = {total:,} > {context:,} context; use fewer --new-tokens"
        return ""

    # --- a run -----------------------------------------------------------------------------------------------------

    def run(self, case: Case, inputs: tuple[Input, ...], seed: int, probe: Probe) -> RunResult:
        """One execution: sequence i of the batch is about ``inputs[i % len(inputs)]``."""
        import torch

        from llava_tui.pipelines.eventgpt_checkpoint import aggregate
        from llava_tui.pipelines.generate import TimedLoop

        torch.manual_seed(seed)
        compiled, step = compiling.graphs(), self._compiled_step(case)
        with (
            Grouped(probe, self.plan.grouping) as told,
            Watch(self.model, self._parts(), told) as watch,
            torch.no_grad(),
        ):
            with stage(told, "read"):
                streams = self._read(case, inputs, told)
            with stage(told, "render"):
                drawn = [event_streams.pictures(stream, case.frames, told.check) for stream in streams]
            with stage(told, "pixels"):
                pixels = self._pixels(drawn)
            with stage(told, "tokenize"):
                text = self._tokenize(self._prompts(case, inputs))
            told.check()
            with stage(told, "h2d"):
                pixels = pixels.to(self.device, dtype=self.model.dtype)
            with watch.encoding():
                features = self.model.project(pixels)
            with stage(told, "adaptor"):
                features = self.model.adaptor(features).unflatten(0, (case.batch, case.frames))
            with stage(told, "aggregate"):
                events = aggregate(features)
                del features
            with stage(told, "merge"):
                given = self._merge(text, events)
            told.enter("prefill")
            loop = TimedLoop(told, watch.stop_checking, step)
            self._decode_from(case, given, loop)
            with stage(told, "detokenize"):
                answer = self.processor.batch_decode(loop.new_ids, skip_special_tokens=True)
        compiled = compiling.graphs() - compiled
        return RunResult(
            token_ids=loop.new_ids,
            text=answer,
            frames=case.frames * case.batch,
            prompt_tokens=given["inputs_embeds"].shape[1],
            image_tokens=events.shape[1],
            vision_calls=watch.vision_calls,
            facts={
                "pictures": case.frames * case.batch,
                "events": [len(stream) for stream in streams],
                "stream_us": [stream.duration_us for stream in streams],
                "picture_sizes": [[list(picture.shape[1::-1]) for picture in of] for of in drawn],
                **self._cache_facts(loop, given["inputs_embeds"].shape[1]),
                **({"compiled_graphs": compiled} if compiled else {}),
            },
            disturbed="a step of decoding was compiled in it" if compiled else "",
        )

    def reference(self, case: Case, inputs: tuple[Input, ...], probe: Probe) -> list[list[int]]:
        """New token ids of the library's plain ``generate(inputs_embeds=…)``; nothing of ours is on the model. Each
        sequence is encoded slice by slice, as upstream does it.

        Can be cut short between slices and tokens.
        """
        import torch
        from transformers import StoppingCriteriaList

        from llava_tui.pipelines.eventgpt_checkpoint import aggregate
        from llava_tui.pipelines.generate import Cut

        with torch.no_grad():
            sequences = []
            for stream in self._read(case, inputs, probe):
                pixels = self._pixels([event_streams.pictures(stream, case.frames, probe.check)])
                seen = []
                for picture in pixels.to(self.device, dtype=self.model.dtype).split(1):
                    probe.check()
                    seen.append(self.model.adaptor(self.model.project(picture)))
                sequences.append(aggregate(torch.stack(seen, dim=1)))
            given = self._merge(self._tokenize(self._prompts(case, inputs)), torch.cat(sequences))
        language = self.model.language
        # The length of the longest static cache so far, which this one would have as well.
        language.__dict__.pop("_previous_max_cache_length", None)
        ids = language.generate(
            **given,
            stopping_criteria=StoppingCriteriaList([Cut(probe)]),
            **self._options(case),
            **self._cache_options(case),
        )
        new: list[list[int]] = ids.tolist()
        return new

    def _read(self, case: Case, inputs: tuple[Input, ...], probe: Probe) -> list[EventStream]:
        streams = []
        for sequence in range(case.batch):
            probe.check()
            first, *others = paths_of(inputs[sequence % len(inputs)])
            with of_sequence(sequence):
                if others:
                    raise BrokenInput(first, "several paths are images of one prompt; give one event stream an item")
                stream = event_streams.read(first)
                event_streams.slices(stream, case.frames)
                streams.append(stream)
        return streams

    def _pixels(self, drawn: list[list[Picture]]) -> Any:
        """(batch × slices, 3, side, side), on the host."""
        images = [picture for of in drawn for picture in of]
        return self.processor.images(images, return_tensors="pt", input_data_format="channels_last")["pixel_values"]

    def _prompts(self, case: Case, inputs: tuple[Input, ...]) -> list[str]:
        """Of each sequence. Raises :class:`BrokenInput` for an item's own that does not fit the context."""
        prompts = [prompt_of(inputs[sequence % len(inputs)], self.plan.prompt) for sequence in range(case.batch)]
        for sequence, prompt in enumerate(prompts):
            if prompt == self.plan.prompt:
                continue
            stands = f"contains {_EVENT}, which stands for the events: leave it out" if _EVENT in prompt else ""
            if problem := stands or self._overflow(case, prompt):
                with of_sequence(sequence):
                    raise BrokenInput(paths_of(inputs[sequence % len(inputs)])[0], f"its prompt: {problem}")
        return prompts

    def _tokenize(self, prompts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The ids before the events, which are every sequence's, and each sequence's after them."""
        tokenizer = self.processor.tokenizer
        ids = {
            prompt: tokenizer(_AFTER.format(prompt=prompt), add_special_tokens=False).input_ids for prompt in prompts
        }
        return tokenizer(_BEFORE).input_ids, [ids[prompt] for prompt in prompts]

    def _event_tokens(self, slices: int) -> int:
        vision = self.model.tower.config
        return slices + int(vision.image_size // vision.patch_size) ** 2 + 1

    def _merge(self, text: tuple[list[int], list[list[int]]], events: Any) -> dict[str, Any]:
        """What generate() is given: the events in their place in each sequence's text, (batch, prompt, hidden), and the
        mask of what is not padding, which is on the left."""
        import torch

        before, after = text
        first = self.model.embed(before, events)
        if all(each == after[0] for each in after):
            last = self.model.embed(after[0], events).expand(len(events), -1, -1)
            embeds = torch.cat([first.expand(len(events), -1, -1), events, last], dim=1)
            return {"inputs_embeds": embeds, "attention_mask": embeds.new_ones(embeds.shape[:2], dtype=torch.long)}
        sequences = [
            torch.cat([first, one[None], self.model.embed(ids, events)], dim=1)[0]
            for one, ids in zip(events, after, strict=True)
        ]
        pad = torch.nn.utils.rnn.pad_sequence
        ones = [one.new_ones(len(one), dtype=torch.long) for one in sequences]
        return {
            "inputs_embeds": pad(sequences, batch_first=True, padding_side="left"),
            "attention_mask": pad(ones, batch_first=True, padding_side="left"),
        }

    def _decode_from(self, case: Case, given: dict[str, Any], loop: TimedLoop) -> None:
        language = self.model.language
        if self.plan.cache_of(case) == "static":
            length = given["inputs_embeds"].shape[1] + case.new_tokens - 1  # the last token is not read again
            given["past_key_values"] = self._caches.take(case.id, language, length)
        try:
            language.generate(**given, custom_generate=loop, **self._options(case))
        except Exception as error:
            if self.plan.compile_of(case) == "off" or not compiling.failed(error):
                raise
            raise PipelineError(f"a step of decoding cannot be compiled: {first_line(error)}") from error

    def _parts(self) -> Parts:
        return Parts((self.model.tower,), (self.model.projector,))
