"""EventGPT from its own checkpoint layout: what is measured is what the library does, and no code of others is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from recording_probe import RecordingProbe

from llava_tui import host_memory, models, preflight, presets
from llava_tui.pipelines import fitting
from llava_tui.pipelines.base import Cancelled, PipelineError
from llava_tui.pipelines.event_streams import demo_stream
from llava_tui.pipelines.eventgpt import EventGptPipeline, stages_of
from llava_tui.plan import GROUPINGS, Case, Plan, PlanError

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from llava_tui.pipelines.eventgpt_checkpoint import build_tiny

    torch.set_num_threads(1)  # matrices are tiny, and other tests run beside
    return build_tiny(tmp_path_factory.mktemp("models") / "eventgpt")


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Three that differ in length, size and colour, to tell sequences of a batch apart."""
    folder = tmp_path_factory.mktemp("streams")
    for number, (events, size) in enumerate([(3000, (64, 48)), (500, (90, 120)), (8000, (40, 40))]):
        stream = demo_stream(events, size, seed=number)
        held = {name: getattr(stream, name) for name in "xytp"}
        if number == 2:
            held["p"] = np.zeros_like(held["p"])
        np.savez(folder / f"{number}.npz", **held)
    return tuple(str(folder / f"{number}.npz") for number in range(3))


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Iterator[EventGptPipeline]:
    loaded = EventGptPipeline(Plan(pipeline="eventgpt", model=str(checkpoint), prompt="What moves?", device="cpu"))
    loaded.load(RecordingProbe())
    yield loaded
    loaded.close()


def grouped(pipeline: EventGptPipeline, grouping: str) -> EventGptPipeline:
    """The same loaded model, its steps grouped otherwise."""
    other = EventGptPipeline(msgspec.structs.replace(pipeline.plan, grouping=grouping))
    other.model, other.processor, other.config, other.device = (
        pipeline.model,
        pipeline.processor,
        pipeline.config,
        pipeline.device,
    )
    return other


# --- the same as the library ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [Case(5, 1, 8), Case(5, 3, 6), Case(1, 1, 1), Case(8, 2, 2)], ids=str)
def test_tokens_are_those_of_a_plain_generate(
    pipeline: EventGptPipeline, streams: tuple[str, ...], case: Case, probe: RecordingProbe
) -> None:
    result = pipeline.run(case, streams, 0, probe)
    assert result.token_ids == pipeline.reference(case, streams, RecordingProbe())
    assert result.vision_calls == 1
    assert [len(ids) for ids in result.token_ids] == [case.new_tokens] * case.batch
    assert [list(step) for step in zip(*result.token_ids, strict=True)] == probe.tokens
    # A mean over space a slice, and one over time for each of the tower's 4 × 4 patches and its class token.
    assert result.image_tokens == case.frames + 17
    assert result.frames == case.frames * case.batch
    before, (after,) = pipeline._tokenize([pipeline.plan.prompt])
    assert result.prompt_tokens == len(before) + len(after) + case.frames + 17


def test_a_static_cache_and_other_settings_give_the_same_tokens(checkpoint: Path, streams: tuple[str, ...]) -> None:
    plan = Plan(pipeline="eventgpt", model=str(checkpoint), device="cpu", cache="dynamic,static", attention="eager")
    loaded = EventGptPipeline(plan)
    assert loaded.load(RecordingProbe()).attention == "eager"
    said = []
    for case in plan.cases():
        assert loaded.check_case(case) == ""
        said.append(loaded.run(case, streams, 0, RecordingProbe()).token_ids)
        assert said[-1] == loaded.reference(case, streams, RecordingProbe())
    assert len(said) == 2
    assert said[0] == said[1]


def test_events_and_prompt_tell_in_the_output(pipeline: EventGptPipeline, streams: tuple[str, ...]) -> None:
    """Else equal tokens would prove nothing."""
    batch = pipeline.run(Case(5, 3, 12), streams, 0, RecordingProbe())
    assert len(set(batch.text)) == 3
    asked = EventGptPipeline(msgspec.structs.replace(pipeline.plan, prompt="Describe it."))
    asked.model, asked.processor, asked.config, asked.device = (
        pipeline.model, pipeline.processor, pipeline.config, pipeline.device,
    )  # fmt: skip
    assert asked.run(Case(5, 1, 12), streams, 0, RecordingProbe()).text[0] != batch.text[0]


