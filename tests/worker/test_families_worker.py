"""Sessions of what not every family does: text alone, a video as one, and encoding that cannot be told apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llava_tui.analysis.measures import measures
from llava_tui.analysis.trust import badge
from llava_tui.report import facts

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llava_tui.pipelines.checkpoints import synthesise_video

    return str(synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1))


def plan(model: Path, clip: str, **values: Any) -> dict[str, Any]:
    fixed = {"pipeline": "llava", "device": "cpu", "new_tokens": [4], "rounds": 2, "sample_hz": 20}
    return {**fixed, "model": str(model), "inputs": [clip], **values}


def test_text_alone_is_a_case_beside_a_video(start: Any, clip: str, tmp_path: Path) -> None:
    from tiny_families import build

    live = start(**plan(build("qwen2_vl", tmp_path / "qwen2_vl"), clip, frames=[0, 2]))
    assert live.end() == 0, live.log()
    assert {run["facts"]["cross_check"] for run in live.runs(kind="cross-check")} == {"equal"}
    media = {run["case"]: run["facts"]["media"] for run in live.runs(kind="measured", outcome="ok")}
    assert media == {"f0-b1-n4": "text", "f2-b1-n4": "video"}
    view = live.view()
    of = measures(view, "f0-b1-n4")
    assert of.steps == ["encode", "generate"], "a step that did not happen is not one of unknown length"
    assert of.median("frames") is None
    assert (of.unaccounted >= 0).all()
    assert not any(reason.kind == "blind" for reason in badge(view, "f0-b1-n4").reasons)
    assert measures(view, "f2-b1-n4").steps == ["frames", "encode", "generate"]
    assert view.model is not None
    assert not any("family" in line for line in facts.head(view))


def test_a_model_that_cannot_be_split_has_a_session_of_what_is_known(start: Any, clip: str, tmp_path: Path) -> None:
    from other_families import build_mllama

    live = start(**plan(build_mllama(tmp_path / "mllama"), clip, frames=[2]))
    assert live.end() == 0, live.log()
    assert {run["facts"]["cross_check"] for run in live.runs(kind="cross-check")} == {"equal"}
    of = measures(live.view(), "f2-b1-n4")
    assert of.steps == ["frames", "encode", "generate"]
    known = {path: of.median(path) is not None for path in of.paths}
    assert {path for path, is_known in known.items() if not is_known} == {"encode.vision_tower", "encode.projector"}
    assert any("mllama models cannot be split" in line for line in live.log())
    told = [line for line in facts.head(live.view()) if line.strip().startswith("family")]
    assert "untested" in told[0]
    assert "a part of prefill" in told[1]
