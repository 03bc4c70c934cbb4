"""What a model is loaded as (quantised, spread over devices, in another dtype), and the attention and the picture size
that its vision tower is set to: each is really so in the model, and says the same as the library's plain generate()."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_probe import RecordingProbe
from tiny_families import FAMILIES

from llava_tui.events import ModelFacts
from llava_tui.pipelines import fitting, quantization
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.checkpoints import synthesise_video
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import QUANTIZATIONS, Case, Load, from_dict

pytestmark = pytest.mark.models

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1, size=(64, 48)))


def loaded(model: Path, clip: str, **values: Any) -> tuple[LlavaPipeline, ModelFacts]:
    small = {"device": "cpu", "frames": [2], "new_tokens": [6], "inputs": [clip]}
    pipeline = LlavaPipeline(from_dict({"model": str(model)} | small | values))
    return pipeline, pipeline.load(RecordingProbe())


def same_tokens(pipeline: LlavaPipeline, case: Case, clip: str) -> list[list[int]]:
    """The case's tokens, which are those of a plain generate(), the vision tower having run once."""
    assert pipeline.check_case(case) == ""
    pipeline.prepare(case)
    result = pipeline.run(case, (clip,), 0, RecordingProbe())
    assert result.vision_calls == 1
    assert result.token_ids == pipeline.reference(case, (clip,), RecordingProbe())
    return result.token_ids


def attention_of(module: Any) -> set[str]:
    return {part.config._attn_implementation for part in module.modules() if hasattr(part, "config")}


def test_the_vision_towers_attention_is_an_axis_of_its_own(tiny: Path, clip: str) -> None:
    pipeline, facts = loaded(tiny, clip, attention="sdpa", vision_attention="eager,sdpa")
    assert facts.attention.startswith("sdpa")
    for case in (*pipeline.plan.cases(), *reversed(pipeline.plan.cases())):
        same_tokens(pipeline, case, clip)
        base = pipeline.model.base_model
        assert attention_of(base.vision_tower) == {case.vision_attention}
        assert attention_of(base.language_model) == {"sdpa"}


def test_one_attention_for_the_vision_tower_is_told_with_the_model(tiny: Path, clip: str) -> None:
    pipeline, facts = loaded(tiny, clip, vision_attention="eager")
    assert facts.extra["vision_attention"] == "eager"
    (case,) = pipeline.plan.cases()
    same_tokens(pipeline, case, clip)
    assert attention_of(pipeline.model.base_model.vision_tower) == {"eager"}


def test_a_resolution_makes_as_many_tokens_as_it_should(tiny_family: Callable[[str], Path], clip: str) -> None:
    pipeline, _ = loaded(tiny_family("qwen2_vl"), clip, resolution=[56, 112], media="image", frames=[1])
    small, large = pipeline.plan.cases()
    tokens = {}
    for case in (small, large, small):
        same_tokens(pipeline, case, clip)
        result = pipeline.run(case, (clip,), 0, RecordingProbe())
        assert result.image_tokens is not None
        assert tokens.setdefault(case.id, result.image_tokens) == result.image_tokens
    # A token is 28 × 28 pixels. The clip's shape is kept, and its processor rounds up what it enlarges.
    assert 4 <= tokens[small.id] <= 6 < 16 <= tokens[large.id] <= 20


@pytest.mark.parametrize(
    ("family", "side", "why"),
    [
        ("llava", 48, "48: the vision tower takes 32 pixels and no other size; leave --resolution out"),
        ("qwen2_vl", 50, "50: the vision tower takes sides that are multiples of 28 pixels"),
        ("idefics3", 40, "40: pictures are cut into tiles of 32 pixels: give a multiple"),
        ("smolvlm", 64, "64: the frames of a video have one size; add --media image"),
    ],
)
def test_a_resolution_that_a_tower_does_not_take_is_refused(
    tiny_family: Callable[[str], Path], clip: str, family: str, side: int, why: str
) -> None:
    pipeline, _ = loaded(tiny_family(family), clip, resolution=[side])
    assert pipeline.check_case(pipeline.plan.cases()[0]) == why


def test_a_model_spread_over_memory_and_disk_says_where_it_is_and_the_same_tokens(tiny: Path, clip: str) -> None:
    whole, facts = loaded(tiny, clip)
    assert facts.extra["device_map"] == {}
    (case,) = whole.plan.cases()
    tokens = same_tokens(whole, case, clip)
    spread, facts = loaded(tiny, clip, device_map="auto", max_memory="cpu=300KiB")
    assert set(facts.extra["device_map"].values()) == {"cpu", "disk"}
    assert facts.extra["device_map"]["lm_head"] == "disk"
    assert facts.extra["devices"] == ["cpu"]
    assert facts.extra["loads"][0]["load"] == "device map auto"
    assert spread.model.lm_head.weight.device.type == "meta"  # read whenever it is used
    assert same_tokens(spread, case, clip) == tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_spread_and_has_a_vision_attention_of_its_own(
    tiny_family: Callable[[str], Path], clip: str, family: str
) -> None:
    few = {"device_map": "auto", "max_memory": "cpu=300KiB", "attention": "sdpa", "vision_attention": "eager"}
    pipeline, facts = loaded(tiny_family(family), clip, new_tokens=[3], **few)
    assert "disk" in facts.extra["device_map"].values()
    same_tokens(pipeline, pipeline.plan.cases()[0], clip)
    config = pipeline.model.config
    assert config.vision_config._attn_implementation == "eager"
    assert config.get_text_config()._attn_implementation == "sdpa"


