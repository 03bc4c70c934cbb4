"""What a model's stages ask of the hardware at least, from its ``config.json``: FLOPs and bytes.

Reads dictionaries and loads nothing, so the roofline and the simulator can both use it. Counted are matrix products (a
multiply and an add are two); norms, activations and rotations are below a percent of any real model. Bytes are what has
to cross the memory bus however well it is done: weights once, the KV cache, what goes in and out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

DTYPE_BYTES: dict[str, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}

_GATED = (
    *("llama", "mistral", "ministral", "EventChat_llama", "internlm2", "phi3", "stablelm", "smollm3", "granite"),
    *(
        "qwen2",
        "qwen2_vl_text",
        "qwen2_5_vl_text",
        "qwen3",
        "qwen3_vl_text",
        "olmo",
        "olmo2",
        "cohere",
        "glm",
        "helium",
    ),
    *("gemma", "gemma2", "gemma3_text", "helium"),
)
"""Language models whose feed-forward part has a gate: three matrices a layer."""
_PLAIN = ("opt", "gpt_neox", "phi", "starcoder2", "gpt2", "falcon", "bloom")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")

_CLASS_TOKEN = ("clip_vision_model", "internvl_vision", "vit", "dinov2", "vit_msn", "deit")
_NO_CLASS_TOKEN = ("siglip_vision_model", "siglip2_vision_model", "idefics3_vision", "smolvlm_vision")


LARGEST = 10**7
"""No size in a config is larger; what is, is damage."""
LAYERS = 10_000
TOLERANCE = 0.1
"""Biases and norms, which are not counted, are at most that share of even a tiny model."""

Part = TypeVar("Part")


class Underived(ValueError):
    """The config does not say enough; the message names what is missing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one execution of a stage asks for."""

    flops: float
    """At least: causal attention does half of the square."""
    bytes: float
    """Between memory and processor, at least."""
    dense: float
    """FLOPs when attention computes the whole square and masks it, as eager attention does and as torch's
    FlopCounterMode counts."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes, self.dense + other.dense)

    def times(self, factor: float) -> Cost:
        """The same that many times, nothing shared."""
        return Cost(self.flops * factor, self.bytes * factor, self.dense * factor)


@dataclass(frozen=True, slots=True)
class Vision:
    """A vision transformer on pictures of one size."""

    layers: int
    hidden: int
    intermediate: int
    tokens: int
    """A picture, class token included."""
    patches: int
    patch_values: int
    """Numbers in a patch: colours × height × width."""
    pooling_head: bool
    """SigLIP's attention over all tokens, which runs even where its result is not read."""

    @property
    def weights(self) -> int:
        """Entries of its matrices."""
        layer = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return self.layers * layer + self.patch_values * self.hidden + self.tokens * self.hidden + self._head

    @property
    def _head(self) -> int:
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate if self.pooling_head else 0


@dataclass(frozen=True, slots=True)
class Projector:
    """What turns a picture's features into tokens of the language model."""

    weights: int
    tokens: int
    """A picture, after pooling or folding."""


