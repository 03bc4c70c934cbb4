"""The models on this machine: folders that ``save_pretrained`` wrote, and the Hugging Face cache, read by hand.

Nothing is imported that loads a model: listing takes milliseconds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from llava_tui import architecture, presets, units
from llava_tui.plan import DEMO, expanded

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")

CACHE_VARIABLE = "LLAVA_TUI_CACHE"


class ModelError(Exception):
    """A model that cannot be profiled: the message names it and says how to mend it."""


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model that can be named to ``--model``."""

    name: str
    source: str
    """``preset``, ``hub cache`` or ``folder``."""
    path: str = ""
    model_type: str = ""
    family: str = ""
    """``tested`` (its family runs in the tests), ``untested``, or ``not a vision-language model``."""
    bytes: int = 0
    """On disk."""
    complete: bool = True
    """Whether all weights are there."""
    problem: str = ""
    """Why it cannot be used; "" if nothing is known against it."""
    note: str = ""


PRESETS: tuple[ModelEntry, ...] = (
    ModelEntry(
        name=DEMO,
        source="preset",
        model_type="llava",
        family="tested",
        note="26 million parameters, random weights, built on this machine on first use (104 MB); no download",
    ),
    *(
        ModelEntry(
            name=preset.name,
            source="preset",
            model_type=preset.config["model_type"],
            family="tested",
            complete=False,
            problem="only with --weights random"
            + (" and --pipeline eventgpt" if architecture.is_eventgpt(preset.config) else ""),
            note=f"{preset.parameters:,} parameters, {units.size(2 * preset.parameters)} in half precision",
        )
        for preset in presets.PRESETS
    ),
)


def hub_cache() -> Path:
    """The folder that huggingface_hub keeps models in, by its own environment variables."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def cache_folder() -> Path:
    """Where what is built here is kept: ``LLAVA_TUI_CACHE``, else the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("llava-tui", appauthor=False))


def resolve(model: str) -> Path | None:
    """The folder that ``model`` (a folder or a hub id) is loaded from; ``None``: a hub id that is to be downloaded.

    A cached model without all of its weights counts as one to be downloaded. Raises :class:`ModelError` if ``model``
    is neither a folder nor a hub id.
    """
    folder = expanded(model)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{model}: is a file; give the folder that it is in")
    if _HUB_ID.fullmatch(model):
        snapshot = _snapshot(hub_cache() / ("models--" + model.replace("/", "--")))
        if snapshot and (snapshot / "config.json").is_file() and has_weights(snapshot):
            return snapshot
        if not folder.parent.is_dir():
            return None
    raise ModelError(
        f"{model}: no such folder; give a folder saved with save_pretrained, a hub id (owner/name) or '{DEMO}'"
    )


def config_of(model: str, pipeline: str = "llava") -> tuple[dict[str, Any], Path | None]:
    """The config that ``model`` is built from with random weights, and the folder it was in: that of a folder, of a
    preset, or of a hub id that is in the cache, with weights or without. Raises :class:`ModelError`."""
    check = _check_eventgpt_config if pipeline == "eventgpt" else _check_config
    folder: Path | None = expanded(model) if expanded(model).is_dir() else None
    if folder is None:
        if preset := presets.find(model):
            check(model, preset.config)
            return preset.config, None
        cached = _HUB_ID.fullmatch(model) and hub_cache() / ("models--" + model.replace("/", "--"))
        folder = _snapshot(cached) if cached else None
    if folder is None:
        names = ", ".join(preset.name for preset in presets.PRESETS)
        raise ModelError(f"{model}: no config of it is on this machine; give a folder with a config.json, or {names}")
    config = read_config(folder, model)
    check(model, config)
    return config, folder


def check_model(model: str) -> None:
    """Raises :class:`ModelError` if it can be told without loading that ``model`` cannot be profiled."""
    if model == DEMO:
        return
    _check_preset(model)
    folder = resolve(model)
    if folder is None:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ModelError(
                f"{model}: not in the local cache ({hub_cache()}) and HF_HUB_OFFLINE is set; unset it to download"
            )
        return
    _check_config(model, read_config(folder, model))
    if not has_weights(folder):
        raise ModelError(
            f"{model}: weights are missing; the folder needs model.safetensors, or all the files of its index; "
            "or add --weights random"
        )


def _check_config(model: str, config: dict[str, Any]) -> None:
    kind = architecture.model_type(config) or "no model_type"
    if architecture.is_original_llava(config):
        raise ModelError(
            f"{model}: in the layout of LLaVA's own repository; use its converted form, like llava-hf/llava-1.5-7b-hf"
        )
    if architecture.is_eventgpt(config):
        raise ModelError(f"{model}: reads event streams: add --pipeline eventgpt")
    if not architecture.is_vlm(config):
        raise ModelError(
            f"{model} is a text-only model ({kind}): llava-tui profiles vision-language models, like llava"
        )


