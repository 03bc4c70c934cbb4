"""What is built here is genuine, deterministic, and safe to build from two processes at once."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from llava_tui.pipelines import checkpoints
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.checkpoints import frame_number, synthesise_video
from llava_tui.pipelines.frames import sample_frames


def content(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            total.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return total.hexdigest()


@pytest.mark.models
def test_a_tiny_llava_is_the_same_from_the_same_seed(tiny: Path, tmp_path: Path) -> None:
    import torch

    state = torch.random.get_rng_state()
    assert content(checkpoints.build_tiny(tmp_path / "same")) == content(tiny)
    assert content(checkpoints.build_tiny(tmp_path / "other", seed=1)) != content(tiny)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are left alone"
    assert sum(file.stat().st_size for file in tiny.iterdir()) < 1 << 20


@pytest.mark.models
def test_a_tiny_llava_loads_through_the_auto_classes(tiny: Path) -> None:
    from transformers import (
        AutoModelForImageTextToText,
        AutoProcessor,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    processor = AutoProcessor.from_pretrained(tiny, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(tiny, local_files_only=True)
    assert type(model) is LlavaForConditionalGeneration
    assert type(processor) is LlavaProcessor
    text = "Grüße, 世界 🌍\n\x00"
    ids = processor.tokenizer(text).input_ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id


@pytest.mark.models
def test_the_demo_model_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    import json

    from llava_tui import architecture, models

    folder = checkpoints.build_demo(tmp_path / "demo")
    config = json.loads((folder / "config.json").read_text())
    counts = architecture.parameters(config)
    assert counts is not None
    assert sum(counts.values()) == 26_132_480
    assert architecture.image_tokens(config, 4) == 1024
    assert architecture.overflow(config, frames=8, prompt_tokens=100, new_tokens=64) == ""
    models.check_model(str(folder))


def _demo_video(barrier: multiprocessing.synchronize.Barrier, answer: multiprocessing.queues.Queue[str]) -> None:
    barrier.wait()
    # Not of its folder: another's workshop there may go while it is read.
    answer.put(hashlib.sha256(checkpoints.demo_video().read_bytes()).hexdigest())


def test_processes_that_build_at_once_find_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoints.CACHE_VARIABLE, str(tmp_path / "new" / "cache"))
    context = multiprocessing.get_context("spawn")
    barrier, answer = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_demo_video, args=(barrier, answer)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in workers:
        answer.get(timeout=60)
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert [file.name for file in checkpoints.cache_folder().iterdir()] == [checkpoints.demo_video().name]
    assert sample_frames("demo", 48).indices == list(range(48))


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoints.CACHE_VARIABLE, str(tmp_path))

    def fail(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(PipelineError, match=r"cannot keep thing here \(No space left on device\); set LLAVA_TUI_CACHE"):
        checkpoints._cached("thing", fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv(checkpoints.CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(PipelineError, match="set LLAVA_TUI_CACHE"):
        checkpoints.demo_video()


def test_a_synthesised_clip_moves_and_counts(tmp_path: Path) -> None:
    clip = synthesise_video(tmp_path / "clip.mp4", seconds=1, fps=24, size=(320, 240))
    images = sample_frames(clip, 24).images
    assert [frame_number(image) for image in images] == list(range(24))
    below = [image[checkpoints.COUNTER_CELL :].astype(int) for image in images]
    assert all(np.abs(one - next_).max() > 60 for one, next_ in itertools.pairwise(below))
