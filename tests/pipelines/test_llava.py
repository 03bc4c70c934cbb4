"""What is measured is what the library does: equal tokens, one encoding, nothing left on the model."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recording_probe import RecordingProbe

from llava_tui.pipelines.base import LLAVA_STAGES, Cancelled, PipelineError
from llava_tui.pipelines.checkpoints import synthesise_video
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.pipelines.loading import digest
from llava_tui.plan import Case, Plan

pytestmark = pytest.mark.models

PROMPT = "What moves?"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two videos of different sizes and containers, and a folder of images, to tell sequences of a batch apart."""
    folder = tmp_path_factory.mktemp("inputs")
    from PIL import Image

    (folder / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (50, 70), (200, 80 * number, 20)).save(folder / "images" / f"{number}.png")
    return (
        str(synthesise_video(folder / "one.mp4", seconds=1)),
        str(synthesise_video(folder / "two.webm", seconds=1, size=(256, 320))),
        str(folder / "images"),
    )


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Iterator[LlavaPipeline]:
    loaded = LlavaPipeline(Plan(model=str(tiny), prompt=PROMPT, device="cpu"))
    loaded.load(RecordingProbe())
    yield loaded
    loaded.close()


def hooks_on(model: Any) -> int:
    """Hooks of ours; the library keeps some of its own."""
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return sum(hook.__module__.startswith("llava_tui") for hook in hooks)


# --- the same as the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["What moves?", "Beschreibe das Bild: größer, 大, ✓.", "x"])
@pytest.mark.parametrize("case", [Case(1, 1, 12), Case(4, 1, 8), Case(2, 3, 8), Case(3, 1, 1), Case(8, 2, 2)], ids=str)
def test_tokens_are_those_of_a_plain_generate(
    pipeline: LlavaPipeline, videos: tuple[str, ...], case: Case, prompt: str
) -> None:
    other = LlavaPipeline(msgspec.structs.replace(pipeline.plan, prompt=prompt))
    other.model, other.processor, other.config, other.device = (
        pipeline.model,
        pipeline.processor,
        pipeline.config,
        pipeline.device,
    )
    probe = RecordingProbe()
    result = other.run(case, videos, 0, probe)
    assert result.token_ids == other.reference(case, videos, RecordingProbe())
    assert result.vision_calls == 1
    assert [len(ids) for ids in result.token_ids] == [case.new_tokens] * case.batch
    assert [list(step) for step in zip(*result.token_ids, strict=True)] == probe.tokens
    assert result.text == [other.detokenize(ids) for ids in result.token_ids]
    assert result.frames == case.frames * case.batch
    assert result.image_tokens == 16 * case.frames
    # A byte a token: <s>, the template, and for each frame 16 tokens and a line's end.
    assert result.prompt_tokens == 1 + len(f"USER: {prompt} ASSISTANT:".encode()) + 17 * case.frames


def test_frames_and_prompt_tell_in_the_output(pipeline: LlavaPipeline, videos: tuple[str, ...]) -> None:
    """Else equal tokens would prove nothing: a model that is blind says the same about everything."""
    said = [pipeline.run(Case(2, 1, 12), (video,), 0, RecordingProbe()).text[0] for video in videos]
    assert len(set(said)) == 3
    batch = pipeline.run(Case(2, 3, 12), videos, 0, RecordingProbe())
    assert len(set(batch.text)) == 3
    again = pipeline.run(Case(2, 3, 12), videos[:2], 0, RecordingProbe())  # round-robin: the third is about the first
    assert again.token_ids[0] == again.token_ids[2] != again.token_ids[1]


@pytest.mark.parametrize(("dtype", "attention"), [("bfloat16", "auto"), ("float32", "eager"), ("auto", "sdpa")])
def test_dtype_and_attention_are_used_and_told(
    tiny: Path, videos: tuple[str, ...], dtype: str, attention: str, probe: RecordingProbe
) -> None:
    loaded = LlavaPipeline(Plan(model=str(tiny), dtype=dtype, attention=attention, device="cpu"))
    facts = loaded.load(RecordingProbe())
    assert facts.dtype == ("float32" if dtype == "auto" else dtype)
    assert facts.attention.startswith("eager" if attention == "eager" else "sdpa (")
    case = Case(2, 1, 8)
    assert loaded.run(case, videos, 0, probe).token_ids == loaded.reference(case, videos, RecordingProbe())


