"""What each part of a model weighs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recording_probe import RecordingProbe
from tiny_families import FAMILIES

pytestmark = pytest.mark.models


def loaded(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=torch.bfloat16)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_every_family_is_in_one_part(family: str, tiny_family: Callable[[str], Path]) -> None:
    from llava_tui.pipelines import weights

    model = loaded(tiny_family(family))
    found = {part["name"]: part for part in weights.modules(model, weights.parts_of(model))}
    assert sum(part["parameters"] for part in found.values()) == model.num_parameters()
    for name in ("vision tower", "projector", "language model"):
        assert found[name]["parameters"] > 0, name
    inside = sum(parameter.numel() for parameter in model.get_decoder().layers.parameters())
    assert inside <= found["language model"]["parameters"] <= 1.1 * inside
    if family == "video_llava":
        assert found["video tower"]["parameters"] == found["vision tower"]["parameters"]
    assert all(part["bytes"] == 2 * part["parameters"] for name, part in found.items() if name != "buffers")
    assert all(sum(part["dtypes"].values()) == part["bytes"] for part in found.values())


def test_a_head_that_is_tied_to_the_embeddings_counts_once(tiny_family: Callable[[str], Path]) -> None:
    from llava_tui.pipelines import weights

    model = loaded(tiny_family("llava"))
    apart = {part["name"]: part["parameters"] for part in weights.modules(model, weights.parts_of(model))}
    assert apart["embeddings"] == apart["head"]
    model.lm_head.weight = model.get_input_embeddings().weight
    tied = {part["name"]: part["parameters"] for part in weights.modules(model, weights.parts_of(model))}
    assert "head" not in tied
    assert tied["embeddings and head, tied"] == apart["embeddings"]
    assert sum(tied.values()) == sum(apart.values()) - apart["head"]


def test_parts_of_several_types_say_so_and_packed_numbers_count_as_they_were() -> None:
    import torch
    from torch import nn

    from llava_tui.pipelines import weights

    model = nn.Module()
    model.tower, model.rest = nn.Linear(8, 8, bias=False).to(torch.float16), nn.Linear(8, 8, bias=False)
    packed = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = type("State", (), {"shape": torch.Size((8, 8))})()  # type: ignore[attr-defined]
    model.packed = packed
    model.register_buffer("scale", torch.zeros(3))
    found = {part["name"]: part for part in weights.modules(model, [("tower", model.tower), ("none", None)])}
    assert found["tower"] == {"name": "tower", "parameters": 64, "bytes": 128, "dtypes": {"float16": 128}}
    assert found["other"]["parameters"] == 128
    assert found["other"]["dtypes"] == {"float32": 256, "uint8": 32}
    assert found["buffers"] == {"name": "buffers", "parameters": 0, "bytes": 12, "dtypes": {"float32": 12}}


def test_eventgpts_parts_are_told_as_well(tmp_path: Path) -> None:
    from llava_tui.pipelines import eventgpt_checkpoint
    from llava_tui.pipelines.eventgpt import EventGptPipeline
    from llava_tui.plan import from_dict

    folder = eventgpt_checkpoint.build_tiny(tmp_path / "tiny")
    pipeline = EventGptPipeline(from_dict({"pipeline": "eventgpt", "model": str(folder), "device": "cpu"}))
    facts = pipeline.load(RecordingProbe())
    found = {part["name"]: part["parameters"] for part in facts.extra["modules"]}
    assert {"vision tower", "projector", "adaptor", "language model", "embeddings", "head"} <= set(found)
    assert sum(found.values()) == facts.parameters
