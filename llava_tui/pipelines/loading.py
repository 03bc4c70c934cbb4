"""A transformers model, loaded: from a folder, from the hub, or built with random weights.

What a run does with it is each pipeline's own (:mod:`llava_tui.pipelines.llava`).
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava_tui import architecture, models
from llava_tui.events import ModelFacts
from llava_tui.pipelines import caches, checkpoints, compiling, devices, weights
from llava_tui.pipelines.base import PipelineError, Probe, first_line, stage
from llava_tui.pipelines.caches import StaticCaches
from llava_tui.pipelines.settings import Settings
from llava_tui.plan import DEMO, Case, Plan

if TYPE_CHECKING:
    from llava_tui.pipelines.generate import TimedLoop

log = logging.getLogger("llava_tui.pipelines")


class LoadedModel:
    """The half of a pipeline that has a model: loads it, sets it to what a case asks for, lets go of it."""

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
        if problem := self._unsupported():
            raise PipelineError(f"{self.plan.model}: {problem}")
        self._complete_processor()

    def _unsupported(self) -> str:
        """Why the model that is loaded cannot be run, or ""."""
        return ""

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
                "modules": self._modules(),
                "device_map": {
                    name: str(place) for name, place in (getattr(model, "hf_device_map", None) or {}).items()
                },
                "folder": str(folder or ""),
                **({"weights": f"random, from seed {self.plan.seed}"} if self._is_built else {}),
                **({"gpu_uuid": uuid} if (uuid := devices.uuid_of(torch, self.device)) else {}),
            },
        )

    def prepare(self, case: Case) -> None:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        if self._settings is not None:
            self.model = self._settings.apply(case)

    def check_settings(self, case: Case) -> str:
        """Why the model cannot be set to what ``case`` asks for, or ""."""
        try:
            self.prepare(case)
        except (ImportError, ValueError) as error:
            return f"{case.attention or case.dtype}: {first_line(error)}"
        if self.plan.compile_of(case) != "off" and (needed := compiling.missing(self.device)):
            return f"compile: {needed}"
        return ""

    def _modules(self) -> list[dict[str, Any]]:
        """What each part of the model weighs: see :func:`weights.modules`."""
        return weights.modules(self.model, weights.parts_of(self.model))

    def _cache_facts(self, loop: TimedLoop, prompt: int) -> dict[str, Any]:
        """Of a run whose prompt had ``prompt`` tokens, padding included: see :func:`caches.facts`."""
        new = loop.new_ids
        return caches.facts(loop.cached, self.config, prompt, len(new[0]), len(new), self.model.dtype.itemsize)

    def close(self) -> None:
        """Frees the model."""
        self.model = self.processor = self._settings = None
        self._caches = StaticCaches()
        gc.collect()
        if self.device is not None and self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

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