def check_eventgpt(model: str) -> None:
    """Raises :class:`ModelError` if it can be told without loading that ``model`` is no checkpoint of EventGPT."""
    if model == DEMO:
        return
    _check_preset(model)
    folder = resolve(model)
    if folder is None:
        return
    _check_eventgpt_config(model, read_config(folder, model))
    if not has_weights(folder):
        raise ModelError(
            f"{model}: weights are missing; the folder needs model.safetensors, or its index's files; "
            "or add --weights random"
        )


def _check_eventgpt_config(model: str, config: dict[str, Any]) -> None:
    if not architecture.is_eventgpt(config):
        kind = architecture.model_type(config) or "no model_type"
        raise ModelError(f"{model}: no EventGPT ({kind}, not {architecture.EVENTGPT}); leave --pipeline eventgpt out")


def _check_preset(model: str) -> None:
    if not expanded(model).exists() and (preset := presets.find(model)):
        raise ModelError(f"{model}: needs --weights random; with trained weights it is {preset.hub_id}")


def read_config(folder: Path, model: str = "") -> dict[str, Any]:
    """``config.json`` of a model's folder. Raises :class:`ModelError`."""
    model = model or str(folder)
    file = folder / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"no config.json in {model}: give a folder saved with save_pretrained, or a hub id") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{file}: broken JSON; copy or download it again") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: not a model's config; copy or download it again")
    return config


def has_weights(folder: Path) -> bool:
    """Whether every weight file is there: one file, or all that an index names."""
    for name in _INDEXES:
        if (folder / name).is_file():
            try:
                shards = set(json.loads((folder / name).read_bytes())["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError, TypeError):
                return False
            return bool(shards) and all((folder / str(shard)).is_file() for shard in shards)
    return any((folder / name).is_file() for name in _WEIGHTS)


def missing_files(folder: Path) -> str:
    """Which files a model's folder lacks of its processor, and what they are called; "" if none."""
    missing = []
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        missing.append(f"the processor's ({' or '.join(_PROCESSOR_FILES)})")
    if not has_tokenizer(folder):
        missing.append(f"the tokenizer's ({_TOKENIZER_FILES[0]})")
    return f"files are missing: {' and '.join(missing)}" if missing else ""


def has_tokenizer(folder: Path) -> bool:
    """Whether the files of a tokenizer are there."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def weight_files(folder: Path) -> list[Path]:
    """The index, where there is one, and the weight files of a model's folder, by name."""
    names = [*_INDEXES, *_WEIGHTS]
    shards = [*folder.glob("model-*.safetensors"), *folder.glob("pytorch_model-*.bin")]
    return sorted({folder / name for name in names if (folder / name).is_file()} | set(shards))


def scan(folders: Iterable[str | Path] = ()) -> list[ModelEntry]:
    """Presets, models in the Hugging Face cache, and those in ``folders`` (each a model's folder, or one of several).

    Whatever is broken is listed with its problem. What has no config at all is left out.
    """
    entries = list(PRESETS)
    for cached in _listed(hub_cache()):
        if cached.name.startswith("models--") and (snapshot := _snapshot(cached)):
            entries += _entry(cached.name.removeprefix("models--").replace("--", "/", 1), "hub cache", snapshot)
    for folder in map(Path, folders):
        found = _entry(str(folder), "folder", folder)
        entries += found or [entry for child in _listed(folder) for entry in _entry(str(child), "folder", child)]
    return entries


def _entry(name: str, source: str, folder: Path) -> list[ModelEntry]:
    if not (folder / "config.json").is_file():
        return []
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    try:
        config = read_config(folder)
    except ModelError as error:
        return [ModelEntry(name=name, source=source, path=str(folder), bytes=size, complete=False, problem=str(error))]
    kind = architecture.model_type(config)
    if architecture.is_eventgpt(config):
        family, problem = "tested", ""
    elif not architecture.is_vlm(config):
        family, problem = "not a vision-language model", "llava-tui profiles vision-language models"
    else:
        family, problem = ("tested" if kind in architecture.KNOWN_FAMILIES else "untested"), missing_files(folder)
    complete = has_weights(folder)
    if not complete and family in ("tested", "untested"):
        problem = "weights are missing"
    return [
        ModelEntry(
            name=name,
            source=source,
            path=str(folder),
            model_type=kind,
            family=family,
            bytes=size,
            complete=complete,
            problem=problem,
        )
    ]


def _snapshot(cached: Path) -> Path | None:
    """The snapshot of a cached repository that its main branch is at, else the newest."""
    try:
        revision = (cached / "refs" / "main").read_text().strip()
    except OSError:
        revision = ""
    if revision and (cached / "snapshots" / revision).is_dir():
        return cached / "snapshots" / revision
    snapshots = [folder for folder in _listed(cached / "snapshots") if folder.is_dir()]
    return max(snapshots, key=lambda folder: folder.stat().st_mtime, default=None)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
