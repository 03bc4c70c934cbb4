"""LLaVA through transformers: frames are images, encoded once, then generated from.

Step 2 calls the model's own ``get_image_features``; step 3 hands what it returned to ``generate()`` as
``mm_encoder_outputs``, which is what ``generate()`` does by itself, so the tokens are those of a plain call.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import logging
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava_tui import architecture, models
from llava_tui.events import ModelFacts, StageInfo
from llava_tui.pipelines import checkpoints, compiling, devices
from llava_tui.pipelines.base import LLAVA_STAGES, PipelineError, Probe, RunResult, first_line, stage
from llava_tui.pipelines.caches import StaticCaches
from llava_tui.pipelines.frames import Frames, sample_frames
from llava_tui.pipelines.hooks import Watch
from llava_tui.pipelines.settings import Settings
from llava_tui.plan import DEMO, Case, Plan
from llava_tui.units import counted

if TYPE_CHECKING:
    from llava_tui.pipelines.generate import TimedLoop

log = logging.getLogger("llava_tui.pipelines")

_FALLBACK_PROMPT = "USER: {images}{prompt} ASSISTANT:"
_PROJECTORS = ("multi_modal_projector", "connector")


class LlavaPipeline:
    """One LLaVA-like model on one set of inputs (see :class:`llava_tui.pipelines.base.Pipeline`)."""

    stages: tuple[StageInfo, ...] = LLAVA_STAGES

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model: Any = None
        self.processor: Any = None
        self.config: dict[str, Any] = {}
        self.device: Any = None
        self._digest = ""  # of a model that was built
        self._settings: Settings | None = None
        self._caches = StaticCaches()
        self._warned: set[str] = set()

    # --- loading ---------------------------------------------------------------------------------------------------

    def load(self, probe: Probe) -> ModelFacts:
        """Imports the libraries, loads the model and moves it to its device. Raises :class:`PipelineError`."""
        with stage(probe, "load"):
            with stage(probe, "load.libraries"):
                torch, transformers = _import_libraries()
            probe.check()
            folder = None if self._is_built else self._folder()
            self.device = devices.choose(torch, self.plan.device)
            probe.check()
            with stage(probe, "load.weights"):
                if self._is_built:
                    self._build(torch, transformers)
                else:
                    self._load(torch, transformers, str(folder or self.plan.model), local=folder is not None)
                self._loaded()
            probe.check()
            with stage(probe, "load.device"):
                self.model.to(self.device)
                self._settings = Settings(torch, self.model, self.plan)
                compiling.allow(self.plan)
        return self._facts(torch, folder if self._is_built else folder or models.resolve(self.plan.model))

    @property
    def _is_built(self) -> bool:
        """Whether there is nothing to load: weights are random numbers."""
        return self.plan.weights == "random" and self.plan.model != DEMO

    def _build(self, torch: Any, transformers: Any) -> None:
        from llava_tui.pipelines import random_weights

        made = random_weights.load(torch, transformers, self.plan, self.device, **self._attention())
        self.model, self.processor, self._digest = made

    def _attention(self) -> dict[str, str]:
        wanted = self.plan.attention.split(",")[0]
        return {} if wanted == "auto" else {"attn_implementation": wanted}

    def _folder(self) -> Path | None:
        """Where the model is on this machine; ``None`` if it is to be downloaded."""
        if self.plan.model == DEMO:
            return checkpoints.demo_model()
        try:
            models.check_model(self.plan.model)
            folder = models.resolve(self.plan.model)
        except models.ModelError as error:
            raise PipelineError(str(error)) from None
        if folder is None:
            log.info("%s is not on this machine: downloading it from the hub", self.plan.model)
        return folder

    def _load(self, torch: Any, transformers: Any, source: str, local: bool) -> None:
        dtype = self.plan.dtype.split(",")[0]
        if dtype == "auto" and self.device.type == "cpu":
            dtype = "float32"  # half precision is emulated on most CPUs
        options: dict[str, Any] = {"local_files_only": local}
        try:
            self.processor = transformers.AutoProcessor.from_pretrained(source, **options)
            options |= self._attention()
            self.model, loaded = transformers.AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype if dtype == "auto" else getattr(torch, dtype), output_loading_info=True, **options
            )
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            # In the library's own words: a file or an attention that is missing, a model type that it does not know.
            raise PipelineError(f"{self.plan.model}: cannot be loaded: {first_line(error)}") from error
        if missing := sorted(loaded["missing_keys"]):
            self._warn(f"{len(missing)} weights are not in the checkpoint and have random values, {missing[0]} for one")

    def _loaded(self) -> None:
        """Looks at the model that is here now, and at what it has."""
        self.model.eval()
        self.config = json.loads(self.model.config.to_json_string(use_diff=False))
        if not callable(getattr(self.model.base_model, "get_image_features", None)) or self._projector() is None:
            raise PipelineError(
                f"{self.plan.model}: {self.model.config.model_type} models are not supported yet; "
                f"use one of: {', '.join(architecture.KNOWN_FAMILIES)}"
            )
        self._complete_processor()

    def _complete_processor(self) -> None:
        """Fills in what older checkpoints' processors leave to be guessed, and pads where decoding needs it."""
        vision = self.model.config.vision_config
        if getattr(self.processor, "patch_size", 0) is None:
            self.processor.patch_size = vision.patch_size
            self.processor.vision_feature_select_strategy = self.model.config.vision_feature_select_strategy
            # A class token, which CLIP has and which "default" then drops again.
            self.processor.num_additional_image_tokens = int("clip" in vision.model_type)
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def _facts(self, torch: Any, folder: Path | None) -> ModelFacts:
        model = self.model
        attention = model.config._attn_implementation or "eager"
        if attention == "sdpa":
            attention = f"sdpa ({devices.sdpa_backends(torch)})"
        return ModelFacts(
            t=0,
            name=self.plan.model,
            model_type=model.config.model_type,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(self.device),
            device_name=devices.name_of(torch, self.device),
            attention=attention,
            context_length=architecture.context_length(self.config),
            weights_bytes=sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
            revision=folder.name if folder and folder.parent.name == "snapshots" else "",
            digest=digest(folder) if folder else self._digest,
            config=self.config,
            extra={
                "threads": torch.get_num_threads(),
                "interop_threads": torch.get_num_interop_threads(),
                "usable_cores": devices.usable_cores(),
                "cache": self.plan.cache_of(self.plan.cases()[0]),
                "compile": self.plan.compile_of(self.plan.cases()[0]),
                "device_map": {
                    name: str(place) for name, place in (getattr(model, "hf_device_map", None) or {}).items()
                },
                "folder": str(folder or ""),
                **({"weights": f"random, from seed {self.plan.seed}"} if self._is_built else {}),
                **({"gpu_uuid": uuid} if (uuid := devices.uuid_of(torch, self.device)) else {}),
            },
        )

    def check_case(self, case: Case) -> str:
        """Why ``case`` cannot run, or "". The model is loaded."""
        try:
            self.prepare(case)
        except (ImportError, ValueError) as error:
            return f"{case.attention or case.dtype}: {first_line(error)}"
        if self.plan.compile_of(case) != "off" and (needed := compiling.missing(self.device)):
            return f"compile: {needed}"
        image = self._image_token()
        if image and image in self.plan.prompt:
            return (
                f"the prompt contains {image}, which stands for a frame: leave it out, frames are put in by themselves"
            )
        text = len(self.processor.tokenizer(self._prompt(case.frames)).input_ids) - case.frames
        return architecture.overflow(self.config, case.frames, text, case.new_tokens)

    def prepare(self, case: Case) -> None:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        if self._settings is not None:
            self.model = self._settings.apply(case)

    def detokenize(self, ids: list[int]) -> str:
        """Text of new token ids, special tokens left out."""
        return str(self.processor.decode(ids, skip_special_tokens=True))

    def close(self) -> None:
        """Frees the model."""
        self.model = self.processor = self._settings = None
        self._caches = StaticCaches()
        gc.collect()
        if self.device is not None and self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

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

    def _warn(self, text: str) -> None:
        """Once a session: every run would say the same."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)


def digest(folder: Path) -> str:
    """SHA-256 over a model's config, its index, and its weight files' sizes and safetensors headers."""
    total = hashlib.sha256()
    for file in [folder / "config.json", *models.weight_files(folder)]:
        size = file.stat().st_size
        total.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if file.suffix == ".json":
                total.update(stream.read())
            elif file.suffix == ".safetensors":
                start = stream.read(8)
                total.update(start + stream.read(min(struct.unpack("<Q", start)[0], size) if len(start) == 8 else 0))
    return total.hexdigest()


def _import_libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
        from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: F401  (lazy: loaded here, not later)
    except ImportError as error:
        raise PipelineError(
            f"profiling a model needs torch and transformers ({first_line(error)}): pip install 'llava-tui[models]'"
        ) from None
    from transformers.utils import logging as library_logging

    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    return torch, transformers