@dataclass(frozen=True, slots=True)
class Language:
    """A decoder-only language model."""

    layers: int
    hidden: int
    intermediate: int
    query: int
    """Heads × their dimension."""
    kv: int
    """Key and value heads × their dimension: below ``query`` where queries share them."""
    vocabulary: int
    tied: bool
    gated: bool
    windows: tuple[int | None, ...]
    """How far back each layer looks; ``None``: all the way."""
    bidirectional: bool
    """The prompt sees itself whole (PaliGemma), so causality saves nothing in prefill."""

    @property
    def blocks(self) -> int:
        """Entries of the layers' matrices: what every token is multiplied with."""
        attention = 2 * self.hidden * (self.query + self.kv)
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Entries of the output matrix."""
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """Entries of all matrices, the embedding included."""
        return self.blocks + self.head * (1 if self.tied else 2)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model by the sizes that decide what it costs. A part that could not be derived is ``None``, its reason in
    ``missing`` under ``vision``, ``projector`` or ``language``."""

    vision: Vision | None
    projector: Projector | None
    language: Language | None
    value_bytes: float
    """Of an activation, a cached key, a weight that is not quantised."""
    weight_bytes: float
    """Of a weight in the language model's layers, scales included."""
    quantization: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> int:
        """Entries of all matrices that are known: nearly the number of parameters."""
        return sum(part.weights for part in (self.vision, self.projector, self.language) if part is not None)

    @property
    def kv_bytes(self) -> float:
        """Of the KV cache, a token. Raises :class:`Underived`."""
        return 2 * self._language.layers * self._language.kv * self.value_bytes

    @property
    def decode_weight_bytes(self) -> float:
        """What a decode step reads of the weights, however many sequences share it. Raises :class:`Underived`."""
        language = self._language
        return language.blocks * self.weight_bytes + language.head * self.value_bytes

    def vision_cost(self, pictures: float) -> Cost:
        """The vision tower on that many pictures in one go. Raises :class:`Underived`."""
        part = self.vision
        if part is None:
            raise Underived(self.missing["vision"])
        layer = 4 * part.hidden**2 + 2 * part.hidden * part.intermediate
        flops = 2.0 * part.tokens * layer * part.layers + 4.0 * part.tokens**2 * part.hidden * part.layers
        flops += 2.0 * part.patches * part.patch_values * part.hidden
        if part.pooling_head:
            flops += 2.0 * (2 * part.tokens + 2) * part.hidden**2 + 4.0 * part.tokens * part.hidden
            flops += 4.0 * part.hidden * part.intermediate
        values = part.patches * part.patch_values + part.tokens * part.hidden
        return Cost(pictures * flops, (part.weights + pictures * values) * self.value_bytes, pictures * flops)

    def projector_cost(self, pictures: float) -> Cost:
        """The projector on that many pictures in one go. Raises :class:`Underived`."""
        part = self.projector
        if part is None:
            raise Underived(self.missing["projector"])
        flops = 2.0 * pictures * part.tokens * part.weights
        out = pictures * part.tokens * (self.language.hidden if self.language else 0)
        return Cost(flops, (part.weights + out) * self.value_bytes, flops)

    def prefill_cost(self, tokens: float, batch: int = 1) -> Cost:
        """The language model on ``batch`` prompts of ``tokens`` tokens, image tokens included; the output matrix on
        each one's last. Raises :class:`Underived`."""
        part = self._language
        linear = 2.0 * part.blocks * tokens + 2.0 * part.head
        seen = sum(tokens**2 if part.bidirectional else _seen(tokens, window) for window in part.windows)
        written = self.decode_weight_bytes + batch * tokens * self.kv_bytes
        return Cost(
            batch * (linear + 4.0 * part.query * seen),
            written,
            batch * (linear + 4.0 * part.query * part.layers * tokens**2),
        )

    def decode_cost(self, context: float, batch: int = 1) -> Cost:
        """One new token for each of ``batch`` sequences whose attention reaches over ``context`` tokens, the new one
        included. Raises :class:`Underived`."""
        part = self._language
        reach = sum(context if window is None else min(context, window) for window in part.windows)
        flops = batch * (2.0 * (part.blocks + part.head) + 4.0 * part.query * reach)
        read = self.decode_weight_bytes + batch * 2 * reach * part.kv * self.value_bytes
        return Cost(flops, read, flops)

    @property
    def _language(self) -> Language:
        if self.language is None:
            raise Underived(self.missing["language"])
        return self.language


