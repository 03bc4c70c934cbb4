"""A plan is what a user asks for: what can be said of it, what is refused, and that it survives being written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui import command_line
from llava_tui import plan as plans
from llava_tui.plan import Load, Plan, PlanError, from_dict, from_json, from_toml
from llava_tui.plan_checks import memory_limits
from llava_tui.tui.widgets.session_table import case_count

AXIS = st.lists(st.integers(1, 512), min_size=1, max_size=5, unique=True).map(tuple)
TEXT = st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() or "\x7f" in text)


@given(
    frames=AXIS,
    batch=AXIS,
    prompt=st.text(st.characters(exclude_categories=("Cs",)), max_size=60),
    inputs=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    rounds=st.integers(1, 100),
    scale=st.floats(0, 100),
)
def test_a_plan_survives_toml_and_json(
    frames: tuple[int, ...], batch: tuple[int, ...], prompt: str, inputs: tuple[str, ...], rounds: int, scale: float
) -> None:
    plan = Plan(frames=frames, batch=batch, prompt=prompt, inputs=inputs, rounds=rounds, time_scale=scale)
    assert from_toml(plan.to_toml()) == plan
    assert from_json(plan.to_json()) == plan
    assert from_dict(plan.to_dict()) == plan


def test_a_command_lines_text_becomes_an_axis() -> None:
    assert from_dict({"frames": "1,2,4", "batch": 2}).cases() == (
        plans.Case(1, 2, 64),
        plans.Case(2, 2, 64),
        plans.Case(4, 2, 64),
    )


def test_settings_are_axes_where_there_are_several() -> None:
    plan = from_dict({"attention": "eager, sdpa", "dtype": ["float32", "bfloat16"], "threads": "1,2", "frames": 4})
    ids = [case.id for case in plan.cases()]
    assert len(set(ids)) == 8
    assert ids[0] == "f4-b1-n64-eager-float32-t1"
    assert plan.cases()[0].values()["attention"] == "eager"
    assert from_toml(plan.to_toml()) == from_json(plan.to_json()) == plan
    # One value is how the model is loaded: no case says it again, and ids stay short.
    one = from_dict({"attention": "sdpa", "dtype": "float32"}).cases()[0]
    assert (one.id, set(one.values())) == ("f4-b1-n64", {"frames", "batch", "new_tokens"})


def test_what_takes_a_load_of_its_own_is_an_axis_too() -> None:
    plan = from_dict(
        {"quantization": "none,bnb-8bit", "device_map": ["none", "cuda:1"], "vision_attention": "eager,sdpa"}
        | {"resolution": "224,336"}
    )
    cases = plan.cases()
    assert len({case.id for case in cases}) == len(cases) == 16
    assert cases[0].id == "f4-b1-n64-vision-eager-r224-unquantized-one-device"
    assert cases[-1].id == "f4-b1-n64-vision-sdpa-r336-bnb-8bit-map-cuda:1"
    assert cases[-1].values()["resolution"] == 336
    assert [str(load) for load in plan.loads()] == [
        "as it is",
        "device map cuda:1",
        "bnb-8bit",
        "bnb-8bit, device map cuda:1",
    ]
    assert from_toml(plan.to_toml()) == from_json(plan.to_json()) == plan
    # One value each: how the model is loaded, and no part of a case.
    one = from_dict({"quantization": "bnb-4bit", "device_map": "auto", "resolution": 448})
    assert (one.cases()[0].id, one.cases()[0].resolution) == ("f4-b1-n64-r448", 448)
    assert one.loads() == (Load("bnb-4bit", "auto", "auto"),)


def test_memory_is_given_by_device_as_text_or_as_a_table() -> None:
    plan = from_dict({"max_memory": "cuda:0=10GiB, 1=1.5GB,cpu=512MiB"})
    assert memory_limits(plan) == {"cuda:0": 10 * 2**30, "cuda:1": 1_500_000_000, "cpu": 512 * 2**20}
    assert from_toml('max_memory = { "cuda:0" = "10GiB", cpu = "1GiB" }').max_memory == "cuda:0=10GiB,cpu=1GiB"


def ids(**values: object) -> list[str]:
    return [case.id.removeprefix("f4-b1-n64").removeprefix("-") for case in from_dict(dict(values)).cases()]


def test_cache_and_compile_are_axes_that_go_together() -> None:
    assert ids(cache="dynamic, static") == ["dynamic", "static"]
    # A compiled step needs the static cache: where nothing is said of it, each case has what it needs, and says so.
    assert ids(compile="off,on") == ["dynamic-uncompiled", "static-compiled"]
    assert ids(compile="off,on", cache="static") == ["uncompiled", "compiled"]
    assert ids(compile=["off", "max-autotune"], cache="static") == ["uncompiled", "compiled-max-autotune"]
    assert ids(compile="off,on", cache="dynamic,static") == [
        "dynamic-uncompiled",
        "static-uncompiled",
        "static-compiled",
    ]
    for plan in (from_dict({"compile": True}), from_dict({"compile": "on"}), from_toml("compile = true")):
        (case,) = plan.cases()
        assert (case.id, plan.compile_of(case), plan.cache_of(case)) == ("f4-b1-n64", "on", "static")
    swept = from_toml('compile = [false, true]\ncache = ["dynamic", "static"]')
    assert from_toml(swept.to_toml()) == from_json(swept.to_json()) == swept
    plain = Plan()
    assert (plain.compile_of(plain.cases()[0]), plain.cache_of(plain.cases()[0])) == ("off", "dynamic")


@given(
    frames=AXIS,
    threads=st.sampled_from([(), (1,), (1, 2)]),
    cache=st.sampled_from(["auto", "static", "dynamic", "dynamic,static"]),
    compiled=st.sampled_from(["off", "on", "off,on", "off,on,max-autotune"]),
)
def test_a_list_of_sessions_counts_their_cases_as_the_plan_makes_them(
    frames: tuple[int, ...], threads: tuple[int, ...], cache: str, compiled: str
) -> None:
    plan = Plan(frames=frames, threads=threads, cache=cache, compile=compiled)
    try:
        plan = plan.validated()
    except PlanError:
        return
    assert case_count(plan.to_dict()) == len(plan.cases()) == len({case.id for case in plan.cases()})


def test_counts_are_numbers_or_left_to_the_measuring() -> None:
    assert (Plan().rounds, Plan().warmup) == ("auto", "auto")
    plan = from_dict({"rounds": "20", "warmup": "auto"})
    assert (plan.rounds, plan.warmup) == (20, "auto")
    assert from_toml(from_dict({"rounds": 20, "time_limit_s": 2.5}).to_toml()).time_limit_s == 2.5


@given(seed=st.integers(), round_=st.integers(0, 1000), frames=AXIS)
def test_every_round_runs_every_case_once_in_an_order_of_its_own(
    seed: int, round_: int, frames: tuple[int, ...]
) -> None:
    plan = Plan(frames=frames, seed=seed)
    order = plan.round_order(round_)
    assert sorted(case.frames for case in order) == sorted(frames)
    assert order == plan.round_order(round_)


def test_rounds_do_not_share_one_order() -> None:
    plan = Plan(frames=(1, 2, 3, 4, 5))
    assert len({plan.round_order(round_) for round_ in range(20)}) > 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": []}, "frames: no value given"),
        ({"frames": [-1]}, "frames: -1 is outside 0…4096"),
        ({"frames": [0], "pipeline": "eventgpt"}, "frames: 0 is outside 1…4096"),
        ({"batch": [0]}, "batch: 0 is outside 1…1024"),
        ({"frames": "1,x"}, "frames: '1,x' is no list of whole numbers"),
        ({"frames": [2, 2]}, "frames: 2, 2 names a value twice"),
        ({"rounds": 0}, "rounds: 0 measures nothing"),
        ({"warmup": -1}, "warmup: -1 is below 0"),
        ({"pipeline": "lava"}, "pipeline: 'lava' is not one of"),
        ({"dtype": "int3"}, "dtype: 'int3' is not one of"),
        ({"dtype": "float32,auto"}, "dtype: 'auto' is not one of float32"),
        ({"attention": "eager,eager"}, "attention: eager, eager names a value twice"),
        ({"threads": [0]}, "threads: 0: give numbers from 1 to 1024"),
        ({"pipeline": "simulated", "attention": "eager,sdpa"}, "a simulation has none to change"),
        ({"pipeline": "simulated", "cache": "static"}, "a simulation has none to change"),
        ({"cache": "auto,static"}, "cache: 'auto' is not one of dynamic, static"),
        ({"compile": "fast"}, "compile: 'fast' is not one of off, on, default, reduce-overhead"),
        ({"compile": "on", "cache": "dynamic"}, "cache: nothing can be compiled for a dynamic cache"),
        ({"compile": "on", "cache": "dynamic,static"}, "cache: nothing can be compiled for a dynamic cache"),
        ({"vision_attention": "eager,auto"}, "vision_attention: 'auto' is not one of eager, sdpa"),
        ({"resolution": "336,336"}, "resolution: 336, 336 names a value twice"),
        ({"resolution": [4]}, "resolution: 4: give numbers from 8 to 16384"),
        ({"quantization": "int8"}, "quantization: 'int8' is not one of none, bnb-8bit"),
        ({"device_map": "auto,all"}, "device_map: 'all' is not one of none, auto, balanced"),
        ({"max_memory": "cpu=20"}, "max_memory: 'cpu=20' is no device and size; write it like cuda:0=10GiB"),
        ({"max_memory": "0=1GiB,cuda:0=2GiB"}, "max_memory: cuda:0 is named twice"),
        ({"offload": "spill"}, "offload: only a device map leaves weights over; add --device-map auto"),
        ({"weights": "random", "device_map": "auto"}, "device_map: random weights are made on one device"),
        ({"pipeline": "eventgpt", "quantization": "bnb-8bit"}, "quantization: EventGPT is put together from parts"),
        ({"media": "gif"}, "media: 'gif' is not one of auto, image, video"),
        ({"processes": 0}, "processes: 0 is outside 1…64"),
        ({"sample_hz": 0}, "sample_hz: 0 is outside"),
        ({"sample_hz": 0.05}, "sample_hz: 0.05 is outside 0.1…100 Hz"),
        ({"device": "gpu"}, "device: 'gpu' names none; give auto, cpu, cuda"),
        ({"device": "cuda:"}, "device: 'cuda:' names none"),
        ({"inputs": []}, "inputs: nothing to run on"),
        ({"model": ""}, "model: empty"),
        ({"fames": [1]}, "fames: no such field in a plan; did you mean frames?"),
        ({"rounds": "many"}, "rounds: 'many' is neither a whole number nor auto"),
        ({"warmup": "1.5"}, "warmup: '1.5' is neither a whole number nor auto"),
        ({"max_rounds": 9}, "max_rounds: 9 is outside 10…100000"),
        ({"delta": 0}, "delta: 0 is outside 0.0001…0.5"),
        ({"time_limit_s": 0}, "time_limit_s: 0 leaves no time to measure"),
        ({"time_limit_s": float("nan")}, "time_limit_s: nan leaves no time to measure"),
        ({"pipeline": "simulated", "profile": True}, "profile: a simulation has no operators"),
    ],
)
def test_what_cannot_run_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        from_dict(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_file_that_is_not_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"absent\.toml: No such file"):
        plans.read_file(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("frames = [1,")
    with pytest.raises(PlanError, match=r"broken\.toml: not a TOML file"):
        plans.read_file(broken)


def test_a_session_is_named_after_its_model() -> None:
    assert Plan(model="llava-hf/llava-1.5-7b-hf").slug() == "llava-1.5-7b-hf"
    assert Plan(model="/data/My Model/").slug() == "my-model"
    assert Plan(model="///").slug() == "run"
    assert Plan(pipeline="simulated").slug() == "simulated", "the demo model is not what is simulated"


def test_eventgpt_takes_five_slices_unless_said_otherwise_and_keeps_what_was_said() -> None:
    """Its default is not LLaVA's: a plan that was written down must come back as it was, four slices too."""
    assert from_dict({"pipeline": "eventgpt"}).frames == (5,)
    for frames in (4, 5, 6):
        plan = from_dict({"pipeline": "eventgpt", "frames": [frames], "grouping": "5stage"})
        assert from_toml(plan.to_toml()) == from_json(plan.to_json()) == plan
        words = command_line.arguments(plan)
        assert ("--frames" in words) == (frames != 5)
        assert words[words.index("--grouping") + 1] == "5stage"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"grouping": "5stage"}, "add --pipeline eventgpt"),
        ({"pipeline": "eventgpt", "grouping": "6stage"}, "is not one of pipeline, 5stage"),
    ],
)
def test_what_eventgpt_alone_has_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        from_dict(values)
