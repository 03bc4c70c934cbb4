"""Items of a data set with prompts of their own: in one batch, and with the tokens of a plain generate()."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recording_probe import RecordingProbe

from llava_tui.pipelines.base import BrokenInput
from llava_tui.plan import Case, from_dict
from llava_tui.session_files import Item

pytestmark = pytest.mark.models
SHORT, LONG = "Why?", "What is it that moves here, and in which direction does it seem to go?"
Load = Callable[..., Any]


@pytest.fixture(scope="module")
def llava(tiny: Path) -> Any:
    from llava_tui.pipelines.llava import LlavaPipeline

    pipeline = LlavaPipeline(from_dict({"model": str(tiny), "device": "cpu", "dtype": "float32"}))
    pipeline.load(RecordingProbe())
    return pipeline


@pytest.fixture(scope="module")
def eventgpt() -> Any:
    from llava_tui.pipelines.eventgpt import EventGptPipeline

    pipeline = EventGptPipeline(from_dict({"pipeline": "eventgpt", "device": "cpu", "dtype": "float32"}))
    pipeline.load(RecordingProbe())
    return pipeline


@pytest.mark.parametrize("kind", ["llava", "eventgpt"])
def test_each_sequence_has_its_own_prompt_and_says_what_it_says_alone(
    kind: str, request: pytest.FixtureRequest
) -> None:
    pipeline = request.getfixturevalue(kind)
    items = (Item("demo", SHORT), Item("demo", LONG), Item("demo"))
    case = Case(frames=2, batch=3, new_tokens=6)
    together = pipeline.run(case, items, 0, RecordingProbe())
    assert together.token_ids == pipeline.reference(case, items, RecordingProbe())
    assert together.vision_calls == 1
    alone = [pipeline.run(Case(frames=2, batch=1, new_tokens=6), (item,), 0, RecordingProbe()) for item in items]
    assert together.token_ids == [each.token_ids[0] for each in alone]
    assert alone[0].prompt_tokens < alone[2].prompt_tokens < alone[1].prompt_tokens
    plain = pipeline.run(Case(frames=2, batch=1, new_tokens=6), ("demo",), 0, RecordingProbe())
    assert plain.token_ids == alone[2].token_ids, "an item without a prompt has the plan's"


@pytest.mark.parametrize("kind", ["llava", "eventgpt"])
def test_a_prompt_that_is_too_long_is_its_items_fault(kind: str, request: pytest.FixtureRequest) -> None:
    pipeline = request.getfixturevalue(kind)
    items = (Item("demo", SHORT), Item("demo", "why " * 3000))
    with pytest.raises(BrokenInput, match=r"its prompt: .* context; shorten it|its prompt: .*; use") as error:
        pipeline.run(Case(frames=2, batch=2, new_tokens=6), items, 0, RecordingProbe())
    assert error.value.sequence == 1


@pytest.mark.parametrize(("kind", "token"), [("llava", "<image>"), ("eventgpt", "<event>")])
def test_a_prompt_with_a_token_that_stands_for_pictures_is_its_items_fault(
    kind: str, token: str, request: pytest.FixtureRequest
) -> None:
    pipeline = request.getfixturevalue(kind)
    items = (Item("demo", SHORT), Item("demo", f"{token}\n{SHORT}"))
    with pytest.raises(BrokenInput, match=f"its prompt:? contains {token}") as error:
        pipeline.run(Case(frames=2, batch=2, new_tokens=6), items, 0, RecordingProbe())
    assert error.value.sequence == 1


def test_what_the_processor_refuses_is_its_items_fault(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_tui.pipelines.batching import Batching

    tensors = Batching.tensors

    def picky(self: Batching, texts: list[str], clips: list[Any], media: str) -> Any:
        if any(LONG in text for text in texts):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return tensors(self, texts, clips, media)

    monkeypatch.setattr(Batching, "tensors", picky)
    items = (Item("demo", SHORT), Item("demo", LONG))
    with pytest.raises(BrokenInput, match="processor refuses it: absolute aspect ratio") as error:
        llava.run(Case(frames=2, batch=2, new_tokens=6), items, 0, RecordingProbe())
    assert error.value.sequence == 1


def test_what_cannot_be_read_is_known_by_its_place_in_the_batch(llava: Any, tmp_path: Path) -> None:
    items = (Item("demo"), Item(str(tmp_path / "none.mp4")))
    with pytest.raises(BrokenInput, match="no such file") as error:
        llava.run(Case(frames=1, batch=2, new_tokens=4), items, 0, RecordingProbe())
    assert error.value.sequence == 1


def test_several_images_of_one_prompt_are_as_a_folder_of_them(llava: Any, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number, 10, 200)).save(tmp_path / f"{number}.png")
    paths = tuple(str(tmp_path / f"{number}.png") for number in range(3))
    case = Case(frames=3, batch=1, new_tokens=6)
    listed = llava.run(case, (Item(paths, LONG),), 0, RecordingProbe())
    folder = llava.run(case, (Item(str(tmp_path), LONG),), 0, RecordingProbe())
    assert listed.token_ids == folder.token_ids
    assert listed.facts["pictures"] == 3
