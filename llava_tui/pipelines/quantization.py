"""Quantised weights: the language model's, as bitsandbytes or torchao keep them. Towers, projectors and the head keep
their dtype, as both libraries advise."""

from __future__ import annotations

import importlib.util
from typing import Any

from llava_tui.pipelines import weights
from llava_tui.pipelines.base import PipelineError

PACKAGES = {"bnb": "bitsandbytes", "torchao": "torchao"}
"""What a quantization needs, by the word that its name begins with."""
GROUP = 128
"""Weights that share a scale in torchao's int4."""
SHARE = {
    "bnb-8bit": 1.0,
    "bnb-4bit": 0.5 + 4 / 64,
    "torchao-int8": 1.0,
    "torchao-int8-dynamic": 1.0,
    "torchao-int4": 0.5 + 4 / GROUP,
}
"""About how many bytes a quantised weight takes, its scales included: NF4 has a float32 for each 64, int4 two bfloat16
for each group; int8 one for each row."""


def missing(name: str) -> str:
    """What there is to install before weights can be quantised like that, and how; "" where nothing is."""
    package = PACKAGES.get(name.partition("-")[0], "")
    if not package or importlib.util.find_spec(package) is not None:
        return ""
    return f"quantization: {name} needs {package}, which is not installed: pip install 'llava-tui[quantization]'"


def options(torch: Any, transformers: Any, name: str, dtype: Any, device: Any, kept: list[str]) -> dict[str, Any]:
    """What ``from_pretrained()`` is to be given; nothing for ``none``. ``kept`` are modules whose weights stay as they
    are. Raises :class:`PipelineError` for what is not installed, or cannot be on that device."""
    if name == "none":
        return {}
    if problem := missing(name):
        raise PipelineError(problem)
    if name.startswith("bnb"):
        given: dict[str, Any] = {"load_in_8bit": True}
        if name == "bnb-4bit":
            given = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        return {"quantization_config": transformers.BitsAndBytesConfig(**given, llm_int8_skip_modules=kept)}
    made = _torchao(torch, name, dtype, device)
    return {"quantization_config": transformers.TorchAoConfig(made, modules_to_not_convert=kept)}


def apply(torch: Any, model: Any, name: str, device: Any) -> None:
    """Quantises the decoder of ``model``, which is loaded as it is, in its place. Raises as :func:`options`."""
    if problem := missing(name):
        raise PipelineError(problem)
    decoder = model.get_decoder()
    if not name.startswith("bnb"):
        from torchao.quantization import quantize_

        quantize_(decoder, _torchao(torch, name, model.dtype, device))
        return
    from bitsandbytes import nn

    for parent in list(decoder.modules()):
        for child, linear in list(parent.named_children()):
            if type(linear) is not torch.nn.Linear:
                continue
            size = (linear.in_features, linear.out_features, linear.bias is not None)
            if name == "bnb-8bit":
                made = nn.Linear8bitLt(*size, has_fp16_weights=False, threshold=6.0)
                made.weight = nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
            else:
                made = nn.Linear4bit(*size, compute_dtype=model.dtype, quant_type="nf4")
                made.weight = nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            made.bias = linear.bias
            setattr(parent, child, made.to(device))


def _torchao(torch: Any, name: str, dtype: Any, device: Any) -> Any:
    from torchao import quantization as ao

    if name == "torchao-int8":
        return ao.Int8WeightOnlyConfig()
    if name == "torchao-int8-dynamic":
        return ao.Int8DynamicActivationInt8WeightConfig()
    if device.type != "cuda":
        raise PipelineError(f"quantization: {name} has kernels for CUDA only; use torchao-int8, or bnb-4bit")
    if dtype != torch.bfloat16:
        raise PipelineError(f"quantization: {name} computes in bfloat16 only; add --dtype bfloat16")
    from torchao.quantization.quantize_.workflows.int4.int4_packing_format import Int4PackingFormat

    # What torch's own kernel reads; others need a library of kernels beside it.
    return ao.Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format=Int4PackingFormat.TILE_PACKED_TO_4D)


def kept(model: Any) -> list[str]:
    """The modules of ``model``, the outermost of each, that are no part of its language model's decoder."""
    decoder = model.get_decoder()
    found: list[str] = []

    def walk(module: Any, path: str) -> None:
        for name, child in module.named_children():
            if child is decoder:
                continue
            if any(part is decoder for part in child.modules()):
                walk(child, f"{path}{name}.")
            else:
                found.append(path + name)

    walk(model, "")
    return found


def size(model: Any, name: str, width: int) -> int:
    """About how many bytes the weights of ``model`` take, which may be on the meta device: ``width`` bytes each, those
    that are quantised as :data:`SHARE` says."""
    total = sum(int(parameter.numel()) for parameter in model.parameters())
    if name == "none":
        return total * width
    linear = sum(
        int(module.weight.numel()) for module in model.get_decoder().modules() if type(module).__name__ == "Linear"
    )
    return int((total - linear) * width + linear * SHARE[name])


def taken(model: Any) -> int:
    """Bytes of the weights of ``model``, as they are kept."""
    found = (tensor for parameter in model.parameters() for tensor in weights.plain_tensors(parameter))
    return sum(int(tensor.numel() * tensor.element_size()) for tensor in found)
