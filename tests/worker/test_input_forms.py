"""What an input may be, through a real worker: text alone, a picture, a folder of them, a video of minutes."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

pytestmark = pytest.mark.models

FRAMES = 2
TOKENS = 16
"""Of a frame, of the tiny model."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from llava_tui.pipelines.checkpoints import build_tiny

    return str(build_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A picture, a folder of three, and a video of two minutes."""
    from PIL import Image

    from llava_tui.pipelines.checkpoints import synthesise_video

    folder = tmp_path_factory.mktemp("inputs")
    Image.new("RGB", (60, 40), "red").save(folder / "one picture.png")
    (folder / "several").mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40 + number, 60), colour).save(folder / "several" / f"{number}.jpg")
    synthesise_video(folder / "long.mp4", size=(192, 32), times=[number * 5 for number in range(300)])
    return [str(folder / "one picture.png"), str(folder / "several"), str(folder / "long.mp4")]


def test_text_a_picture_several_pictures_and_a_long_video(start: Any, cli: Any, model: str, inputs: list[str]) -> None:
    live = start(
        pipeline="llava",
        model=model,
        inputs=inputs,
        frames=[0, FRAMES],
        batch=[3],
        new_tokens=[4],
        rounds=1,
        warmup=0,
        self_test=False,
        device="cpu",
        threads=[1],
    )
    assert live.end() == 0, live.log()
    text, run = sorted(live.runs(kind="measured"), key=lambda run: run["frames"])
    assert (text["frames"], text["image_tokens"]) == (0, 0)
    assert text["prompt_tokens"] > 0
    assert run["image_tokens"] == FRAMES * TOKENS
    assert run["prompt_tokens"] > run["image_tokens"] + text["prompt_tokens"] - 2
    assert run["frames"] == 1 + FRAMES + FRAMES
    assert run["facts"]["pictures"] == 3 * FRAMES
    assert run["facts"]["frame_indices"] == [[0, 0], [0, 2], [0, 299]]
    assert run["facts"]["sampling"] == "files, seek"
    assert run["facts"]["frames_decoded"] <= 1 + 2 + 1 + 12
    assert {run["outcome"] for run in live.runs(kind="cross-check")} == {"ok"}
    assert any("one picture.png has 1 of the 2 frames" in line for line in live.log())

    shown = json.loads(cli("show", str(live.path), "--json").stdout)
    told = json.dumps(shown)
    assert "one picture.png" in told
    assert "several" in told
    page = cli("show", str(live.path)).stdout
    assert "one picture.png" in page


def test_the_input_that_crashed_a_decoder_is_named(start: Any, cli: Any, model: str, inputs: list[str]) -> None:
    """A segmentation fault within FFmpeg leaves no last word: what had begun tells where it was."""
    live = start(pipeline="llava", model=model, inputs=inputs[2:], frames=[2], new_tokens=[64], device="cpu")
    live.until(lambda view: view.current is not None and view.current["kind"] != "load", "a run")
    live.process.send_signal(signal.SIGSEGV)
    assert live.process.wait() == -signal.SIGSEGV
    shown = cli("show", str(live.path)).stdout
    assert "interrupted" in shown
    (line,) = [line for line in shown.splitlines() if "open run" in line]
    assert "long.mp4" in line
