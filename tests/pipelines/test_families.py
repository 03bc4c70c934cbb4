"""One pipeline for every family: each says what its own plain generate() says, and sees each picture once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from other_families import build_mistral3, build_mllama
from recording_probe import RecordingProbe
from tiny_families import FAMILIES, VIDEO

from llava_tui import architecture
from llava_tui.pipelines.base import LLAVA_STAGES, Cancelled, PipelineError
from llava_tui.pipelines.checkpoints import synthesise_video
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import Case, Plan
from llava_tui.session_files import Item
from llava_tui.worker.clock import HostClock
from llava_tui.worker.recorder import Recorder

pytestmark = pytest.mark.models

WAYS = [(family, "image") for family in FAMILIES] + [(family, "video") for family in VIDEO]
PROMPT = "What moves?"
ONE, BATCH = Case(2, 1, 6), Case(3, 2, 12)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two videos of different sizes and containers, to tell sequences of a batch apart."""
    folder = tmp_path_factory.mktemp("inputs")
    return (
        str(synthesise_video(folder / "one.mp4", seconds=1)),
        str(synthesise_video(folder / "two.webm", seconds=1, size=(256, 320))),
    )


@pytest.fixture(scope="module")
def of(tiny_family: Callable[[str], Path]) -> Iterator[Callable[..., LlavaPipeline]]:
    """A pipeline of a family, loaded when it is first asked for; what more is said goes into its plan."""
    loaded: dict[str, LlavaPipeline] = {}

    def pipeline(family: str, **plan: Any) -> LlavaPipeline:
        if family not in loaded:
            loaded[family] = LlavaPipeline(Plan(model=str(tiny_family(family)), prompt=PROMPT, device="cpu"))
            loaded[family].load(RecordingProbe())
        loaded[family].plan = Plan(**{"model": str(tiny_family(family)), "prompt": PROMPT, "device": "cpu"} | plan)
        return loaded[family]

    yield pipeline
    loaded.clear()  # closing each would collect garbage 14 times


def towers(pipeline: LlavaPipeline) -> list[Any]:
    """A list that grows by one whenever a vision tower runs, whoever runs it."""
    ran: list[Any] = []
    base = pipeline.model.base_model
    names = ("vision_tower", "image_tower", "video_tower", "visual", "vision_model")
    for tower in (getattr(base, name) for name in names if hasattr(base, name)):
        tower.register_forward_pre_hook(lambda *_: ran.append(1))
    return ran


# --- the same as the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "media"), WAYS)
def test_a_family_says_what_plain_generate_says_and_encodes_once(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], family: str, media: str
) -> None:
    pipeline = of(family, media=media)
    ran = towers(pipeline)
    for case in (ONE, BATCH):
        ran.clear()
        result = pipeline.run(case, videos, 0, RecordingProbe())
        assert (len(ran), result.vision_calls) == (1, 1)
        assert result.token_ids == pipeline.reference(case, videos, RecordingProbe())
        assert [len(ids) for ids in result.token_ids] == [case.new_tokens] * case.batch
        assert result.facts["media"] == media
        assert result.frames == case.frames * case.batch
        assert result.image_tokens
        assert result.prompt_tokens > result.image_tokens
    assert len(set(result.text)) == 2, "else it would be blind, and equal tokens would prove nothing"


@pytest.mark.parametrize(("family", "media"), WAYS)
def test_every_stage_of_a_family_has_its_time_and_no_time_is_told_twice(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], family: str, media: str
) -> None:
    pipeline = of(family, media=media)
    recorder = Recorder(LLAVA_STAGES, HostClock(), lambda: None)
    recorder.start(1)
    pipeline.run(BATCH, videos, 0, recorder)
    spans = recorder.finish()
    took = dict(zip(spans.stages, spans.durations, strict=True))
    assert None not in took.values()
    for step in ("frames", "encode", "generate"):
        inside = sum(took[path] for path in took if path.startswith(f"{step}."))
        assert 0 < inside <= took[step]
    assert len(spans.token_times) == BATCH.new_tokens