def test_sequences_that_end_early_are_padded_as_the_library_pads(
    pipeline: LlavaPipeline, videos: tuple[str, ...]
) -> None:
    """Runs have a fixed length, but the loop is the library's own in every respect."""
    from llava_tui.pipelines.generate import TimedLoop

    case = Case(2, 3, 12)
    said = pipeline.run(case, videos, 0, RecordingProbe()).token_ids
    end = next(token for token in said[0][2:8] if token not in said[1])  # the first sequence ends, the second goes on
    options = {**pipeline._options(case), "min_new_tokens": 0, "eos_token_id": end}
    batch = pipeline._preprocess(case, pipeline._decode(case, videos, RecordingProbe()))
    plain = pipeline.model.generate(**batch, **options)
    probe = RecordingProbe()
    loop = TimedLoop(probe, lambda: None)
    timed = pipeline.model.generate(**batch, custom_generate=loop, **options)
    assert timed.tolist() == plain.tolist()
    assert loop.new_ids[0][-1] == pipeline.processor.tokenizer.pad_token_id
    assert len(probe.tokens) == len(loop.new_ids[1])

    alone = {key: value[:1] if key != "pixel_values" else value[:2] for key, value in batch.items()}
    pipeline.model.generate(**alone, custom_generate=(loop := TimedLoop(RecordingProbe(), lambda: None)), **options)
    assert loop.new_ids[0][-1] == end
    assert len(loop.new_ids[0]) < 12


# --- stages --------------------------------------------------------------------------------------------------------


def spans(*lines: str) -> list[tuple[str, str]]:
    return [("begin" if line[0] == ">" else "end", line[2:]) for line in lines]


def test_stages_are_told_in_order_and_nest(
    pipeline: LlavaPipeline, videos: tuple[str, ...], probe: RecordingProbe
) -> None:
    pipeline.run(Case(2, 2, 3), videos, 0, probe)
    assert probe.told == spans(
        "> frames",
        "> frames.decode_frames",
        "< frames.decode_frames",
        "< frames",
        "> encode",
        "> encode.preprocess",
        "< encode.preprocess",
        "> encode.h2d",
        "< encode.h2d",
        "> encode.vision_tower",
        "< encode.vision_tower",
        "> encode.projector",
        "< encode.projector",
        "< encode",
        "> generate",
        "> generate.prefill",
        "< generate.prefill",
        "> generate.decode",
        "< generate.decode",
        "> generate.detokenize",
        "< generate.detokenize",
        "< generate",
    )
    assert {path for _, path in probe.told} == {info.path for info in LLAVA_STAGES}
    assert len(probe.tokens) == 3


def test_one_token_has_no_decode(pipeline: LlavaPipeline, videos: tuple[str, ...], probe: RecordingProbe) -> None:
    """The first token comes out of the prefill; a stage that did not happen is not told as one of zero length."""
    pipeline.run(Case(1, 1, 1), videos, 0, probe)
    assert "generate.decode" not in {path for _, path in probe.told}


def test_loading_is_told_in_stages_and_the_model_in_facts(tiny: Path, probe: RecordingProbe) -> None:
    import torch

    loaded = LlavaPipeline(Plan(model=str(tiny), device="cpu"))
    facts = loaded.load(probe)
    assert [path for kind, path in probe.told if kind == "begin"] == [
        "load",
        "load.libraries",
        "load.weights",
        "load.device",
    ]
    assert not probe.open
    assert facts.parameters == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert facts.weights_bytes == 4 * facts.parameters
    assert (facts.model_type, facts.device, facts.context_length) == ("llava", "cpu", 1024)
    assert facts.extra["threads"] == torch.get_num_threads()
    assert facts.config["text_config"]["num_hidden_layers"] == 2
    assert len(facts.digest) == 64
    json.dumps(facts.config)


def test_a_second_encoding_is_seen(tiny: Path, videos: tuple[str, ...], probe: RecordingProbe) -> None:
    """A path that hands the pixels to generate() as well: its tokens are right, its times are not."""

    class Twice(LlavaPipeline):
        def _generate(self, case: Case, batch: Any, features: Any, loop: Any) -> None:
            self.model.generate(**batch, custom_generate=loop, **self._options(case))

    loaded = Twice(Plan(model=str(tiny), device="cpu"))
    loaded.load(RecordingProbe())
    result = loaded.run(Case(2, 1, 4), videos, 0, probe)
    assert result.vision_calls == 2
    assert result.token_ids == loaded.reference(Case(2, 1, 4), videos, RecordingProbe())
    assert probe.told.count(("begin", "encode.vision_tower")) == 1  # nothing of step 3 is booked to step 2


# --- cut anywhere ----------------------------------------------------------------------------------------------------


