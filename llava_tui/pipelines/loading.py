"""A transformers model, loaded: from a folder, from the hub, or built with random weights.

What a run does with it is each pipeline's own (:mod:`llava_tui.pipelines.llava`).
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import logging
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llava_tui import architecture, models
from llava_tui.events import ModelFacts
from llava_tui.pipelines import caches, checkpoints, compiling, devices, fitting, placing, quantization, weights
from llava_tui.pipelines.base import PipelineError, Probe, first_line, stage
from llava_tui.pipelines.caches import StaticCaches
from llava_tui.pipelines.resolution import Scaling
from llava_tui.pipelines.settings import Held, Settings
from llava_tui.plan import DEMO, DEVICE_MAPS, Case, Load, Plan
from llava_tui.plan_checks import memory_limits

if TYPE_CHECKING:
    from llava_tui.pipelines.generate import TimedLoop

log = logging.getLogger("llava_tui.pipelines")

ROOM = 0.8
"""Of the memory that is free beside the first model, how much others may take: runs need some too."""


class LoadedModel:
    """The half of a pipeline that has a model: loads it, sets it to what a case asks for, lets go of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model: Any = None
        self.processor: Any = None
        self.config: dict[str, Any] = {}
        self.device: Any = None
        self._digest = ""  # of a model that was built
        self._torch: Any = None
        self._transformers: Any = None
        self._wanted = Load("none", "none", "auto")
        self._held: dict[Load, Held] = {}
        self._came_of: dict[Load, dict[str, Any]] = {}
        self._first: ModelFacts | None = None
        """Facts of the model that was loaded first: they are the session's."""
        self._together: tuple[tuple[Load, ...], ...] = ()
        self._settings: Settings | None = None
        self._caches = StaticCaches()
        self._warned: set[str] = set()

    def load(self, probe: Probe, group: int = 0) -> ModelFacts:
        """Imports the libraries, loads a group's models (see :attr:`groups`) and moves them to their device. The group
        before is given up first. Raises :class:`PipelineError`."""
        with stage(probe, "load"):
            with stage(probe, "load.libraries"):
                self._torch, self._transformers = _import_libraries()
                self._let_go()
            probe.check()
            folder = None if self._is_built else self._folder()
            first, *others = self._together[group] if self._together else self.plan.loads()[:1]
            probe.check()
            with stage(probe, "load.weights"):
                self._hold(first, folder)
                probe.check()
                if not self._together:
                    self._together = self._groups(first)
                    others = list(self._together[0][1:])
                for load in others:
                    if not self._converts(load):
                        self._hold(load, folder)
                        probe.check()
            probe.check()
            with stage(probe, "load.device"):
                for held in self._held.values():
                    if not placing.is_placed(held.model):
                        held.model.to(held.device)
                for load in others:
                    if self._converts(load):
                        self._convert(load)
                scaling = None if self.processor is None else Scaling(self.processor, self.config, self.plan.media)
                self._settings = Settings(self._torch, self._held, self.plan, scaling)
                compiling.allow(self.plan)
        self.model, self.device = self._held[first].model, self._held[first].device
        for each in self._held:
            self._came_of[each] = self._load_facts(each)
        if self._first is None:
            source = folder if self._is_built else folder or models.resolve(self.plan.model)
            self._first = self._facts(self._torch, source)
        return msgspec.structs.replace(self._first, extra=self._first.extra | {"loads": self._loads()})

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Ids of the plan's cases whose models are in memory together, in the order of their loads; known once the
        first is loaded."""
        cases = self.plan.cases()
        return tuple(tuple(case.id for case in cases if self.plan.load_of(case) in loads) for loads in self._together)

    def _hold(self, load: Load, folder: Path | None) -> None:
        """Loads one model."""
        torch, transformers = self._torch, self._transformers
        self._wanted = load
        on_device = load.device_map not in DEVICE_MAPS and load.device_map
        self.device = devices.choose(torch, on_device or self.plan.device)
        if self._is_built:
            self._build(torch, transformers)
        else:
            self._load(torch, transformers, str(folder or self.plan.model), local=folder is not None)
        self._loaded()
        self._held[load] = Held(self.model, placing.entry(torch, self.model, self.device))

    def _dtype(self) -> str:
        """What the model that is being loaded is to be kept in."""
        if self._wanted.dtype == "auto" and self.device.type == "cpu":
            return "float32"  # half precision is emulated on most CPUs
        return self._wanted.dtype

    def _converts(self, load: Load) -> bool:
        """Whether that model is made of one that is in memory. Converted once: to and fro would lose digits, and tokens
        with them."""
        return load[:2] == ("none", "none") and any(other[:2] == load[:2] for other in self._held)

    def _convert(self, load: Load) -> None:
        source = next(held for other, held in self._held.items() if other[:2] == load[:2])
        dtype = getattr(self._torch, load.dtype)
        made = source.model if source.model.dtype == dtype else copy.deepcopy(source.model).to(dtype)
        self._held[load] = Held(made, source.device)

    def _groups(self, first: Load) -> tuple[tuple[Load, ...], ...]:
        """Which models are in memory together: as many as there is room for, beside ``first``, which is loaded."""
        loads = self.plan.loads()
        if len(loads) == 1:
            return (loads,)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # Ranks are to come to the same, whatever memory each has.
            return (loads,)
        held = self._held[first]
        empty = self._empty()
        sizes = {load: quantization.size(empty, load.quantization, self._width(load)) for load in loads}
        taken = quantization.taken(held.model)
        limits = memory_limits(self.plan)
        room = limits.get(str(held.device)) or limits.get(held.device.type)
        if room is None:
            room = taken + int(fitting.free(self._torch, held.device)[0] * ROOM)
        return fitting.together({first: taken} | {load: sizes[load] for load in loads if load != first}, room)

    def _width(self, load: Load) -> int:
        named = load.dtype if load.dtype != "auto" else str(self.model.dtype).removeprefix("torch.")
        return fitting.BYTES.get(named, 4)

    def _empty(self) -> Any:
        """The model's shapes, without its weights."""
        if self.plan.pipeline == "eventgpt":  # put together from parts: no class of the library has its shapes
            return self.model
        config = type(self.model.config).from_dict(self.config)
        with self._torch.device("meta"):
            return type(self.model)(config)

    def _let_go(self) -> None:
        """Frees the models."""
        self.model = self._settings = None
        self._held.clear()
        self._caches = StaticCaches()
        gc.unfreeze()  # Between runs the worker leaves the models out of what is looked through for garbage.
        gc.collect()
        for device in {str(self.device)} if self.device is not None else ():
            if device.startswith("cuda"):
                self._torch.cuda.empty_cache()

    @property
    def _is_built(self) -> bool:
        """Whether there is nothing to load: weights are random numbers."""
        return self.plan.weights == "random" and self.plan.model != DEMO

    def _build(self, torch: Any, transformers: Any) -> None:
        from llava_tui.pipelines import random_weights

        plan = msgspec.structs.replace(self.plan, dtype=self._wanted.dtype)
        made = random_weights.load(torch, transformers, plan, self.device, **self._attention())
        self.model, self.processor, self._digest = made
        if self._wanted.quantization != "none":
            quantization.apply(torch, self.model, self._wanted.quantization, self.device)

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
        dtype = self._dtype()
        options: dict[str, Any] = {"local_files_only": local}
        try:
            self.processor = transformers.AutoProcessor.from_pretrained(source, **options)
            options |= self._attention() | placing.options(self.plan, self._wanted.device_map, self.device)
            if self._wanted.quantization != "none":
                options |= self._quantizing(source, dtype)
            self.model, loaded = transformers.AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype if dtype == "auto" else getattr(torch, dtype), output_loading_info=True, **options
            )
        except (torch.OutOfMemoryError, MemoryError, PipelineError):
            raise
        except Exception as error:
            # In the library's own words: a file or an attention that is missing, a model type that it does not know.
            raise PipelineError(f"{self.plan.model}: cannot be loaded: {first_line(error)}") from error
        if missing := sorted(loaded["missing_keys"]):
            self._warn(f"{len(missing)} weights are not in the checkpoint and have random values, {missing[0]} for one")

    def _quantizing(self, source: str, dtype: str) -> dict[str, Any]:
        """What makes the library quantise; onto the model's device at once, for what is quantised does not move."""
        torch, transformers = self._torch, self._transformers
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=True)
        named = dtype if dtype != "auto" else str(config.dtype or "float32").removeprefix("torch.")
        with torch.device("meta"):
            kept = quantization.kept(transformers.AutoModelForImageTextToText.from_config(config))
        name = self._wanted.quantization
        given = quantization.options(torch, transformers, name, getattr(torch, named), self.device, kept)
        return ({"device_map": {"": str(self.device)}} if self._wanted.device_map == "none" else {}) | given

    def _loaded(self) -> None:
        """Looks at the model that is here now, and at what it has."""
        self.model.eval()
        if self.config:
            return  # the same model, loaded in another way
        self.config = json.loads(self.model.config.to_json_string(use_diff=False))
        if self._wanted.quantization != "none":  # which is this case's, not the checkpoint's
            self.config.pop("quantization_config", None)
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
            parameters=sum(part["parameters"] for part in self._modules()),
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(self.device),
            device_name=devices.name_of(torch, self.device),
            attention=attention,
            context_length=architecture.context_length(self.config),
            weights_bytes=quantization.taken(model),
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
                "quantization": next(iter(self._held)).quantization,
                "device_map": placing.places(model),
                "devices": sorted(
                    {place for held in self._held.values() for place in placing.devices(held.model, held.device)}
                ),
                **self._set_for_all(),
                "folder": str(folder or ""),
                **({"weights": f"random, from seed {self.plan.seed}"} if self._is_built else {}),
                **({"gpu_uuid": uuid} if (uuid := devices.uuid_of(torch, self.device)) else {}),
            },
        )

    def _loads(self) -> list[dict[str, Any]]:
        """What each model is loaded as, which cases run on it, and, once it was in memory, what came of it."""
        cases = self.plan.cases()
        return [
            {"load": str(load), "group": group, "cases": [case.id for case in cases if self.plan.load_of(case) == load]}
            | self._came_of.get(load, {})
            for group, loads in enumerate(self._together)
            for load in loads
        ]

    def _load_facts(self, load: Load) -> dict[str, Any]:
        model = self._held[load].model
        return {
            "dtype": str(model.dtype).removeprefix("torch."),
            "weights_bytes": quantization.taken(model),
            "device_map": placing.places(model),
        }

    def _set_for_all(self) -> dict[str, Any]:
        """What the plan says once for every case, and no model has by itself."""
        vision, resolution = self.plan.vision_attention, self.plan.resolution
        return ({"vision_attention": vision} if vision != "auto" and "," not in vision else {}) | (
            {"resolution": resolution[0]} if len(resolution) == 1 else {}
        )

    def prepare(self, case: Case) -> None:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        if self._settings is not None:
            held = self._settings.apply(case)
            self.model, self.device = held.model, held.device

    def check_settings(self, case: Case) -> str:
        """Why the model cannot be set to what ``case`` asks for, or ""."""
        try:
            self.prepare(case)
        except (ImportError, ValueError) as error:
            named = (case.vision_attention, case.attention, case.resolution, case.dtype)
            return f"{next(filter(None, named), self.plan.vision_attention)}: {first_line(error)}"
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
        """Frees the models."""
        self._let_go()
        self.processor = None

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
