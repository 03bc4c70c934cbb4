"""Models on this machine are found without loading anything, and what cannot be profiled is said with its mend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava_tui import models, presets
from llava_tui.models import ModelError

CONFIG: dict[str, Any] = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "vision_config": {"image_size": 336, "patch_size": 14},
    "text_config": {"max_position_embeddings": 4096},
}
TEXT = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


NAMES = ["demo", *(preset.name for preset in presets.PRESETS)]
"""Of the presets."""


def write(folder: Path, config: Any = CONFIG, weights: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in ("tokenizer.json", "processor_config.json"):
        (folder / name).touch()
    if weights:
        (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no model's folder in the working directory."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "hf" / "hub"


def cached(hub: Path, name: str, revision: str = "aaaa", main: bool = True, **options: Any) -> Path:
    """A repository as huggingface_hub keeps it: files are links to blobs."""
    folder = hub / ("models--" + name.replace("/", "--"))
    snapshot = write(folder / "snapshots" / revision, **options)
    (folder / "blobs").mkdir(exist_ok=True)
    for file in list(snapshot.iterdir()):
        blob = folder / "blobs" / f"{revision}-{file.name}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, snapshot))
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(revision)
    return snapshot


# --- where a model is ------------------------------------------------------------------------------------------------


def test_a_folder_is_itself(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model")
    assert models.resolve(str(folder)) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.resolve("~/model") == folder


def test_a_hub_id_is_its_snapshot(hub: Path) -> None:
    assert models.resolve("llava-hf/llava-1.5-7b-hf") is None
    cached(hub, "llava-hf/llava-1.5-7b-hf", "old", main=False)
    current = cached(hub, "llava-hf/llava-1.5-7b-hf", "new")
    cached(hub, "llava-hf/llava-1.5-7b-hf", "newest", main=False)
    assert models.resolve("llava-hf/llava-1.5-7b-hf") == current
    (hub / "models--llava-hf--llava-1.5-7b-hf" / "refs" / "main").unlink()
    os.utime(hub / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / "old", (2e9, 2e9))
    assert models.resolve("llava-hf/llava-1.5-7b-hf").name == "old"  # type: ignore[union-attr]


def test_a_half_downloaded_model_is_downloaded_further(hub: Path) -> None:
    cached(hub, "a/half", weights=False)
    assert models.resolve("a/half") is None
    snapshot = cached(hub, "a/shards", weights=False)
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-00001-of-00002.safetensors").write_bytes(b"1")
    assert models.resolve("a/shards") is None
    (snapshot / "model-00002-of-00002.safetensors").symlink_to("../../blobs/not-there-yet")
    assert models.resolve("a/shards") is None
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    (snapshot / "model-00002-of-00002.safetensors").write_bytes(b"2")
    assert models.resolve("a/shards") == snapshot
    assert [file.name for file in models.weight_files(snapshot)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hub_library_has_it(
    hub: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], where: str
) -> None:
    monkeypatch.delenv("HF_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert models.hub_cache() == Path(where)


# --- what cannot be profiled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./gone", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
        ("gone", "no such folder"),
        ("here/gone", "no such folder"),  # "here" is a folder: not meant as a hub id
        ("file.bin", "is a file; give the folder"),
        ("here/empty", "no config.json in here/empty: give a folder saved with save_pretrained, or a hub id"),
        ("here/broken", "broken JSON"),
        ("here/list", "not a model's config"),
        ("here/text", "here/text is a text-only model (llama): llava-tui profiles vision-language models"),
        ("here/original", "in the layout of LLaVA's own repository"),
        ("here/hollow", "weights are missing"),
        ("here/untyped", "text-only model (no model_type)"),
    ],
)
def test_what_cannot_be_profiled_is_named_with_its_mend(hub: Path, name: str, said: str) -> None:
    here = Path("here")
    (here / "empty").mkdir(parents=True)
    Path("file.bin").write_bytes(b"x")
    write(here / "broken", '{"model_type": "llava",')
    write(here / "list", "[1, 2]")
    write(here / "text", TEXT)
    write(here / "original", {"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336"})
    write(here / "hollow", weights=False)
    write(here / "untyped", {})
    with pytest.raises(ModelError) as caught:
        models.check_model(name)
    assert said in str(caught.value)
    assert name.split("/")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_can_be_profiled_passes(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.check_model("demo")
    models.check_model(str(write(tmp_path / "good")))
    models.check_model("someone/never-downloaded")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        models.check_model("someone/never-downloaded")
    cached(hub, "someone/never-downloaded")
    models.check_model("someone/never-downloaded")


def test_deeply_nested_json_is_broken_too(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="broken JSON"):
        models.check_model(str(write(tmp_path / "deep", "[" * 100_000)))


# --- listing -------------------------------------------------------------------------------------------------------


def test_everything_on_the_machine_is_listed(hub: Path, tmp_path: Path) -> None:
    cached(hub, "llava-hf/llava-1.5-7b-hf")
    cached(hub, "Qwen/Qwen2-VL-2B-Instruct", config={**CONFIG, "model_type": "qwen2_vl"})
    cached(hub, "CohereLabs/aya-vision-8b", config={**CONFIG, "model_type": "aya_vision"})
    cached(hub, "meta/llama", config=TEXT)
    cached(hub, "a/half--done", weights=False)
    (hub / "datasets--x--y").mkdir()
    (hub / "models--empty--one").mkdir()
    (hub / "version.txt").write_text("1")
    write(tmp_path / "mine" / "one")
    write(tmp_path / "mine" / "broken", "{")
    (tmp_path / "mine" / "notes").mkdir()
    alone = write(tmp_path / "alone")

    entries = {entry.name: entry for entry in models.scan([tmp_path / "mine", alone, tmp_path / "gone"])}
    assert list(entries) == [
        *NAMES,
        "CohereLabs/aya-vision-8b",
        "Qwen/Qwen2-VL-2B-Instruct",
        "a/half--done",
        "llava-hf/llava-1.5-7b-hf",
        "meta/llama",
        str(tmp_path / "mine" / "broken"),
        str(tmp_path / "mine" / "one"),
        str(alone),
    ]
    llava = entries["llava-hf/llava-1.5-7b-hf"]
    assert (llava.source, llava.model_type, llava.family, llava.complete) == ("hub cache", "llava", "tested", True)
    assert llava.bytes == 1000 + len(json.dumps(CONFIG))
    assert not llava.problem
    assert entries["Qwen/Qwen2-VL-2B-Instruct"].family == "tested"
    assert entries["CohereLabs/aya-vision-8b"].family == "untested"
    assert not entries["CohereLabs/aya-vision-8b"].problem, "it is not refused"
    models.check_model("CohereLabs/aya-vision-8b")
    assert entries["meta/llama"].family == "not a vision-language model"
    assert entries["meta/llama"].problem
    assert not entries["a/half--done"].complete
    assert entries["a/half--done"].problem == "weights are missing"
    assert "broken JSON" in entries[str(tmp_path / "mine" / "broken")].problem
    assert entries["demo"].source == "preset"


def test_what_a_processor_lacks_is_listed(hub: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    (folder / "processor_config.json").rename(folder / "preprocessor_config.json")
    assert not models.missing_files(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    assert not models.missing_files(folder)
    (folder / "tokenizer.model").unlink()
    (entry,) = (entry for entry in models.scan([folder]) if entry.source == "folder")
    assert entry.problem == "files are missing: the tokenizer's (tokenizer.json)"


def test_a_preset_says_what_it_needs(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name alone would be looked for as a folder, or be downloaded."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"needs --weights random; .* is llava-hf/llava-1\.5-7b-hf"):
        models.check_model("llava-1.5-7b")
    config, folder = models.config_of("llava-1.5-7b")
    assert (config["model_type"], folder) == ("llava", None)
    config["model_type"] = "changed"
    assert models.config_of("llava-1.5-7b")[0]["model_type"] == "llava", "each has a config of its own"
    with pytest.raises(ModelError, match=r"give a folder with a config\.json, or llava-1\.5-7b, "):
        models.config_of("llava-9")
    with pytest.raises(ModelError, match="is a text-only model"):
        models.config_of(str(write(tmp_path / "text", TEXT)))
    assert models.config_of(str(write(tmp_path / "bare")))[1] == tmp_path / "bare"
    cached(hub, "a/half--done", weights=False)
    assert models.config_of("a/half--done")[0] == CONFIG, "weights are not asked for"


def test_without_a_cache_there_are_the_presets(hub: Path) -> None:
    assert [entry.name for entry in models.scan()] == NAMES


@pytest.mark.models
def test_a_genuine_checkpoint_is_found_in_the_cache(hub: Path) -> None:
    from llava_tui.pipelines.checkpoints import build_tiny

    snapshot = hub / "models--someone--tiny" / "snapshots" / "0123"
    build_tiny(snapshot)
    (entry,) = (entry for entry in models.scan() if entry.source == "hub cache")
    assert (entry.name, entry.model_type, entry.family, entry.complete) == ("someone/tiny", "llava", "tested", True)
    assert entry.bytes == sum(file.stat().st_size for file in snapshot.iterdir())
    models.check_model("someone/tiny")
    models.check_model(str(snapshot))


def test_listing_loads_none_of_the_libraries(hub: Path) -> None:
    code = (
        "import sys; from llava_tui import models, architecture; models.scan(); models.check_model('demo');"
        "print(sorted({'torch', 'transformers', 'av', 'PIL', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
