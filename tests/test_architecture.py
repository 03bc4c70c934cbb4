"""What a config tells is what the model is."""

from __future__ import annotations

from typing import Any

import pytest
from llava_7b import CONFIG, PARAMETERS

from llava_tui import architecture


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}


def test_llava_7b_has_the_parameters_that_were_counted() -> None:
    counts = architecture.parameters(CONFIG)
    assert counts is not None
    assert sum(counts.values()) == PARAMETERS
    assert counts["vision"] == pytest.approx(303.5e6, rel=1e-3)
    assert counts["projector"] == pytest.approx(21e6, rel=1e-2)
    assert counts["head"] == pytest.approx(131e6, rel=1e-2)
    assert architecture.parameters(changed(text_config={"hidden_size": 4096})) is None
    assert architecture.parameters(changed(model_type="qwen2_vl")) is None


@pytest.mark.models
@pytest.mark.parametrize("shape", [{}, {"heads": 8, "vision_layers": 3, "hidden": 128}])
def test_parameters_are_those_of_a_real_model(tmp_path: Any, shape: dict[str, int]) -> None:
    import dataclasses
    import json

    from safetensors import safe_open

    from llava_tui.pipelines.checkpoints import TINY, build_tiny

    folder = build_tiny(tmp_path, shape=dataclasses.replace(TINY, **shape))
    with safe_open(folder / "model.safetensors", "np") as file:
        sizes = {name: file.get_tensor(name).size for name in file.keys()}  # noqa: SIM118  (no mapping)
    counts = architecture.parameters(json.loads((folder / "config.json").read_text()))
    assert counts is not None
    assert sum(counts.values()) == sum(sizes.values())
    assert counts["vision"] == sum(size for name, size in sizes.items() if "vision_tower" in name)


def test_tokens_a_frame() -> None:
    assert architecture.image_tokens(CONFIG) == 576
    assert architecture.image_tokens(CONFIG, 8) == 4608
    assert architecture.image_tokens(changed(vision_feature_select_strategy="full")) == 577
    assert architecture.image_tokens(changed(vision_config={"model_type": "clip_vision_model"})) == 576
    siglip = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 16}
    assert architecture.image_tokens(changed(vision_config=siglip, vision_feature_select_strategy="full")) == 576
    assert architecture.image_tokens(changed(model_type="vipllava", vision_feature_select_strategy=None)) == 576
    assert architecture.image_tokens(changed(model_type="qwen2_vl")) is None


def test_tokens_of_published_models_are_those_of_their_papers() -> None:
    def seen(kind: str, side: int, patch: int, frames: int, media: str = "auto", **values: Any) -> int | None:
        tower = {"model_type": values.pop("tower", "siglip_vision_model"), "image_size": side, "patch_size": patch}
        return architecture.image_tokens({"model_type": kind, "vision_config": tower, **values}, frames, media)

    assert seen("llava_onevision", 384, 14, 32, vision_feature_select_strategy="full") == 32 * 196 + 1
    assert seen("llava_onevision", 384, 14, 3, "image", vision_feature_select_strategy="full") == 3 * 730
    assert seen("llava_next_video", 336, 14, 16, tower="clip_vision_model") == 16 * 144
    assert seen("video_llava", 224, 14, 8, tower="clip_vision_model") == 2056
    assert seen("video_llava", 224, 14, 8, "image", tower="clip_vision_model") == 8 * 256
    assert seen("smolvlm", 384, 14, 8, scale_factor=3) == 8 * 81
    assert seen("paligemma", 224, 14, 1) == 256
    assert seen("gemma3", 896, 14, 2) == 512
    tiles = {"model_type": "internvl", "vision_config": {"image_size": [448, 448], "patch_size": [14, 14]}}
    assert architecture.image_tokens(tiles, 4) == 4 * 256
    assert architecture.image_tokens(tiles, 4, "image") is None  # cut into tiles by its shape
    assert all(architecture.image_tokens(changed(model_type=kind), 0) == 0 for kind in architecture.KNOWN_FAMILIES)


@pytest.mark.parametrize("kind", architecture.KNOWN_FAMILIES)
@pytest.mark.parametrize(
    "part", ["broken", [], {"image_size": "9", "patch_size": 0}, {"image_size": [1], "patch_size": 9}]
)
def test_a_damaged_config_tells_nothing(kind: str, part: Any) -> None:
    damaged = {"model_type": kind, "vision_config": part, "mm_tokens_per_image": "many", "downsample_ratio": "half"}
    assert architecture.image_tokens(damaged, 2) is None


def test_overflow_says_the_sum_and_what_fits() -> None:
    assert (
        architecture.overflow(CONFIG, 8, 40, 64)
        == "8 frames × 576 tokens + 40 prompt + 64 new = 4,712 > 4,096 context; use --frames 6 or fewer"
    )
    assert architecture.overflow(CONFIG, 6, 40, 64) == ""
    assert architecture.overflow(CONFIG, 7, 0, 64) == ""  # 4,096 exactly
    assert architecture.overflow(CONFIG, 7, 0, 65).endswith("use --frames 6 or fewer")
    assert architecture.overflow(CONFIG, 2, 3000, 100).endswith("; use --frames 1")
    assert architecture.overflow(CONFIG, 1, 40, 4000).endswith("; use fewer --new-tokens")
    assert architecture.overflow(CONFIG, 1, 40, 4000).startswith("1 frame × 576")
    assert architecture.overflow(changed(text_config={}), 100, 40, 64) == ""
    siglip = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14}
    video = changed(model_type="llava_onevision", vision_config=siglip)
    assert (
        architecture.overflow(video, 21, 40, 64)
        == "21 frames × 196 tokens + 1 + 40 prompt + 64 new = 4,221 > 4,096 context; use --frames 20 or fewer"
    )
    assert architecture.overflow(video, 21, 40, 64, "image").endswith("; use --frames 5 or fewer")


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        (CONFIG, True),
        (changed(architectures=None), True),
        (changed(model_type="qwen2_5_vl", architectures=["Qwen2_5_VLForConditionalGeneration"]), True),
        (changed(model_type="clip", architectures=["CLIPModel"]), False),
        (changed(model_type="siglip", architectures=None), False),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, False),
        ({}, False),
        (changed(vision_config="broken"), False),
    ],
)
def test_what_reads_pictures_and_writes_text(config: dict[str, Any], answer: bool) -> None:
    assert architecture.is_vlm(config) is answer