def architecture(config: dict[str, Any], dtype: str = "float16", parameters: int | None = None) -> Architecture:
    """The sizes that a model's config tells. ``dtype`` is what it runs in; ``parameters`` (how many it has, where it is
    loaded and not quantised) exposes an architecture that is not what its config seems to say.

    Never raises: what cannot be derived is ``None``, with its reason.
    """
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    value_bytes = float(DTYPE_BYTES.get(dtype, 2))
    quantization, weight_bytes = _quantization(config, value_bytes)
    missing: dict[str, str] = {}
    language = _derived("language", missing, lambda: _language(config, text or {}))
    vision = _derived("vision", missing, lambda: _vision(config))
    projector = _derived("projector", missing, lambda: _projector(config, vision, language))
    found = Architecture(vision, projector, language, value_bytes, weight_bytes, quantization, missing)
    if parameters and not quantization and not missing and abs(found.weights - parameters) > TOLERANCE * parameters:
        why = (
            f"the config implies {found.weights:,} parameters, the model has {parameters:,}: "
            f"{config.get('model_type') or 'this family'} is built otherwise than its config seems to say"
        )
        missing = {"vision": why, "projector": why, "language": why}
        return Architecture(None, None, None, value_bytes, weight_bytes, quantization, missing)
    return found


def _derived(name: str, missing: dict[str, str], derive: Callable[[], Part]) -> Part | None:
    try:
        return derive()
    except Underived as error:
        missing[name] = str(error)
    except (TypeError, ValueError, ArithmeticError):
        missing[name] = "its config does not hold what this family's does"
    return None


def _language(config: dict[str, Any], text: dict[str, Any]) -> Language:
    kind = str(text.get("model_type") or "")
    if experts := next((name for name in _EXPERTS if (text.get(name) or 0) > 1), None):
        raise Underived(f"a mixture of experts ({experts}): which weights a token uses is not in the config")
    if kind not in _GATED and kind not in _PLAIN:
        raise Underived(f"language model {kind or 'without a model_type'}: its layers are not known here")
    layers, hidden = _whole(text, "num_hidden_layers"), _whole(text, "hidden_size")
    heads = _whole(text, "num_attention_heads")
    dimension = _whole(text, "head_dim") if text.get("head_dim") else hidden // heads
    window = text.get("sliding_window") if text.get("use_sliding_window", True) else None
    window = window if isinstance(window, int) and window > 0 else None
    kinds = text.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        windows = tuple(window if "sliding" in str(layer) else None for layer in kinds)
    else:
        windows = (window,) * layers
    return Language(
        layers=layers,
        hidden=hidden,
        intermediate=_whole(text, "intermediate_size") if "intermediate_size" in text else _whole(text, "ffn_dim"),
        query=heads * dimension,
        kv=(_whole(text, "num_key_value_heads") if text.get("num_key_value_heads") else heads) * dimension,
        vocabulary=_whole(text, "vocab_size"),
        tied=bool(text.get("tie_word_embeddings") or config.get("tie_word_embeddings")),
        gated=kind in _GATED,
        windows=windows,
        bidirectional=config.get("model_type") == "paligemma",
    )