def test_a_run_can_be_cut_anywhere_and_the_next_is_right(pipeline: LlavaPipeline, videos: tuple[str, ...]) -> None:
    case = Case(2, 2, 4)
    watching: list[int] = []
    whole = RecordingProbe(on_check=lambda: watching.append(hooks_on(pipeline.model)))
    expected = pipeline.run(case, videos, 0, whole).token_ids
    assert min(watching) > 0
    assert set(whole.checks) >= {
        "frames.decode_frames",
        "encode",
        "encode.vision_tower",
        "generate.prefill",
        "generate.decode",
    }
    # Once a kind of place and its last occurrence, with a few in between: in the middle of a layer stack too.
    places = [i for i, name in enumerate(whole.checks) if name != "frames.decode_frames"]
    for place in [0, 5, *places]:
        probe = RecordingProbe(cut=place)
        with pytest.raises(Cancelled):
            pipeline.run(case, videos, 0, probe)
        assert not probe.open, "every stage that was begun is ended"
        assert len(probe.checks) == place + 1
        assert hooks_on(pipeline.model) == 0
        assert pipeline.run(case, videos, 0, RecordingProbe()).token_ids == expected


def test_decoding_is_checked_once_a_token(pipeline: LlavaPipeline, videos: tuple[str, ...]) -> None:
    """No hook a layer while decoding: there they would cost what is to be measured."""
    probe = RecordingProbe()
    pipeline.run(Case(1, 1, 9), videos, 0, probe)
    assert probe.checks.count("generate.decode") == 8
    assert probe.checks.count("generate.prefill") == 1 + 2  # and once a decoder layer


def test_the_reference_runs_without_hooks_and_can_be_cut(pipeline: LlavaPipeline, videos: tuple[str, ...]) -> None:
    seen: list[int] = []
    case = Case(2, 1, 5)
    probe = RecordingProbe(on_check=lambda: seen.append(hooks_on(pipeline.model)))
    expected = pipeline.reference(case, videos, probe)
    assert seen
    assert set(seen) == {0}
    assert not probe.told
    with pytest.raises(Cancelled):
        pipeline.reference(case, videos, RecordingProbe(cut=len(seen) - 2))
    assert pipeline.run(case, videos, 0, RecordingProbe()).token_ids == expected


def test_a_failing_model_leaves_the_next_run_right(pipeline: LlavaPipeline, videos: tuple[str, ...]) -> None:
    case = Case(1, 1, 4)
    expected = pipeline.reference(case, videos, RecordingProbe())

    def fail(*_: Any) -> None:
        raise MemoryError("out of memory, said the test")

    handle = pipeline.model.get_decoder().layers[1].register_forward_pre_hook(fail)
    probe = RecordingProbe()
    with pytest.raises(MemoryError, match="said the test"):
        pipeline.run(case, videos, 0, probe)
    handle.remove()
    assert not probe.open
    assert hooks_on(pipeline.model) == 0
    assert pipeline.run(case, videos, 0, RecordingProbe()).token_ids == expected


# --- what cannot run -----------------------------------------------------------------------------------------------


def test_frames_that_overflow_the_context_are_said_before_running(
    pipeline: LlavaPipeline, videos: tuple[str, ...]
) -> None:
    said = pipeline.check_case(Case(80, 1, 16))
    prompt = 1 + len(f"USER: {PROMPT} ASSISTANT:") + 80
    assert said.startswith(
        f"80 frames × 16 tokens + {prompt} prompt + 16 new = {80 * 16 + prompt + 16:,} > 1,024 context"
    )
    fitting = int(said.split("--frames ")[1].split()[0])
    assert pipeline.check_case(Case(fitting, 1, 16)) == ""
    # What is said to fit does: the figure is the model's own count.
    result = pipeline.run(Case(fitting, 1, 16), videos, 0, RecordingProbe())
    assert result.prompt_tokens is not None
    assert result.prompt_tokens + 16 <= 1024


def test_a_frame_token_in_the_prompt_is_refused(pipeline: LlavaPipeline) -> None:
    other = LlavaPipeline(msgspec.structs.replace(pipeline.plan, prompt="What is in <image>?"))
    other.processor, other.config = pipeline.processor, pipeline.config
    assert "<image>" in other.check_case(Case(1, 1, 1))


def edited(tiny: Path, folder: Path, file: str, **changes: Any) -> Path:
    """A copy of the tiny checkpoint with entries of a JSON file changed; ``None`` deletes one."""
    shutil.copytree(tiny, folder)
    content = json.loads((folder / file).read_text())
    content.update(changes)
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def test_a_text_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = edited(
        tiny,
        tmp_path / "text",
        "config.json",
        vision_config=None,
        architectures=["LlamaForCausalLM"],
        model_type="llama",
    )
    with pytest.raises(PipelineError, match=r"text is a text-only model \(llama\)"):
        LlavaPipeline(Plan(model=str(folder), device="cpu")).load(RecordingProbe())


