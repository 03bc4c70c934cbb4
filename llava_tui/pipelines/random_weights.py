"""Real architectures with random weights: what they cost is real, what they say means nothing.

A model is built by its own class, so that buffers (rotary frequencies, position ids) are what they always are; only
the drawing of weights is left out. Each matrix is then filled with copies of one block of random numbers, which stays
in the processor's cache: building takes as long as writing the bytes does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from llava_tui import models
from llava_tui.pipelines import fitting
from llava_tui.pipelines.base import PipelineError, first_line
from llava_tui.plan import Plan

BLOCK = 1_000_003
"""Numbers that are drawn. A prime: the rows of a matrix, whose lengths have small factors, begin at different places
of it."""
GAIN = 2.0
"""A matrix's output has this many times its input's standard deviation. With 1, as for training, attention is nearly
even, and neither frames nor prompt would tell in the output."""
_STRIDE = 618_034
"""How much further in the block each parameter begins: about the golden section of it, so that none begin alike."""
_VERSION = 1
"""Raise it whenever the same seed gives other weights."""


def load(torch: Any, transformers: Any, plan: Plan, device: Any, **options: Any) -> tuple[Any, Any, str]:
    """The plan's model on ``device``, its processor, and the digest of what its weights are made from. ``options`` as
    for :func:`build`. Raises :class:`PipelineError`."""
    from llava_tui.pipelines import built_processors

    try:
        config, folder = models.config_of(plan.model)
        processor = built_processors.processor_of(transformers, config, folder)
        dtypes = fitting.dtypes(plan, config, device.type)
        model = build(torch, transformers, plan.model, config, dtypes, device, plan.seed, **options)
        built_processors.tell_ids(transformers, model, processor.tokenizer)
    except (torch.OutOfMemoryError, MemoryError, PipelineError):
        raise
    except models.ModelError as error:
        raise PipelineError(str(error)) from None
    except Exception as error:
        # In the library's own words: a value that is missing, an attention that it does not have.
        raise PipelineError(f"{plan.model}: cannot be built: {first_line(error)}") from error
    return model, processor, digest(config, plan.seed)


def build(
    torch: Any,
    transformers: Any,
    name: str,
    config: dict[str, Any],
    dtypes: list[str],
    device: Any,
    seed: int,
    **options: Any,
) -> Any:
    """The model of ``config`` on ``device``, in the first of ``dtypes``, for evaluation.

    The same weights from the same config and seed, whatever the device. ``dtypes`` are all that there are to be copies
    in: room for them is looked for first. ``options`` go to the library's ``from_config``. Raises
    :class:`PipelineError` where that is too little, and what the library raises for a config that it cannot build.
    """

    def make(**given: Any) -> Any:
        return transformers.AutoModelForImageTextToText.from_config(parsed(transformers, config), **given)

    return made(torch, make, name, dtypes, device, seed, **options)


def made(
    torch: Any, make: Callable[..., Any], name: str, dtypes: list[str], device: Any, seed: int, **options: Any
) -> Any:
    """See :func:`build`; ``make`` makes the model, of whatever class, where torch makes tensors. It is given ``dtype``
    and ``options``."""
    with torch.device("meta"):
        empty = make()
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    free, where = fitting.free(torch, device)
    if problem := fitting.refusal(name, parameters, dtypes, free, where):
        raise PipelineError(problem)
    from transformers.initialization import no_init_weights

    # Single vectors are drawn all the same, from the caller's random numbers.
    with no_init_weights(), torch.random.fork_rng(devices=[]), torch.device(device):
        model = make(dtype=getattr(torch, dtypes[0]), **options)
    model.tie_weights()  # is left out too
    fill(torch, model, seed)
    return model.eval()


def parsed(transformers: Any, config: dict[str, Any]) -> Any:
    """The library's own config of a dictionary. Raises :class:`PipelineError` for a model type that it does not know,
    else what it raises."""
    kind = config.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        known = f"transformers {transformers.__version__}"
        raise PipelineError(f"{known} knows no {kind} models: update it, or see to the model_type in config.json")
    return transformers.AutoConfig.for_model(**json.loads(json.dumps(config)))


def fill(torch: Any, model: Any, seed: int) -> None:
    """Gives every parameter its value: norms neutral, biases 0, else random numbers, the same from one seed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(BLOCK, dtype=torch.float32, device="cpu").normal_(generator=generator)
    scaled: dict[Any, Any] = {}
    seen: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            is_norm = "norm" in type(module).__name__.lower()
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen:  # tied
                    continue
                offset = len(seen) * _STRIDE % BLOCK
                seen.add(id(parameter))
                if name.endswith("bias"):
                    parameter.zero_()
                elif is_norm:  # Gemma's multiply by one more than their weight
                    parameter.fill_(0 if "gemma" in type(module).__name__.lower() else 1)
                else:
                    is_embedding = "Embedding" in type(module).__name__
                    deviation = 1 / _scale(module) if is_embedding else _deviation(parameter)
                    key = (deviation, parameter.dtype, parameter.device)
                    if key not in scaled:
                        scaled[key] = (drawn * deviation).to(dtype=parameter.dtype, device=parameter.device)
                    _tile(parameter.view(-1), scaled[key], offset)


def _deviation(parameter: Any) -> float:
    """Of a matrix or a convolution, by how many values make one of its outputs; 1 for a single vector."""
    fan_in = parameter[0].numel()
    return GAIN * fan_in**-0.5 if parameter.dim() > 1 else 1.0


def _scale(module: Any) -> float:
    """What an embedding's rows are multiplied by when they are looked up: Gemma's, by the root of their length."""
    return float(getattr(module, "scalar_embed_scale", 1.0))


def _tile(target: Any, block: Any, offset: int) -> None:
    """Fills ``target``, (n,), with repetitions of ``block``, beginning at ``offset`` in it."""
    head = min(len(target), len(block) - offset)
    target[:head].copy_(block[offset : offset + head])
    whole = (len(target) - head) // len(block)
    end = head + whole * len(block)
    target[head:end].view(whole, len(block)).copy_(block)
    target[end:].copy_(block[: len(target) - end])


def digest(config: dict[str, Any], seed: int) -> str:
    """SHA-256 of what weights are made from."""
    made_from = json.dumps([_VERSION, seed, config], sort_keys=True)
    return hashlib.sha256(made_from.encode()).hexdigest()
