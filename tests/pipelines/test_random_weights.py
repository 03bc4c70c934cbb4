"""Real architectures without a download: of the right size, as the library makes them, never taken for trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import tiny_families
from recording_probe import RecordingProbe

from llava_tui import host_memory, models, preflight, presets
from llava_tui.pipelines import built_processors, fitting, random_weights
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import Case, Plan, PlanError

pytestmark = pytest.mark.models

NAMES = [preset.name for preset in presets.PRESETS if preset.name != "eventgpt-7b"]
"""Those of LLaVA's pipeline."""


_KEPT = ("model_type", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
_CUT = ("projection_dim", "hidden_size", "image_grid_pinpoints", "mm_tokens_per_image", "scale_factor")


def small(name: str) -> dict[str, Any]:
    """The preset's config with every size cut to that of its family's tiny model, but for its vocabulary."""
    preset = presets.find(name)
    assert preset is not None
    config, cut = preset.config, tiny_families.config(preset.config["model_type"])
    for part in ("text_config", "vision_config"):
        config[part] |= {key: value for key, value in cut[part].items() if key not in _KEPT}
    return config | {key: cut[key] for key in _CUT if key in cut}


def folder_of(config: dict[str, Any], folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def loaded(model: str, **values: Any) -> LlavaPipeline:
    pipeline = LlavaPipeline(Plan(model=model, weights="random", device="cpu", prompt="What moves?", **values))
    pipeline.load(RecordingProbe())
    return pipeline


def weights(pipeline: LlavaPipeline) -> dict[str, Any]:
    return dict(pipeline.model.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_as_many_parameters_as_it_says(name: str) -> None:
    import torch
    import transformers

    preset = presets.find(name)
    assert preset is not None
    with torch.device("meta"):
        config = random_weights.parsed(transformers, preset.config)
        model = transformers.AutoModelForImageTextToText.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == preset.parameters
    assert name != "llava-1.5-7b" or preset.parameters == 7_063_427_072


@pytest.mark.parametrize("name", NAMES)
def test_a_built_model_runs_as_the_library_runs_it(name: str, tmp_path: Path) -> None:
    """With its own processor and a tokenizer as large as its vocabulary: equal tokens, frames encoded once."""
    pipeline = loaded(folder_of(small(name), tmp_path / name))
    tokenizer, config = pipeline.processor.tokenizer, pipeline.model.config
    assert len(tokenizer) == config.text_config.vocab_size
    assert tokenizer.convert_ids_to_tokens(config.image_token_id) in tokenizer.all_special_tokens
    assert all(
        tokenizer.convert_ids_to_tokens(i) == token for i, token in built_processors.special_tokens(config).items()
    )
    assert tokenizer.decode(tokenizer("Grüße 世界").input_ids, skip_special_tokens=True) == "Grüße 世界"
    for case in (Case(1, 1, 4), Case(2, 2, 4)):
        result = pipeline.run(case, ("demo",), 0, RecordingProbe())
        assert result.token_ids == pipeline.reference(case, ("demo",), RecordingProbe())
        assert result.vision_calls == 1
        assert result.image_tokens
        assert all(result.text)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_weight_is_as_the_library_makes_it(name: str) -> None:
    """Rotary frequencies and position ids are in no checkpoint: whoever builds without them gets other attention."""
    import torch
    import transformers

    config = small(name)
    built = random_weights.build(torch, transformers, name, config, ["bfloat16"], torch.device("cpu"), 0)
    library = transformers.AutoModelForImageTextToText.from_config(
        random_weights.parsed(transformers, config), dtype=torch.bfloat16
    )
    ours, theirs = dict(built.named_buffers()), dict(library.named_buffers())
    assert any(key.endswith("inv_freq") for key in ours)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    shapes = [{key: (p.shape, p.dtype) for key, p in model.named_parameters()} for model in (built, library)]
    assert shapes[0] == shapes[1]
    theirs = {key: p for key, p in library.named_parameters() if "norm" in key}
    assert all(torch.equal(p, theirs[key]) for key, p in built.named_parameters() if "norm" in key)
    assert all(bool(p.isfinite().all()) for p in built.parameters())


def test_tied_embeddings_stay_tied() -> None:
    import torch
    import transformers

    config = small("llava-onevision-qwen2-7b")
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    built = random_weights.build(torch, transformers, "tied", config, ["float32"], torch.device("cpu"), 0)
    assert built.get_input_embeddings().weight is built.get_output_embeddings().weight


def test_a_seed_gives_its_weights_and_its_tokens(tmp_path: Path) -> None:
    import torch

    model = folder_of(small("llava-1.5-7b"), tmp_path / "model")
    state = torch.random.get_rng_state()
    first, same, other = loaded(model), loaded(model), loaded(model, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are left alone"
    assert all(torch.equal(value, weights(same)[key]) for key, value in weights(first).items())
    said = [it.run(Case(2, 1, 6), ("demo",), 0, RecordingProbe()).token_ids for it in (first, same, other)]
    assert said[0] == said[1] != said[2]
    facts = [it._facts(torch, None) for it in (first, same, other)]
    assert facts[0].digest == facts[1].digest != facts[2].digest
    assert facts[2].extra["weights"] == "random, from seed 1"


def test_no_two_matrices_and_no_two_rows_are_alike() -> None:
    """One block is used again and again; a model whose layers or rows are equal would be another one."""
    import torch
    import transformers

    config = small("llava-1.5-7b")
    built = random_weights.build(torch, transformers, "small", config, ["float32"], torch.device("cpu"), 0)
    matrices = [p.detach().flatten() for p in built.parameters() if p.dim() > 1]
    begins = {tuple((p[:8] / p.std()).tolist()) for p in matrices}
    assert len(begins) == len(matrices)
    embedding = built.get_input_embeddings().weight  # 2 million numbers: the block twice
    assert len(embedding) == len(torch.unique(embedding, dim=0))
    linear = built.get_output_embeddings().weight.detach()
    assert float(linear.std()) == pytest.approx(random_weights.GAIN * 64**-0.5, rel=0.01)
    assert abs(float(linear.mean())) < 0.01


@pytest.mark.parametrize(
    ("asked", "gets"), [("auto", "float32"), ("bfloat16", "bfloat16"), ("float16,float32", "float16")]
)
def test_the_dtype_is_as_asked(asked: str, gets: str, tmp_path: Path) -> None:
    pipeline = loaded(folder_of(small("llava-1.5-7b"), tmp_path / "model"), dtype=asked)
    assert {str(p.dtype) for p in pipeline.model.parameters()} == {f"torch.{gets}"}
    assert fitting.dtypes(Plan(dtype=asked), {"dtype": "float16"}, "cpu") == asked.replace("auto", "float32").split(",")
    assert fitting.dtypes(Plan(), {"dtype": "float16"}, "cuda") == ["float16"]


def test_a_folders_own_tokenizer_is_used(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(models.ModelError, match="or add --weights random"):
        models.check_model(str(folder))
    pipeline = loaded(str(folder))
    assert len(pipeline.processor.tokenizer) == 316
    case = Case(1, 1, 4)
    result = pipeline.run(case, ("demo",), 0, RecordingProbe())
    assert result.token_ids == pipeline.reference(case, ("demo",), RecordingProbe())
    assert result.image_tokens == 16


def test_a_family_without_a_processor_is_refused_before_it_is_built(tmp_path: Path) -> None:
    model = folder_of(small("llava-1.5-7b") | {"model_type": "aya_vision"}, tmp_path / "other")
    with pytest.raises(PlanError, match="no processor can be built for aya_vision models: put the processor's and the"):
        preflight.check(Plan(model=model, weights="random"))


def test_a_model_type_that_the_library_does_not_know_is_said_in_a_line(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "of_tomorrow"}))
    with pytest.raises(PipelineError, match=r"transformers [\d.]+ knows no of_tomorrow models: update it") as caught:
        loaded(str(folder))
    assert len(str(caught.value)) < 150


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    import transformers

    config = small("llava-1.5-7b") | {"image_token_index": 100, "pad_token_id": 101}
    config["text_config"]["vocab_size"] = 200
    parsed = random_weights.parsed(transformers, config)
    with pytest.raises(PipelineError, match=r"a vocabulary of 200 has no room for bytes and 5 special tokens"):
        built_processors.build(transformers, parsed)


# --- memory --------------------------------------------------------------------------------------------------------


def test_too_little_memory_is_said_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for room in (fitting, host_memory):
        monkeypatch.setattr(room, "host_free", lambda: 20 << 30)
    monkeypatch.setattr(fitting, "largest_gpu", lambda: None)
    plan = Plan(model="llava-1.5-7b", weights="random", frames=(1,))
    said = (
        "llava-1.5-7b: 7,063,427,072 parameters in float32 need 26.3 GiB, this machine has 20.0 GiB free; "
        r"use --dtype bfloat16 \(13.2 GiB\)"
    )
    with pytest.raises(PlanError, match=said):
        preflight.check(plan)
    preflight.check(Plan(model="llava-1.5-7b", weights="random", frames=(1,), dtype="bfloat16"))
    # Two that do not fit together are loaded one after the other.
    preflight.check(Plan(model="llava-1.5-7b", weights="random", frames=(1,), dtype="bfloat16,float16"))
    with pytest.raises(PlanError, match=r"in float32 need 26\.3 GiB"):
        preflight.check(Plan(model="llava-1.5-7b", weights="random", frames=(1,), dtype="bfloat16,float32"))
    with pytest.raises(PlanError, match="use a smaller model or a device with more memory"):
        preflight.check(Plan(model="llava-1.5-13b", weights="random", frames=(1,), dtype="bfloat16"))
    with pytest.raises(PipelineError, match=said):
        loaded("llava-1.5-7b")  # the worker looks too: what is free changes, and a GPU's only it can see

    monkeypatch.setattr(fitting, "largest_gpu", lambda: 16 << 30)
    preflight.check(plan)  # in float16, as its config says
    with pytest.raises(PlanError, match=r"the largest GPU has 16\.0 GiB free"):
        preflight.check(Plan(model="llava-1.5-13b", weights="random", frames=(1,)))


def test_what_is_free_is_less_than_the_machine_has() -> None:
    import psutil

    assert 0 < host_memory.host_free() < psutil.virtual_memory().total


# --- the command ---------------------------------------------------------------------------------------------------

_Cli = Callable[..., CompletedProcess[str]]


def test_a_session_of_random_weights_says_so_wherever_it_is_shown(cli: _Cli, sessions: Path, tmp_path: Path) -> None:
    model = folder_of(small("llava-1.5-7b"), tmp_path / "small-llava")
    asked = ("--frames", "1", "--new-tokens", "4", "--rounds", "1", "--warmup", "1", "--no-self-test", "--headless")
    done = cli("run", "--model", model, "--weights", "random", "--device", "cpu", "--input", "demo", *asked)
    assert done.returncode == 0, done.stderr
    (path,) = sessions.iterdir()
    header = json.loads((path / "session.json").read_text())
    assert header["provenance"] == "random-weights"
    assert header["plan"]["weights"] == "random"
    assert "RANDOM WEIGHTS" in cli("list").stdout
    assert "random-weights" in cli("show", "@latest").stdout
    assert '"provenance": "random-weights"' in cli("list", "--json").stdout


def test_a_model_that_fits_nowhere_is_refused_with_exit_code_2(cli: _Cli, sessions: Path, tmp_path: Path) -> None:
    config = small("llava-1.5-7b")
    config["text_config"] |= {"hidden_size": 65536, "num_hidden_layers": 1000, "intermediate_size": 262144}
    done = cli("run", "--model", folder_of(config, tmp_path / "huge"), "--weights", "random", "--headless")
    assert done.returncode == 2
    assert " parameters in " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(sessions.iterdir()), "no session is begun"
