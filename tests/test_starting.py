"""Starting a run: the plan as a command line, what is checked aside, and what is left where it cannot start."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui import command_line, preflight, starting
from llava_tui.cli.plans import read_plan
from llava_tui.cli.runs import run
from llava_tui.faults import KINDS, Fault, as_text, parse
from llava_tui.plan import Plan, PlanError, from_dict
from llava_tui.session import launch, store
from llava_tui.session.reader import SessionError, read_header, read_notes

OTHERS = {
    "pipeline": "simulated",
    "model": "somebody/a-model",
    "weights": "random",
    "inputs": ("a b.mp4", "-c.png"),
    "prompt": "-what's \x1b[2J\u202e that?\n",
    "rounds": 7,
    "delta": 0.02,
    "time_limit_s": 1.5,
    "warmup": 0,
    "device": "cuda:1",
    "dtype": "float32,bfloat16",
    "attention": "eager,sdpa",
    "cache": "static",
    "compile": "off,on",
    "threads": (1, 2),
    "name": "a name",
    "tags": ("a", "b c"),
    "faults": (msgspec.convert(parse("drift=3%"), KINDS["drift"]),),
    "simulated_gpu": "t4",
    "grouping": "5stage",
    "dataset": "items.jsonl",
    "media": "video",
    "vision_attention": "eager",
    "resolution": (336, 448),
    "quantization": "none,bnb-8bit",
    "device_map": "auto",
    "max_memory": "cpu=20GiB",
    "offload": "spill",
}
"""A value other than its default for fields that are no number, switch or axis of numbers."""

ONLY = {"faults": "simulated", "simulated_gpu": "simulated", "time_scale": "simulated", "grouping": "eventgpt"}
"""Fields that only one pipeline takes, and which."""


def other(field: str) -> object:
    """Some value of a plan's field that is not its default."""
    default = getattr(Plan(), field)
    if field in OTHERS:
        return OTHERS[field]
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return tuple(value + 1 for value in default)
    return type(default)(default * 2 + 1)


def taken(arguments: list[str]) -> dict[str, object]:
    """The plan's fields as `llava-tui run` understands its arguments."""
    assert arguments[0] == "run"
    params = run.make_context("run", arguments[1:]).params
    options = {name: value for name, value in params.items() if name in Plan.__struct_fields__}
    return {name: value for name, value in options.items() if value not in (None, ())}


@pytest.mark.parametrize("field", Plan.__struct_fields__)
def test_every_field_of_a_plan_can_be_said_on_the_command_line(field: str) -> None:
    plan = msgspec.structs.replace(Plan(), **{field: other(field)})
    assert plan != Plan()
    given = taken(command_line.arguments(plan))
    assert list(given) == [field]
    also: dict[str, object] = {"pipeline": ONLY[field]} if field in ONLY else {}
    also |= {"device_map": "auto"} if field == "offload" else {}
    wanted = from_dict(also | {field: getattr(plan, field)})
    with click.Context(run) as context:
        assert read_plan(context, None, None, given | also) == wanted


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(texts, min_size=1, max_size=5))
def test_a_copied_command_line_gives_a_shell_exactly_these_words(words: list[str]) -> None:
    line = command_line.quoted(words)
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_written_as_it_is_read(kind: str) -> None:
    fields = {info.name: info for info in msgspec.structs.fields(KINDS[kind])}
    values = {
        name: not info.default if isinstance(info.default, bool) else info.default + 1
        for name, info in fields.items()
        if not isinstance(info.default, str)
    }
    for fault in (KINDS[kind](), KINDS[kind](**values)):
        assert isinstance(fault, Fault)
        assert msgspec.convert(parse(as_text(fault)), KINDS[kind]) == fault


def test_a_plan_is_checked_aside_as_it_is_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frame.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanError, match=r"frame\.png"):
        starting.prepared_aside(Plan(inputs=("frame.png",)))
    with pytest.raises(PlanError, match="no such folder"):
        starting.prepared_aside(Plan(model="./absent"))
    simulated = Plan(pipeline="simulated", inputs=("frame.png",), prompt="\ud7ff \x1b")
    assert starting.prepared_aside(simulated) == msgspec.structs.replace(simulated, inputs=(f"{tmp_path}/frame.png",))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no models extra")
@pytest.mark.parametrize("name", ["bnb-4bit", "torchao-int8"])
def test_a_quantization_that_is_not_installed_is_said_before_there_is_a_session(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda of, *more: None if of in ("bitsandbytes", "torchao") else find(of, *more)
    )
    with pytest.raises(PlanError, match=r"^quantization: .* not installed: pip install 'llava-tui\[quantization\]'$"):
        preflight.check(Plan(quantization=f"none,{name}"))


def test_a_started_run_is_recorded_with_its_plan_name_and_command(tmp_path: Path) -> None:
    plan = Plan(pipeline="simulated", time_scale=0, rounds=1, warmup=0, name="first", tags=("a",))
    argv = ["llava-tui", *command_line.arguments(plan)]
    path, worker = starting.start(tmp_path / "sessions", plan, argv)
    assert worker.wait(30) == 0
    header = read_header(path)
    assert (from_dict(header.plan), header.argv) == (plan, argv)
    assert (read_notes(path).name, read_notes(path).tags) == ("first", ("a",))
    assert store.status(path) == "finished"


def test_a_run_that_cannot_start_leaves_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(launch.LaunchError):
        starting.start(tmp_path / "sessions", Plan(), [])
    assert list((tmp_path / "sessions").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(SessionError):
        starting.start(tmp_path / "file", Plan(), [])
