"""EventGPT's checkpoint layout, read with the library's own classes and written small. No remote code, ever.

One file of weights holds four parts: a Llama under the plain names, a CLIP vision tower, a projector and a feature
adaptor. What the config does not say of the last three is read off their shapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from llava_tui import models, presets
from llava_tui.architecture import EVENTGPT
from llava_tui.pipelines import built_processors, checkpoints, fitting, random_weights
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.checkpoints import DEMO_SHAPE, TINY, Shape
from llava_tui.plan import Plan

_TOWER = "model.visual_tower.visual_tower.vision_model."
_PROJECTOR = "model.visual_projector."
_ADAPTOR = "model.feature_adaptor."
_HEAD_WIDTH = 64
"""Of every published CLIP: the one figure that no shape tells."""
_BUFFERS = ("position_ids",)
"""Saved by old versions of the library, computed by new ones."""
_LLAMA_KEYS = ("rope_theta", "rope_scaling")
"""Of older configs, which the library still understands."""
_OTHERS = ("model_type", "architectures", "dtype", "transformers_version")

_BYTE_TOKENS = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "<pad>", 4: "<ev_start>", 5: "<ev_end>"}
_TOWERS: dict[str, dict[str, Any]] = {
    name.rpartition("/")[2]: preset.config["vision_config"]
    for preset in presets.PRESETS
    if (name := preset.config.get("mm_visual_tower", ""))
}
"""Published vision towers by their names."""

TINY_EVENTS = replace(TINY, vision_hidden=64, vision_intermediate=128, vision_heads=1)
"""17 tokens a slice before they are averaged; for tests."""
_DEMO_NAME = "demo-eventgpt-v1"
"""Raise the number whenever what is built changes."""


class EventGpt(nn.Module):  # type: ignore[misc]
    """The four parts as one model, with what is asked of a model of the library."""

    def __init__(
        self, language: LlamaForCausalLM, tower: CLIPVisionModel, projector: nn.Sequential, adaptor: nn.Module
    ) -> None:
        super().__init__()
        self.language = language
        self.tower = tower
        self.projector = projector
        self.adaptor = adaptor

    @property
    def config(self) -> Any:
        """The language model's."""
        return self.language.config

    @property
    def dtype(self) -> torch.dtype:
        """Of all parts."""
        return self.language.dtype

    def tie_weights(self) -> None:
        """Of the language model."""
        self.language.tie_weights()

    def get_decoder(self) -> nn.Module:
        """The language model's layers."""
        decoder: nn.Module = self.language.get_decoder()
        return decoder

    def set_attn_implementation(self, name: str) -> None:
        """Of both transformers. Raises what the library raises for one that it does not have."""
        self.language.set_attn_implementation(name)
        self.tower.set_attn_implementation(name)

    def get_compiled_call(self, config: Any) -> Any:
        """The language model's compiled step."""
        return self.language.get_compiled_call(config)

    def project(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) to (n, patches + 1, hidden): all tokens of the tower's last layer, the class token too."""
        return self.projector(self.tower(pixels).last_hidden_state)

    def embed(self, ids: list[int], features: torch.Tensor) -> torch.Tensor:
        """Text as (1, tokens, hidden), on the device and of the type of ``features``."""
        tokens = torch.tensor([ids], device=features.device)
        embedded: torch.Tensor = self.language.get_input_embeddings()(tokens)
        return embedded


def aggregate(features: torch.Tensor) -> torch.Tensor:
    """(batch, slices, tokens, hidden) to (batch, slices + tokens, hidden): every slice's mean over space, then every
    place's mean over time. No parameters."""
    return torch.cat([features.mean(dim=2), features.mean(dim=1)], dim=1)


