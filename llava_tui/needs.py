"""What a case needs of memory beside the weights, before it is run: from the model's config and the plan alone.

The cache of keys and values is certain (:mod:`llava_tui.kv_cache`). What lives only within a pass is estimated from the
tensors that transformers' own layers hold at once: without gradients one layer's are alive at a time, of the terms that
Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large Transformer Models", section 4) count for each. How
near it comes to what was measured is in ``docs/memory.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava_tui import architecture, costs
from llava_tui.kv_cache import cache_shape
from llava_tui.plan import Case, Plan

CHARACTERS = 4
"""Of a prompt, a token, roughly."""
_FLOAT = 4
"""Bytes: softmax and the scores of words are worked out in float32."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that one run of a case takes beside the weights."""

    certain: float
    """Of the cache, text of the prompt left out: no run takes less."""
    cache: float
    activations: float
    """At most at one time, by estimate."""

    @property
    def total(self) -> float:
        """Cache and activations."""
        return self.cache + self.activations


def needs(plan: Plan, case: Case, config: dict[str, Any], dtype: str, attention: str) -> Needs | None:
    """Of ``case`` on the model of ``config`` that runs in ``dtype`` and with ``attention`` where the case names none.
    ``None`` where the config does not tell its cache or the tokens of a frame."""
    shape = cache_shape(config)
    pictures = image_tokens(plan, case, config)
    if shape is None or pictures is None:
        return None
    value = costs.DTYPE_BYTES.get(case.dtype or dtype, 2)
    prompt = pictures + len(plan.prompt) / CHARACTERS
    made = costs.architecture(config, case.dtype or dtype)
    eager = (case.attention or attention).startswith("eager")
    return Needs(
        certain=value * shape.peak(pictures, case.new_tokens, case.batch),
        cache=value * shape.peak(prompt, case.new_tokens, case.batch),
        activations=activations(made, config, case.frames * case.batch, prompt, case.batch, eager),
    )


def mend(case: Case, needed: float, free: float) -> str:
    """What to ask for instead: what a case takes grows with its batch at least as fast."""
    fitting = int(case.batch * free / needed)
    if 1 <= fitting < case.batch:
        return f"use --batch {fitting}" + (" or less" if fitting > 1 else "")
    return "use fewer --frames or --new-tokens" if case.frames > 1 else "use fewer --new-tokens"


def image_tokens(plan: Plan, case: Case, config: dict[str, Any]) -> int | None:
    """Tokens of one sequence's frames or events; ``None`` where the picture's own size decides."""
    if architecture.is_eventgpt(config):  # a mean of each slice, and of each place
        vision = config.get("vision_config") or {}
        side, patch = vision.get("image_size"), vision.get("patch_size")
        return case.frames + (side // patch) ** 2 + 1 if isinstance(side, int) and isinstance(patch, int) else None
    return architecture.image_tokens(config, case.frames, getattr(plan, "media", "auto"))


def activations(
    made: costs.Architecture, config: dict[str, Any], pictures: int, prompt: float, batch: int, eager: bool
) -> float:
    """Bytes that live within a pass, at most at one time: of encoding ``pictures`` or of a prefill of ``batch`` prompts
    of ``prompt`` tokens. A part that is not known counts nothing."""
    value = made.value_bytes
    encoding = prefill = handed = 0.0
    if made.vision is not None and pictures:
        part, tokens = made.vision, pictures * made.vision.tokens
        layer = tokens * (2 * part.hidden + 2 * part.intermediate) * value
        # LLaVA's families read one layer of many, and have the tower keep what every layer gave.
        kept = tokens * part.hidden * value * (part.layers + 1 if "vision_feature_layer" in config else 2)
        pixels = pictures * part.patches * part.patch_values * (value + _FLOAT)
        heads = _heads(config.get("vision_config"), part.hidden)
        scores = pictures * heads * part.tokens**2 * (2 * value + _FLOAT) if eager else 0.0
        encoding = layer + kept + pixels + scores
    if made.language is not None:
        language = made.language
        handed = batch * prompt * language.hidden * value
        layer = batch * prompt * (2 * language.hidden + 3 * language.intermediate) * value
        text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
        scores = batch * _heads(text, language.query) * prompt**2 * (2 * value + _FLOAT) if eager else 0.0
        words = batch * language.vocabulary * (value + 2 * _FLOAT)
        prefill = 2 * handed + max(layer, scores) + words
    return max(encoding, prefill)


def _heads(part: Any, width: int) -> int:
    heads = part.get("num_attention_heads") if isinstance(part, dict) else None
    return heads if isinstance(heads, int) and heads > 0 else max(width // 64, 1)
