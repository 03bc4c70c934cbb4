"""The small models that every family is tested with are genuine: the library's own classes load and run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_families import FAMILIES, VIDEO

pytestmark = pytest.mark.models

NOISE = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
DARK = np.full_like(NOISE, 20)


def said(folder: Path, frames: np.ndarray, kind: str) -> list[int]:
    """Eight new token ids of plain ``generate()`` about the first of ``frames``, or about all of them as a video."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    content = [{"type": kind}, {"type": "text", "text": "What moves?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    given: dict[str, Any] = {"images": [[frames[0]]]}
    if kind == "video":
        metadata = VideoMetadata(total_num_frames=8, fps=2, frames_indices=[0, 2, 4, 6], duration=4.0)
        given = {"videos": [frames], "do_sample_frames": False, "video_metadata": [metadata]}
    batch = processor(text=[text], return_tensors="pt", **given)
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