@pytest.mark.parametrize(("family", "media"), WAYS)
def test_a_prefill_that_was_cut_leaves_the_next_run_right(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], family: str, media: str
) -> None:
    pipeline = of(family, media=media)
    whole = RecordingProbe()
    expected = pipeline.run(ONE, videos, 0, whole).token_ids
    assert whole.checks.count("generate.prefill") == 1 + 2, "before it, and in each layer"
    assert whole.checks.count("generate.decode") == 5, "once a token"
    last = max(place for place, name in enumerate(whole.checks) if name == "generate.prefill")
    within_encoding = whole.checks.index("encode.vision_tower")
    for place in (within_encoding, last):
        probe = RecordingProbe(cut=place)
        with pytest.raises(Cancelled):
            pipeline.run(ONE, videos, 0, probe)
        assert not probe.open
        assert pipeline.run(ONE, videos, 0, RecordingProbe()).token_ids == expected


@pytest.mark.parametrize(("family", "media"), WAYS)
def test_what_overflows_the_context_is_known_to_the_token(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], family: str, media: str
) -> None:
    pipeline = of(family, media=media, inputs=videos[:1])
    context = architecture.context_length(pipeline.config)
    prompt = pipeline.run(Case(3, 1, 1), videos[:1], 0, RecordingProbe()).prompt_tokens
    assert context
    assert prompt
    assert pipeline.check_case(Case(3, 1, context - prompt)) == ""
    said = pipeline.check_case(Case(3, 1, context - prompt + 1))
    assert f"= {context + 1:,} > {context:,} context; use " in said


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_the_same_with_another_attention_and_a_static_cache(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], family: str
) -> None:
    pipeline, case = of(family), Case(2, 2, 6, attention="eager", cache="static")
    pipeline.prepare(case)
    try:
        for _ in range(2):  # the second time it finds the first one's cache
            result = pipeline.run(case, videos, 0, RecordingProbe())
        assert result.token_ids == pipeline.reference(case, videos, RecordingProbe())
        assert result.vision_calls == 1
    finally:
        pipeline.prepare(ONE)


# --- how frames are given ------------------------------------------------------------------------------------------


def test_the_projector_within_qwens_tower_is_told_apart_from_it(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...]
) -> None:
    """DeepStack runs one after an early layer and one at the end: the tower's time is what is left."""
    probe = RecordingProbe()
    of("qwen3_vl").run(ONE, videos, 0, probe)
    begun = [path.partition(".")[2] for kind, path in probe.told if kind == "begin" and path.startswith("encode.")]
    assert begun[2:] == ["vision_tower", "projector", "vision_tower", "projector", "vision_tower"]


@pytest.mark.parametrize("family", ["llava", "llava_onevision", "internvl", "smolvlm", "qwen3_vl"])
def test_left_alone_a_family_is_given_what_it_was_made_for(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], tmp_path: Path, family: str
) -> None:
    from PIL import Image

    road = "video" if family in VIDEO else "image"
    (tmp_path / "alike").mkdir()
    (tmp_path / "mixed").mkdir()
    for number in range(2):
        Image.new("RGB", (60, 50), (200, 90 * number, 20)).save(tmp_path / "alike" / f"{number}.png")
        Image.new("RGB", (60, 50 + 10 * number), (20, 90, 20)).save(tmp_path / "mixed" / f"{number}.png")
    inputs: dict[Any, str] = {
        videos[0]: road,
        str(tmp_path / "alike"): road,
        str(tmp_path / "mixed"): "image",
        str(tmp_path / "alike" / "0.png"): "image",
        Item(tuple(str(tmp_path / "alike" / f"{number}.png") for number in range(2))): "image",
    }
    pipeline = of(family)
    for path, media in inputs.items():
        for frames in (1, 2):
            case = Case(frames, 1, 2)
            result = pipeline.run(case, (path,), 0, RecordingProbe())
            assert result.token_ids == pipeline.reference(case, (path,), RecordingProbe())
            alone = frames == 1 and path == str(tmp_path / "mixed")  # one picture is alike
            assert result.facts["media"] == (road if alone else media)


def test_a_video_for_a_family_that_reads_none_is_refused(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...]
) -> None:
    pipeline = of("gemma3", media="video", inputs=videos)
    assert "--media image" in pipeline.check_case(ONE)
    with pytest.raises(PipelineError, match="takes no videos"):
        pipeline.run(ONE, videos, 0, RecordingProbe())


