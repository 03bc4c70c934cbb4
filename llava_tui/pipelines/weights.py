"""How many parameters and bytes each part of a model has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

OTHER, BUFFERS = "other", "buffers"
"""What is in none of the parts that are named; what is no parameter (positions, scales)."""

Named = Sequence[tuple[str, Any]]
"""Modules by what they are called; ``None`` for what a model does not have. One that lies within another comes
before it."""


def parts_of(model: Any) -> Named:
    """Of a vision-language model of the library: what lies between its towers and its language model, its towers, and
    :func:`language_parts`."""
    from llava_tui.pipelines import families

    found = families.parts(model)
    projectors = [("projector", module) for module in found.projectors]
    towers = zip(("vision tower", "video tower"), found.towers, strict=False)
    return [*projectors, *towers, *language_parts(model)]


def language_parts(model: Any) -> Named:
    """Of a model that writes text: its table of embeddings, its head, its decoder. Tied to each other, the first two
    are one."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    shared = head is not None and getattr(head, "weight", None) is getattr(embeddings, "weight", head)
    name = "embeddings and head, tied" if shared else "embeddings"
    return [(name, embeddings), ("head", None if shared else head), ("language model", model.get_decoder())]


def modules(model: Any, parts: Named) -> list[dict[str, Any]]:
    """Each part's ``name``, ``parameters``, ``bytes`` and ``dtypes`` (bytes by dtype), the largest first; every
    parameter once, in the first part that has it. Quantised ones count as many numbers as they stand for."""
    owner: dict[int, str] = {}
    for name, module in parts:
        for parameter in module.parameters() if module is not None else ():
            owner.setdefault(id(parameter), name)
    found: dict[str, dict[str, Any]] = {}
    for parameter in model.parameters():
        _add(found, owner.get(id(parameter), OTHER), _numbers(parameter), parameter)
    for buffer in model.buffers():
        _add(found, BUFFERS, 0, buffer)
    return sorted(found.values(), key=lambda part: -part["bytes"])


def _add(found: dict[str, dict[str, Any]], name: str, numbers: int, tensor: Any) -> None:
    part = found.setdefault(name, {"name": name, "parameters": 0, "bytes": 0, "dtypes": {}})
    part["parameters"] += numbers
    for plain in plain_tensors(tensor):
        kind, taken = str(plain.dtype).removeprefix("torch."), plain.numel() * plain.element_size()
        part["bytes"] += taken
        part["dtypes"][kind] = part["dtypes"].get(kind, 0) + taken


def plain_tensors(value: Any) -> Iterator[Any]:
    """The plain tensors that ``value`` is made of: quantised ones are several, in one way or the other."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from plain_tensors(each)
    elif hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from plain_tensors(getattr(value, name))
    elif hasattr(value, "untyped_storage"):
        yield value


def _numbers(parameter: Any) -> int:
    # bitsandbytes packs two in a byte, and has the shape of what they were in the state beside it.
    state = getattr(parameter, "quant_state", None)
    shape = getattr(state, "shape", None)
    return int(shape.numel()) if shape is not None else int(parameter.numel())