def _vision(config: dict[str, Any]) -> Vision:
    part = config.get("vision_config")
    if not isinstance(part, dict):
        raise Underived("the config has no vision part")
    kind = str(part.get("model_type") or "")
    if kind not in _CLASS_TOKEN and kind not in _NO_CLASS_TOKEN:
        raise Underived(f"vision tower {kind or 'without a model_type'}: tokens a picture are not fixed by its config")
    hidden, layers = _whole(part, "hidden_size"), _whole(part, "num_hidden_layers")
    (height, width), (tall, wide) = _pair(part, "image_size"), _pair(part, "patch_size")
    patches = (height // tall) * (width // wide)
    return Vision(
        layers=layers,
        hidden=hidden,
        intermediate=_whole(part, "intermediate_size"),
        tokens=patches + (kind in _CLASS_TOKEN),
        patches=patches,
        patch_values=(_whole(part, "num_channels") if part.get("num_channels") else 3) * tall * wide,
        pooling_head=kind.startswith("siglip") and bool(part.get("vision_use_head", True)),
    )


def _projector(config: dict[str, Any], vision: Vision | None, language: Language | None) -> Projector:
    if vision is None or language is None:
        raise Underived("it lies between two parts of which one is not known")
    family = str(config.get("model_type") or "")
    wide, deep = vision.hidden, language.hidden
    if family == "llava_next_video":
        raise Underived("a video is pooled to a quarter before the projector, a picture is not: its config is of both")
    if family in ("llava", "llava_next", "llava_onevision", "vipllava"):
        read = config.get("vision_feature_layers") or config.get("vision_feature_layer", -2)
        wide *= len(read) if isinstance(read, list) else 1
        cut = family == "vipllava" or config.get("vision_feature_select_strategy", "default") == "default"
        return Projector(wide * deep + deep**2, vision.tokens - cut)
    if family == "internvl":
        fold = round(1 / max(float(config.get("downsample_ratio") or 0.5), 0.01)) ** 2
        return Projector(fold * wide * deep + deep**2, vision.patches // fold)
    if family == "paligemma":
        return Projector(wide * deep, vision.tokens)
    if family == "gemma3":
        return Projector(wide * deep, _whole({"mm_tokens_per_image": 256} | config, "mm_tokens_per_image"))
    if family in ("idefics3", "smolvlm"):
        fold = _whole({"scale_factor": 2} | config, "scale_factor") ** 2
        return Projector(fold * wide * deep, vision.tokens // fold)
    raise Underived(f"{family or 'a model without a model_type'}: its projector is not known here")


def _seen(tokens: float, window: int | None) -> float:
    """Pairs of a query and a key that causal attention over ``tokens`` tokens needs."""
    if window is None or window >= tokens:
        return tokens**2 / 2
    return tokens * window - window**2 / 2


def _quantization(config: dict[str, Any], value_bytes: float) -> tuple[str, float]:
    """How the language model's layers are quantised, in words, and bytes a weight with its scales."""
    how = config.get("quantization_config")
    if not isinstance(how, dict):
        return "", value_bytes
    method = str(how.get("quant_method") or "quantised")
    if how.get("load_in_4bit") or how.get("_load_in_4bit"):
        # One float32 scale for 64 weights; quantised twice, a byte for 64 and a float32 for 256 of those.
        scales = (1 / 64 + 4 / (64 * 256)) if how.get("bnb_4bit_use_double_quant") else 4 / 64
        return f"{method} 4-bit", 0.5 + scales
    if how.get("load_in_8bit") or how.get("_load_in_8bit"):
        return f"{method} 8-bit", 1.0
    bits = how.get("bits") or how.get("w_bit")
    if isinstance(bits, int) and 1 <= bits <= 8:
        group = how.get("group_size") or how.get("q_group_size") or 128
        scales = (2 + bits / 8) / group if isinstance(group, int) and group > 0 else 0.0
        return f"{method} {bits}-bit", bits / 8 + scales
    if "fp8" in method or "fp8" in str(how.get("fmt") or how.get("quant_type") or ""):
        return f"{method} 8-bit", 1.0
    if "int4" in (kind := str(how.get("quant_type") or "").lower()):
        return f"{method} 4-bit", 0.5 + 4 / 128
    if "int8" in kind:
        return f"{method} 8-bit", 1.0
    return method, value_bytes


def _whole(part: dict[str, Any], key: str) -> int:
    value = part.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise Underived(f"the config leaves {key} to the library's default")
    if value > (LAYERS if "layers" in key else LARGEST):
        raise Underived(f"the config has {value:,} as its {key}")
    return value


def _pair(part: dict[str, Any], key: str) -> tuple[int, int]:
    value = part.get(key)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value):
        return min(value[0], LARGEST), min(value[1], LARGEST)
    side = _whole(part, key)
    return side, side