def load(folder: Path, dtype: str, attention: str = "") -> tuple[EventGpt, list[str]]:
    """The model in ``folder`` on the host, in ``dtype`` (``auto``: the config's), and the names of weights that the
    checkpoint lacks. ``attention``: "" for the library's own choice.

    Raises :class:`PipelineError` for what is in another layout, else what the library raises.
    """
    config = models.read_config(folder)
    wanted = config.get("dtype") or config.get("torch_dtype") or "float32" if dtype == "auto" else dtype
    kind = getattr(torch, str(wanted), None)
    if not isinstance(kind, torch.dtype):
        raise PipelineError(f"{folder}: its config names no type of number that torch has ({wanted})")
    language, loaded = LlamaForCausalLM.from_pretrained(
        folder,
        config=_llama_config(config),
        dtype=kind,
        local_files_only=True,
        output_loading_info=True,
        **({"attn_implementation": attention} if attention else {}),
    )
    tensors = dict(_tensors(folder))
    tower = _tower(tensors)
    projector = _projector(tensors)
    adaptor: nn.Module = _linear(tensors, _ADAPTOR) if _ADAPTOR + "weight" in tensors else nn.Identity()
    model = EventGpt(language, tower, projector, adaptor).to(kind).eval()
    model.set_attn_implementation(language.config._attn_implementation)
    return model, sorted(loaded["missing_keys"])


def random(plan: Plan, device: torch.device, attention: str = "") -> tuple[EventGpt, Any, Any, str]:
    """The plan's model on ``device`` with random weights, its tokenizer (the folder's, else one of bytes), its image
    processor, and the digest of what its weights are made from. Raises :class:`PipelineError`, else what the library
    raises."""
    try:
        config, folder = models.config_of(plan.model, "eventgpt")
    except models.ModelError as error:
        raise PipelineError(str(error)) from None
    options = {"attention": attention} if attention else {}
    model = random_weights.made(
        torch,
        lambda **given: from_config(config, **given),
        plan.model,
        fitting.dtypes(plan, config, device.type),
        device,
        plan.seed,
        **options,
    )
    if folder is not None and models.has_tokenizer(folder):
        tokenizer = load_tokenizer(folder)
    else:
        tokenizer = checkpoints.byte_tokenizer(_BYTE_TOKENS, model.config.vocab_size, named={})
    built_processors.tell_ids(transformers, model.language, tokenizer)
    return model, tokenizer, image_processor(folder, model), random_weights.digest(config, plan.seed)


def from_config(config: dict[str, Any], dtype: torch.dtype = torch.float32, attention: str = "") -> EventGpt:
    """The architecture that a ``config.json`` tells of, where torch makes tensors; two layers in the projector.

    Raises :class:`PipelineError` where the vision tower is not known.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        name = str(config.get("mm_visual_tower") or "").rpartition("/")[2]
        if name not in _TOWERS:
            raise PipelineError(
                f"which vision tower it has is not known ({name or 'no mm_visual_tower'} in its config); "
                f"add a vision_config, or use one of: {', '.join(_TOWERS)}"
            )
        vision = _TOWERS[name]
    given: dict[str, Any] = {"dtype": dtype} | ({"attn_implementation": attention} if attention else {})
    text = _llama_config(config)
    language = transformers.AutoModelForCausalLM.from_config(text, **given)
    tower = transformers.AutoModel.from_config(CLIPVisionConfig(**vision), **given)
    wide, deep = tower.config.hidden_size, text.hidden_size
    projector = nn.Sequential(nn.Linear(wide, deep), nn.GELU(), nn.Linear(deep, deep)).to(dtype)
    adaptor: nn.Module = nn.Linear(deep, deep) if config.get("event_feature_adaptor") else nn.Identity()
    return EventGpt(language, tower, projector, adaptor.to(dtype))


def load_tokenizer(folder: Path) -> Any:
    """The language model's. Raises what the library raises."""
    tokenizer = AutoTokenizer.from_pretrained(
        folder, config=LlamaConfig(), local_files_only=True, trust_remote_code=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def image_processor(folder: Path | None, model: EventGpt) -> Any:
    """CLIP's preprocessing for the size that the tower takes, unless the folder says another."""
    if folder is not None and (folder / "preprocessor_config.json").is_file():
        return CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    side = model.tower.config.image_size
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _llama_config(config: dict[str, Any]) -> LlamaConfig:
    known = {*LlamaConfig().to_dict(), *_LLAMA_KEYS} - {*_OTHERS}
    return LlamaConfig(**{key: value for key, value in config.items() if key in known})


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """What the checkpoint holds beside the language model."""
    wanted = (_TOWER, _PROJECTOR, _ADAPTOR)
    for file in models.weight_files(folder):
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, framework="pt") as held:
                yield from ((name, held.get_tensor(name)) for name in held.keys() if name.startswith(wanted))  # noqa: SIM118
        elif file.suffix == ".bin":
            held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            yield from ((name, tensor) for name, tensor in held.items() if name.startswith(wanted))