@pytest.mark.parametrize("damage", ["weights", "tokenizer", "unknown type"])
def test_a_broken_checkpoint_is_one_line(tiny: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "broken"
    if damage == "unknown type":
        edited(tiny, folder, "config.json", model_type="llava_of_the_future")
    else:
        shutil.copytree(tiny, folder)
        (folder / ("model.safetensors" if damage == "weights" else "tokenizer.json")).write_bytes(b"broken")
    with pytest.raises(PipelineError) as caught:
        LlavaPipeline(Plan(model=str(folder), device="cpu")).load(RecordingProbe())
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_libraries_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PipelineError, match=r"pip install 'llava-tui\[models\]'"):
        LlavaPipeline(Plan(model=str(tiny))).load(RecordingProbe())


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_said_so(tiny: Path, device: str) -> None:
    with pytest.raises(PipelineError, match=f"device {device}: cannot be used here"):
        LlavaPipeline(Plan(model=str(tiny), device=device)).load(RecordingProbe())


def test_a_short_video_is_warned_of_once(
    pipeline: LlavaPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = str(synthesise_video(tmp_path / "short.mp4", times=[0, 1]))
    with caplog.at_level(logging.WARNING, "llava_tui.pipelines"):
        for _ in range(2):
            result = pipeline.run(Case(4, 1, 1), (clip,), 0, RecordingProbe())
    assert (result.frames, result.facts["pictures"]) == (2, 4)  # decoded, and handed to the model
    assert len(caplog.records) == 1
    assert "has 2 of the 4 frames asked for" in caplog.text


# --- other checkpoints -----------------------------------------------------------------------------------------------


def test_older_processors_are_completed(tiny: Path, tmp_path: Path, videos: tuple[str, ...]) -> None:
    """Without a patch size, as the first converted checkpoints were saved, and without a chat template."""
    folder = edited(
        tiny,
        tmp_path / "old",
        "processor_config.json",
        patch_size=None,
        num_additional_image_tokens=None,
        vision_feature_select_strategy=None,
    )
    (folder / "chat_template.jinja").unlink()
    loaded = LlavaPipeline(Plan(model=str(folder), prompt=PROMPT, device="cpu"))
    loaded.load(RecordingProbe())
    case = Case(2, 2, 6)
    result = loaded.run(case, videos, 0, RecordingProbe())
    assert result.token_ids == loaded.reference(case, videos, RecordingProbe())
    assert result.image_tokens == 32
    assert loaded._batching.prompt(PROMPT, 2, "image") == f"USER: <image>\n<image>\n{PROMPT} ASSISTANT:"


def test_vipllava_runs_as_well(tiny: Path, tmp_path: Path, videos: tuple[str, ...]) -> None:
    from transformers import AutoConfig, AutoProcessor, VipLlavaConfig, VipLlavaForConditionalGeneration

    llava = AutoConfig.from_pretrained(tiny)
    config = VipLlavaConfig(
        vision_config=llava.vision_config,
        text_config=llava.text_config,
        image_token_index=llava.image_token_index,
        image_seq_length=16,
        vision_feature_layers=[-2, -1, 1],
    )
    folder = tmp_path / "vip"
    VipLlavaForConditionalGeneration(config).save_pretrained(folder)
    AutoProcessor.from_pretrained(tiny).save_pretrained(folder)
    loaded = LlavaPipeline(Plan(model=str(folder), device="cpu"))
    assert loaded.load(RecordingProbe()).model_type == "vipllava"
    case, probe = Case(2, 2, 4), RecordingProbe()
    result = loaded.run(case, videos, 0, probe)
    assert result.token_ids == loaded.reference(case, videos, RecordingProbe())
    assert (result.vision_calls, result.image_tokens) == (1, 32)
    assert ("begin", "encode.projector") in probe.told
    assert "> 1,024 context" in loaded.check_case(Case(80, 1, 4))


def test_a_model_in_the_hub_cache_is_loaded_from_there(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--someone--tiny-llava" / "snapshots" / "0123abcd"
    shutil.copytree(tiny, snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    facts = LlavaPipeline(Plan(model="someone/tiny-llava", device="cpu")).load(RecordingProbe())
    assert facts.name == "someone/tiny-llava"
    assert facts.revision == "0123abcd"
    assert facts.digest == digest(tiny)


def test_weights_that_are_missing_are_warned_of(tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The library fills them with random values and goes on."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny, tmp_path / "holes"))
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("linear_1.weight"))
    save_file(
        {name: value for name, value in tensors.items() if name != gone}, folder / "model.safetensors", {"format": "pt"}
    )
    with caplog.at_level(logging.WARNING, "llava_tui.pipelines"):
        LlavaPipeline(Plan(model=str(folder), device="cpu")).load(RecordingProbe())
    assert "1 weights are not in the checkpoint" in caplog.text


def test_the_digest_tells_models_apart(tiny: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    assert digest(copy) == digest(tiny)
    other = edited(tiny, tmp_path / "other", "config.json", image_seq_length=17)
    assert digest(other) != digest(tiny)
    (copy / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes() + b"x")
    assert digest(copy) != digest(tiny)