@pytest.mark.parametrize("family", FAMILIES)
def test_without_frames_a_family_is_a_language_model(
    of: Callable[..., LlavaPipeline], videos: tuple[str, ...], family: str
) -> None:
    pipeline, case, probe = of(family), Case(0, 2, 4), RecordingProbe()
    assert pipeline.check_case(case) == ""
    result = pipeline.run(case, videos, 0, probe)
    assert result.token_ids == pipeline.reference(case, videos, RecordingProbe())
    assert (result.vision_calls, result.image_tokens, result.frames) == (0, 0, 0)
    begun = {path for kind, path in probe.told if kind == "begin"}
    absent = {"frames", "frames.decode_frames", "encode.vision_tower", "encode.projector"}
    assert begun == {info.path for info in LLAVA_STAGES} - absent, "what did not happen takes no time, not zero"


# --- families that no test is claimed for --------------------------------------------------------------------------


def other(build: Callable[[Path], Path], folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[LlavaPipeline, Any]:
    pipeline = LlavaPipeline(Plan(model=str(build(folder)), prompt=PROMPT, device="cpu"))
    with caplog.at_level(logging.WARNING, "llava_tui.pipelines"):
        facts = pipeline.load(RecordingProbe())
    return pipeline, facts


def test_a_family_of_the_same_shape_runs_and_is_called_untested(
    videos: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, facts = other(build_mistral3, tmp_path / "mistral3", caplog)
    assert facts.extra["family"] == "untested"
    assert "unsplit" not in facts.extra
    assert "mistral3 models are untested" in caplog.text
    probe = RecordingProbe()
    result = pipeline.run(BATCH, videos, 0, probe)
    assert result.token_ids == pipeline.reference(BATCH, videos, RecordingProbe())
    assert result.vision_calls == 1
    assert {path for _, path in probe.told} == {info.path for info in LLAVA_STAGES}


def test_a_model_that_cannot_be_split_encodes_in_its_prefill_and_says_so(
    videos: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, facts = other(build_mllama, tmp_path / "mllama", caplog)
    assert "encodes pictures alone" in facts.extra["unsplit"]
    assert "mllama models cannot be split" in caplog.text
    inside: list[str] = []
    probe = RecordingProbe()
    pipeline.model.base_model.vision_model.register_forward_pre_hook(lambda *_: inside.append("".join(probe.open[-1:])))
    for case in (ONE, BATCH):
        inside.clear()
        probe.told.clear()
        result = pipeline.run(case, videos, 0, probe)
        assert inside == ["generate.prefill"]
        begun = [path for kind, path in probe.told if kind == "begin"]
        absent = {"encode.vision_tower", "encode.projector"}
        assert begun == [info.path for info in LLAVA_STAGES if info.path not in absent]
        assert result.vision_calls is None, "what is not known is not told"
        assert result.token_ids == pipeline.reference(case, videos, RecordingProbe())
    assert len(set(result.text)) == 2

    cut = RecordingProbe()
    pipeline.run(ONE, videos, 0, cut)
    place = cut.checks.index("generate.prefill") + 3  # in its layers
    with pytest.raises(Cancelled):
        pipeline.run(ONE, videos, 0, stopped := RecordingProbe(cut=place))
    assert not stopped.open


def test_a_tested_family_is_called_so(tiny_family: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    pipeline, facts = other(lambda _: tiny_family("llava"), Path(), caplog)
    assert facts.extra["family"] == "tested"
    assert "untested" not in caplog.text
    assert set(FAMILIES) == set(architecture.KNOWN_FAMILIES)
    assert set(VIDEO) == set(architecture.VIDEO_FAMILIES)
    pipeline.close()


def test_a_model_without_eyes_is_refused(tiny_family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_tui.pipelines import families

    monkeypatch.setattr(families, "reads_pictures", lambda _: False)
    with pytest.raises(PipelineError, match="read no pictures; use a vision-language model"):
        LlavaPipeline(Plan(model=str(tiny_family("llava")), device="cpu")).load(RecordingProbe())