def _tower(tensors: dict[str, torch.Tensor]) -> CLIPVisionModel:
    state = {
        name.removeprefix(_TOWER): tensor
        for name, tensor in tensors.items()
        if name.startswith(_TOWER) and not name.endswith(_BUFFERS)
    }
    try:
        width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
        positions = len(state["embeddings.position_embedding.weight"])
        intermediate = len(state["encoder.layers.0.mlp.fc1.weight"])
    except KeyError as error:
        raise PipelineError(f"no EventGPT: the checkpoint has no {_TOWER}{error.args[0]}") from None
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")),
        num_attention_heads=max(1, width // _HEAD_WIDTH),
        image_size=math.isqrt(positions - 1) * patch,
        patch_size=patch,
    )
    with torch.device("meta"):
        tower = CLIPVisionModel(config)
    # Before its parts lost a level of names they were in a module of that name.
    inner = getattr(tower, "vision_model", tower)
    inner.load_state_dict(state, assign=True)
    inner.embeddings.position_ids = torch.arange(positions)[None]
    return tower


def _projector(tensors: dict[str, torch.Tensor]) -> nn.Sequential:
    """Linear layers with GELU between them: as many as there are."""
    numbers = sorted(
        int(name.removeprefix(_PROJECTOR).split(".")[0])
        for name in tensors
        if name.startswith(_PROJECTOR) and name.endswith(".weight")
    )
    if not numbers:
        raise PipelineError(f"no EventGPT: the checkpoint has no {_PROJECTOR}0.weight")
    layers: list[nn.Module] = []
    for number in numbers:
        layers += [*([nn.GELU()] if layers else []), _linear(tensors, f"{_PROJECTOR}{number}.")]
    return nn.Sequential(*layers)


def _linear(tensors: dict[str, torch.Tensor], prefix: str) -> nn.Linear:
    weight, bias = tensors[prefix + "weight"], tensors.get(prefix + "bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.load_state_dict({"weight": weight} | ({"bias": bias} if bias is not None else {}), assign=True)
    return layer


# --- written small -------------------------------------------------------------------------------------------------


def build_tiny(folder: Path, seed: int = 0, shape: Shape = TINY_EVENTS) -> Path:
    """Writes a checkpoint of ``shape`` in the published layout to ``folder``, with random weights; returns ``folder``.

    A head of the vision tower is 64 wide, whatever the shape says.
    """
    from safetensors.torch import save_file

    tokenizer = checkpoints.byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        initializer_range=2 * shape.hidden**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_hidden,
        intermediate_size=shape.vision_intermediate,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=max(1, shape.vision_hidden // _HEAD_WIDTH),
        image_size=shape.image,
        patch_size=shape.patch,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language, tower = LlamaForCausalLM(config), CLIPVisionModel(vision)
        projector = [nn.Linear(shape.vision_hidden, shape.hidden), nn.Linear(shape.hidden, shape.hidden)]
        adaptor = nn.Linear(shape.hidden, shape.hidden)
    with torch.no_grad():
        # Only whole words are ever said, as in the other models that are built here.
        language.lm_head.weight[: len(tokenizer) - len(checkpoints._WORDS)] = 0
    parts = {
        "": language,
        _TOWER: getattr(tower, "vision_model", tower),
        f"{_PROJECTOR}0.": projector[0],
        f"{_PROJECTOR}2.": projector[1],
        _ADAPTOR: adaptor,
    }
    state = {
        prefix + name: tensor.contiguous()
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    told = json.loads(config.to_json_string(use_diff=False)) | {
        "model_type": EVENTGPT,
        "architectures": ["EventChatModel"],
        "mm_visual_tower": "openai/clip-vit-large-patch14-336",
        "event_feature_adaptor": True,
    }
    (folder / "config.json").write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)
    return folder


def demo_model() -> Path:
    """The folder of a model of 27 million parameters, built on first use. Raises :class:`PipelineError`."""
    return checkpoints._cached(_DEMO_NAME, lambda folder: build_tiny(folder, shape=DEMO_SHAPE))