@needs_bitsandbytes
@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family_the_language_model_alone_is_quantised(
    tiny_family: Callable[[str], Path], clip: str, family: str
) -> None:
    pipeline, _ = loaded(tiny_family(family), clip, new_tokens=[3], quantization="bnb-8bit")
    same_tokens(pipeline, pipeline.plan.cases()[0], clip)
    model = pipeline.model
    quantised = [name for name, module in model.named_modules() if type(module).__name__ == "Linear8bitLt"]
    decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
    assert quantised
    assert all(name.startswith(f"{decoder}.") for name in quantised)


@pytest.mark.parametrize("name", [name for name in QUANTIZATIONS if name != "none"])
def test_what_a_quantization_needs_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tiny: Path, clip: str) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda of, *more: None if of in ("bitsandbytes", "torchao") else there(of, *more)
    )
    with pytest.raises(PipelineError, match=r"is not installed: pip install 'llava-tui\[quantization\]'"):
        loaded(tiny, clip, quantization=name)


QUANTISED = [
    pytest.param("bnb-8bit", "Linear8bitLt", "int8", marks=needs_bitsandbytes),
    pytest.param("bnb-4bit", "Linear4bit", "uint8", marks=needs_bitsandbytes),
    pytest.param("torchao-int8", "Linear", "int8", marks=needs_torchao),
    pytest.param("torchao-int8-dynamic", "Linear", "int8", marks=needs_torchao),
]


@pytest.mark.parametrize(("name", "kind", "dtype"), QUANTISED)
def test_the_language_model_is_quantised_and_nothing_else(
    tiny: Path, clip: str, name: str, kind: str, dtype: str
) -> None:
    from llava_tui.pipelines.weights import plain_tensors

    pipeline, facts = loaded(tiny, clip, quantization=f"none,{name}")
    plain, quantised = pipeline.plan.cases()
    assert len(pipeline.groups) == 1  # both fit, so that they interleave
    assert [each["group"] for each in facts.extra["loads"]] == [0, 0]
    for case in (plain, quantised, plain):
        same_tokens(pipeline, case, clip)
    pipeline.prepare(quantised)
    base = pipeline.model.base_model
    linear = base.language_model.layers[0].mlp.up_proj
    assert type(linear).__name__ == kind
    assert dtype in {str(tensor.dtype).removeprefix("torch.") for tensor in plain_tensors(linear.weight)}
    for part in (base.vision_tower, base.multi_modal_projector, pipeline.model.lm_head):
        assert {str(parameter.dtype) for parameter in part.parameters()} == {"torch.float32"}
    bytes_of = {each["load"]: each["weights_bytes"] for each in facts.extra["loads"]}
    assert bytes_of[name] < 0.7 * bytes_of["as it is"]
    guessed = quantization.size(pipeline._held[Load("none", "none", "auto")].model, name, 4)
    assert guessed == pytest.approx(bytes_of[name], rel=0.1)


@needs_torchao
def test_int4_says_where_it_can_run(tiny: Path, clip: str) -> None:
    with pytest.raises(PipelineError, match="torchao-int4 has kernels for CUDA only"):
        loaded(tiny, clip, quantization="torchao-int4")


@pytest.mark.parametrize(("name", "kind", "dtype"), QUANTISED)
def test_random_weights_are_quantised_too(
    tiny: Path, tmp_path: Path, clip: str, name: str, kind: str, dtype: str
) -> None:
    folder = tmp_path / "only-a-config"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny / "config.json").read_bytes())
    pipeline, facts = loaded(folder, clip, quantization=name, weights="random")
    same_tokens(pipeline, pipeline.plan.cases()[0], clip)
    assert type(pipeline.model.base_model.language_model.layers[0].mlp.up_proj).__name__ == kind
    assert facts.extra["quantization"] == name


def test_models_that_do_not_fit_together_are_loaded_one_after_another(tiny: Path, clip: str) -> None:
    pipeline, facts = loaded(tiny, clip, dtype="float32,bfloat16", max_memory="cpu=700KiB")
    first, second = pipeline.plan.cases()
    assert pipeline.groups == ((first.id,), (second.id,))
    assert [(each["group"], each.get("dtype")) for each in facts.extra["loads"]] == [(0, "float32"), (1, None)]
    same_tokens(pipeline, first, clip)
    assert "its model is not loaded now" in pipeline.check_case(second)
    facts = pipeline.load(RecordingProbe(), group=1)
    assert [each.get("dtype") for each in facts.extra["loads"]] == ["float32", "bfloat16"]
    assert facts.dtype == "float32", "the session's facts are those of the first"
    same_tokens(pipeline, second, clip)


LOADS = [Load("none", "none", name) for name in "abcdef"]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=6), room=st.integers(0, 300))
def test_groups_fit_keep_the_order_and_are_no_more_than_needed(sizes: list[int], room: int) -> None:
    needed = dict(zip(LOADS, sizes, strict=False))
    groups = fitting.together(needed, room)
    assert [load for group in groups for load in group] == list(needed)
    for group in groups:
        assert len(group) == 1 or sum(needed[load] for load in group) <= room
    for before, after in itertools.pairwise(groups):
        assert sum(needed[load] for load in (*before, after[0])) > room
