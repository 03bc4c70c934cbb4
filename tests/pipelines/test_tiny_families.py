"""The small models that every family is tested with are genuine: the library's own classes load and run them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_families import FAMILIES, VIDEO

from llava_tui import architecture, models, preflight
from llava_tui.pipelines import built_processors
from llava_tui.plan import Plan, PlanError

pytestmark = pytest.mark.models

NOISE = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
PICTURES = ("internvl", "smolvlm")
"""Families that write a video as the pictures it is of."""
_SIZED = ("llava_next", "llava_next_video", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "idefics3")
UNTOLD = {
    *((family, "image", several) for family in _SIZED for several in (False, True)),
    *((family, "video", several) for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl") for several in (False, True)),
    ("llava_onevision", "image", False),
}
"""Where the size of the picture decides: family, kind, and whether there are several pictures."""
DARK = np.full_like(NOISE, 20)


def prepared(folder: Path, frames: np.ndarray, kind: str) -> tuple[Any, Any]:
    """The processor of a model, and its tensors of a prompt about ``frames``, as pictures or as one video."""
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    pictures = 1 if kind == "video" else len(frames)
    content = [{"type": kind}] * pictures + [{"type": "text", "text": "What moves?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    given: dict[str, Any] = {"images": [list(frames)]}
    if kind == "video":
        metadata = VideoMetadata(total_num_frames=8, fps=2, frames_indices=[0, 2, 4, 6][: len(frames)], duration=4.0)
        given = {"videos": [frames], "do_sample_frames": False, "video_metadata": [metadata]}
    return processor, processor(text=[text], return_tensors="pt", **given)


def said(folder: Path, frames: np.ndarray, kind: str) -> list[int]:
    """Eight new token ids of plain ``generate()`` about the first of ``frames``, or about all of them as a video."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    _, batch = prepared(folder, frames if kind == "video" else frames[:1], kind)
    ids = model.generate(**batch, do_sample=False, min_new_tokens=8, max_new_tokens=8)
    return list(ids[0, batch["input_ids"].shape[1] :].tolist())


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "image") for family in FAMILIES), *((family, "video") for family in VIDEO)]
)
def test_what_a_tiny_model_says_depends_on_what_it_sees(
    family: str, kind: str, tiny_family: Callable[[str], Path]
) -> None:
    folder = tiny_family(family)
    assert said(folder, NOISE, kind) == said(folder, NOISE, kind) != said(folder, DARK, kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_model_is_of_its_family_and_small(family: str, tiny_family: Callable[[str], Path]) -> None:
    from transformers import AutoConfig, GenerationConfig

    folder = tiny_family(family)
    assert AutoConfig.from_pretrained(folder, local_files_only=True).model_type == family
    assert GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id == 2
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1 << 20


@pytest.mark.parametrize(
    ("family", "kind", "frames"),
    [
        *((family, "image", frames) for family in FAMILIES for frames in (1, 2, 4)),
        *((family, "video", frames) for family in VIDEO for frames in (2, 4)),
    ],
)
def test_tokens_a_frame_are_told_by_the_config_only_where_they_are_those_of_the_processor(
    family: str, kind: str, frames: int, tiny_family: Callable[[str], Path]
) -> None:
    folder = tiny_family(family)
    told = architecture.image_tokens(models.read_config(folder), frames, kind)
    processor, batch = prepared(folder, NOISE[:frames], kind)
    token = processor.tokenizer.convert_tokens_to_ids(
        getattr(processor, "video_token" if kind == "video" and family not in PICTURES else "image_token")
    )
    if family == "gemma3":
        token = processor.tokenizer.image_token_id
    counted = int((batch["input_ids"] == token).sum())
    assert counted
    assert told == (None if (family, kind, frames > 1) in UNTOLD else counted)
    if kind == "video":
        assert architecture.image_tokens(models.read_config(folder), frames) == told


def test_every_tested_family_is_listed_as_such(tiny_family: Callable[[str], Path]) -> None:
    assert set(architecture.KNOWN_FAMILIES) == set(FAMILIES) == set(built_processors.FAMILIES)
    assert set(architecture.VIDEO_FAMILIES) == set(VIDEO)
    for family in FAMILIES:
        entries = [entry for entry in models.scan([tiny_family(family)]) if entry.source == "folder"]
        assert [(entry.model_type, entry.family, entry.problem) for entry in entries] == [(family, "tested", "")]


# --- what is said before a run -------------------------------------------------------------------------------------


def refusal(folder: Path, **plan: Any) -> str:
    with pytest.raises(PlanError) as caught:
        preflight.check(Plan(model=str(folder), **plan))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_missing_are_named_before_anything_is_loaded(
    tiny_family: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_family("gemma3"), tmp_path / "model")
    (folder / "processor_config.json").unlink()
    said = refusal(folder)
    assert said.endswith(
        "files are missing: the processor's (processor_config.json or preprocessor_config.json); put them there, "
        "or add --weights random"
    )
    (folder / "tokenizer.json").unlink()
    assert "preprocessor_config.json) and the tokenizer's (tokenizer.json); put" in refusal(folder)
    preflight.check(Plan(model=str(folder), weights="random"))


def test_too_many_frames_and_a_video_for_pictures_are_said_by_family(tiny_family: Callable[[str], Path]) -> None:
    said = refusal(tiny_family("video_llava"), frames=(300,), prompt="What?")
    assert "300 frames × 17 tokens + 1 prompt + 64 new = 5,165 > 4,096 context; use --frames 237 or fewer" in said
    said = refusal(tiny_family("video_llava"), frames=(300,), prompt="What?", media="image")
    assert "300 frames × 16 tokens" in said
    assert "gemma3 models take no videos, only pictures; use --media image" in refusal(
        tiny_family("gemma3"), media="video"
    )
    preflight.check(Plan(model=str(tiny_family("qwen2_vl")), frames=(300,), media="video"))  # only the worker can tell
