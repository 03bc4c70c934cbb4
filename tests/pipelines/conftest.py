"""A probe that writes down what it is told, and a genuine small checkpoint, built once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recording_probe import RecordingProbe

from llava_tui.pipelines.checkpoints import CACHE_VARIABLE


@pytest.fixture
def probe() -> RecordingProbe:
    return RecordingProbe()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is built for ``demo`` goes to a folder of the test run, never to the user's."""
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ[CACHE_VARIABLE]
    else:
        os.environ[CACHE_VARIABLE] = before


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of 64 × 2 layers: 16 tokens a frame, 1,024 tokens of context."""
    import torch

    from llava_tui.pipelines.checkpoints import build_tiny

    torch.set_num_threads(1)  # matrices are tiny, and other tests run beside
    return build_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of a family (see :data:`tiny_families.FAMILIES`), built when it is first asked for."""
    import torch
    from tiny_families import build

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("families")

    def folder(family: str) -> Path:
        return root / family if (root / family).is_dir() else build(family, root / family)

    return folder