def test_features_are_averaged_over_space_and_over_time() -> None:
    import torch

    from llava_tui.pipelines.eventgpt_checkpoint import aggregate

    features = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    tokens = aggregate(features)
    assert tokens.shape == (2, 5 + 7, 3)
    for batch in range(2):
        for slice_ in range(5):
            assert torch.allclose(tokens[batch, slice_], sum(features[batch, slice_]) / 7, atol=1e-6)
        for place in range(7):
            assert torch.allclose(tokens[batch, 5 + place], sum(features[batch, :, place]) / 5, atol=1e-6)


# --- steps ---------------------------------------------------------------------------------------------------------


def test_both_groupings_have_five_steps_over_the_same_leaves(
    pipeline: EventGptPipeline, streams: tuple[str, ...]
) -> None:
    leaves, said = {}, {}
    for grouping in GROUPINGS:
        probe = RecordingProbe()
        said[grouping] = grouped(pipeline, grouping).run(Case(5, 2, 3), streams, 0, probe).token_ids
        assert not probe.open
        begun = [path for what, path in probe.told if what == "begin"]
        assert begun == [info.path for info in stages_of(grouping)], "every stage once, in the tree's order"
        assert sum("." not in path for path in begun) == 5
        leaves[grouping] = [path.rpartition(".")[2] for path in begun if "." in path]
        # Steps follow one upon the other: nothing between two of them is lost but the turn.
        steps = [(what, path) for what, path in probe.told if "." not in path]
        assert [what for what, _ in steps] == ["begin", "end"] * 5
    assert leaves["pipeline"] == leaves["5stage"]
    assert said["pipeline"] == said["5stage"]


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_a_run_that_is_cut_anywhere_closes_its_stages_and_leaves_nothing(
    pipeline: EventGptPipeline, streams: tuple[str, ...], grouping: str
) -> None:
    of, case = grouped(pipeline, grouping), Case(3, 1, 3)
    whole = RecordingProbe()
    of.run(case, streams, 0, whole)
    assert len(whole.checks) > 8
    for cut in range(len(whole.checks)):
        probe = RecordingProbe(cut=cut)
        with pytest.raises(Cancelled):
            of.run(case, streams, 0, probe)
        assert not probe.open
    hooks = [h for m in of.model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not [hook for hook in hooks if hook.__module__.startswith("llava_tui")]


# --- the checkpoint ------------------------------------------------------------------------------------------------


def test_every_weight_of_the_file_is_in_the_model(pipeline: EventGptPipeline, checkpoint: Path) -> None:
    from safetensors.torch import load_file

    held = load_file(checkpoint / "model.safetensors")
    model = pipeline.model
    assert sum(tensor.numel() for tensor in held.values()) == sum(p.numel() for p in model.parameters())
    tower = held["model.visual_tower.visual_tower.vision_model.encoder.layers.1.mlp.fc2.weight"]
    assert any(tower.shape == p.shape and bool((tower == p).all()) for p in model.tower.parameters())
    assert bool((held["model.visual_projector.2.weight"] == model.projector[2].weight).all())
    assert bool((held["model.feature_adaptor.weight"] == model.adaptor.weight).all())
    assert bool((held["model.embed_tokens.weight"] == model.language.get_input_embeddings().weight).all())


def test_loading_is_told_in_stages_and_the_model_in_facts(checkpoint: Path, probe: RecordingProbe) -> None:
    loaded = EventGptPipeline(Plan(pipeline="eventgpt", model=str(checkpoint), device="cpu", dtype="bfloat16"))
    facts = loaded.load(probe)
    begun = [path for what, path in probe.told if what == "begin"]
    assert begun == ["load", "load.libraries", "load.weights", "load.device"]
    assert (facts.model_type, facts.dtype, facts.context_length) == ("EventChat_llama", "bfloat16", 1024)
    assert facts.extra["grouping"] == "pipeline"
    assert len(facts.digest) == 64
    json.dumps(facts.config)
    case = Case(5, 1, 4)
    result = loaded.run(case, ("demo",), 0, RecordingProbe())
    assert result.prompt_tokens
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {loaded.model.dtype}


def test_code_beside_the_weights_is_never_run(checkpoint: Path, tmp_path: Path) -> None:
    """A config may name classes in files of the same folder: with trust they would be imported."""
    folder = tmp_path / "evil"
    shutil.copytree(checkpoint, folder)
    victim = tmp_path / "victim"
    (folder / "evil.py").write_text(f"open({str(victim)!r}, 'w')\n")
    for name in ("config.json", "tokenizer_config.json"):
        held = json.loads((folder / name).read_text())
        held["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "evil.Evil")
        (folder / name).write_text(json.dumps(held))
    loaded = EventGptPipeline(Plan(pipeline="eventgpt", model=str(folder), device="cpu"))
    try:
        loaded.load(RecordingProbe())
    except PipelineError as error:
        assert "cannot be loaded" in str(error)  # noqa: PT017 - either answer is right, if nothing ran
    assert not victim.exists()


@pytest.mark.parametrize("missing", ["model.visual_tower", "model.visual_projector"])
def test_a_checkpoint_without_its_eyes_is_refused_in_a_line(missing: str, checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "part"
    shutil.copytree(checkpoint, folder)
    held = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith(missing)}
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=f"no EventGPT: the checkpoint has no {missing}"):
        EventGptPipeline(Plan(pipeline="eventgpt", model=str(folder), device="cpu")).load(RecordingProbe())


def test_weights_in_several_files_and_an_old_buffer_are_read(checkpoint: Path, tmp_path: Path) -> None:
    """As the published 7B comes: shards with an index, written by an older library."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "shards"
    shutil.copytree(checkpoint, folder)
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    held["model.visual_tower.visual_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    names = sorted(held)
    where = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: held[n] for n in names if where[n] == file}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = []
    for source in (checkpoint, folder):
        loaded = EventGptPipeline(Plan(pipeline="eventgpt", model=str(source), device="cpu"))
        loaded.load(RecordingProbe())
        said.append(loaded.run(Case(5, 1, 6), ("demo",), 0, RecordingProbe()).token_ids)
    assert said[0] == said[1]


# --- refused before anything is measured ---------------------------------------------------------------------------


def test_cases_that_do_not_fit_are_told_before_they_run(pipeline: EventGptPipeline) -> None:
    assert pipeline.check_case(Case(5, 1, 64)) == ""
    assert "context; use fewer --new-tokens" in pipeline.check_case(Case(5, 1, 1000))
    long = grouped(pipeline, "pipeline")
    long.plan = msgspec.structs.replace(long.plan, prompt="x" * 2100)
    assert "where EventGPT cuts; use a shorter --prompt" in long.check_case(Case(5, 1, 1))
    long.plan = msgspec.structs.replace(long.plan, prompt="what <event>")
    assert "<event>" in long.check_case(Case(5, 1, 1))


def test_each_pipeline_refuses_the_others_models(checkpoint: Path, tiny: Path) -> None:
    with pytest.raises(models.ModelError, match="add --pipeline eventgpt"):
        models.check_model(str(checkpoint))
    with pytest.raises(models.ModelError, match="leave --pipeline eventgpt out"):
        models.check_eventgpt(str(tiny))
    models.check_eventgpt(str(checkpoint))
    (entry,) = (entry for entry in models.scan([checkpoint]) if entry.source == "folder")
    assert (entry.family, entry.problem) == ("tested", "")


def test_the_demo_is_built_here(probe: RecordingProbe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a small shape: the real one takes seconds."""
    from llava_tui.pipelines import eventgpt_checkpoint

    monkeypatch.setenv(models.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(eventgpt_checkpoint, "DEMO_SHAPE", eventgpt_checkpoint.TINY_EVENTS)
    loaded = EventGptPipeline(Plan(pipeline="eventgpt", device="cpu"))
    loaded.load(probe)
    assert loaded.run(Case(5, 1, 2), ("demo",), 0, RecordingProbe()).token_ids


# --- random weights ------------------------------------------------------------------------------------------------


def bare(folder: Path, **values: object) -> Path:
    """A folder with only a config, as upstream writes it: of its vision tower the name, unless ``values`` say more."""
    preset = presets.find("eventgpt-7b")
    assert preset is not None
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = preset.config | small | {"num_key_value_heads": 4, "vocab_size": 400} | values
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
TOWER |= {"image_size": 28, "patch_size": 14}


def test_the_preset_has_the_parameters_of_vicuna_clip_and_two_heads() -> None:
    import torch

    from llava_tui.pipelines import eventgpt_checkpoint

    preset = presets.find("eventgpt-7b")
    assert preset is not None
    with torch.device("meta"):
        model = eventgpt_checkpoint.from_config(preset.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == preset.parameters
    counts = [sum(each.numel() for each in part.parameters()) for part in (model.language, model.tower)]
    assert counts == [6_738_415_616, 303_507_456]  # Vicuna 7B, CLIP ViT-L/14 at 336 pixels
    named = preset.config | {"vision_config": None}
    with torch.device("meta"):
        assert eventgpt_checkpoint.from_config(named).tower.config.image_size == 336, "known by its name"


def test_random_weights_run_as_the_library_runs_them(tmp_path: Path, streams: tuple[str, ...]) -> None:
    """The same from a seed; equal tokens, every slice encoded once; frequencies of rotation as the library has them."""
    import torch

    folder = bare(tmp_path / "bare", vision_config=TOWER)
    said = []
    for seed in (0, 0, 1):
        plan = Plan(pipeline="eventgpt", model=str(folder), weights="random", device="cpu", prompt="What?", seed=seed)
        pipeline = EventGptPipeline(plan)
        facts = pipeline.load(RecordingProbe())
        case = Case(5, 2, 6)
        assert pipeline.check_case(case) == ""
        result = pipeline.run(case, streams, 0, RecordingProbe())
        assert result.token_ids == pipeline.reference(case, streams, RecordingProbe())
        assert (result.vision_calls, result.image_tokens) == (1, 10)
        said.append((result.token_ids, facts.digest))
        assert facts.extra["weights"] == f"random, from seed {seed}"
        buffers = dict(pipeline.model.named_buffers())
        assert torch.equal(buffers["tower.embeddings.position_ids"], torch.arange(5)[None])
        assert bool(buffers["language.model.rotary_emb.inv_freq"].isfinite().all())
        pipeline.close()
    assert said[0] == said[1]
    assert said[0][0] != said[2][0]
    assert said[0][1] != said[2][1]


def test_what_cannot_be_built_is_said_before_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (fitting, host_memory):
        monkeypatch.setattr(room, "host_free", lambda: 10 << 30)
    monkeypatch.setattr(fitting, "largest_gpu", lambda: None)
    with pytest.raises(PlanError, match=r"7,079,684,096 parameters in bfloat16 need 13\.2 GiB, this machine has 10"):
        preflight.check(Plan(pipeline="eventgpt", model="eventgpt-7b", weights="random", dtype="bfloat16"))
    with pytest.raises(models.ModelError, match="eventgpt-7b: reads event streams: add --pipeline eventgpt"):
        preflight.check(Plan(model="eventgpt-7b", weights="random"))
    with pytest.raises(
        models.ModelError, match=r"no EventGPT \(llava, not EventChat_llama\); leave --pipeline eventgpt"
    ):
        preflight.check(Plan(pipeline="eventgpt", model="llava-1.5-7b", weights="random"))
    with pytest.raises(models.ModelError, match="eventgpt-7b: needs --weights random"):
        preflight.check(Plan(pipeline="eventgpt", model="eventgpt-7b"))
    other = bare(tmp_path / "other", vision_config=None, mm_visual_tower="openai/of-another-kind")
    pipeline = EventGptPipeline(Plan(pipeline="eventgpt", model=str(other), weights="random", device="cpu"))
    with pytest.raises(
        PipelineError, match=r"which vision tower it has is not known \(of-another-kind in its config\)"
    ):
        pipeline.load(RecordingProbe())
