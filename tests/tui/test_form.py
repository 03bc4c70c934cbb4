"""The form of a new run and what it says of its plan, without a screen."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui import presets, starting
from llava_tui.faults import KINDS, parse
from llava_tui.plan import NAMED, Plan, PlanError, from_dict
from llava_tui.session import store
from llava_tui.tui import estimate as estimating
from llava_tui.tui.estimate import estimate
from llava_tui.tui.form import Form, shown
from llava_tui.tui.form_fields import FIELDS, REAL
from llava_tui.tui.widgets.cells import width_of
from llava_tui.tui.widgets.plan_page import Planned, draw_planned, span, time_in_words

REAL_PLAN = Plan(
    model="owner/a-model",
    inputs=("a b.mp4", "it's.png"),
    prompt="two\nlines, \x1b[2Jand more",
    frames=(1, 2),
    batch=(2,),
    new_tokens=(16, 32),
    dtype="float32,bfloat16",
    attention="sdpa",
    threads=(1, 2),
    device="cpu",
    rounds=7,
    max_rounds=20,
    delta=0.02,
    time_limit_s=60.5,
    warmup=0,
    self_test=False,
    cool_down=False,
    profile=True,
    seed=3,
    name="a name",
    tags=("a", "b c"),
    sample_hz=5.5,
)
SIMULATED_PLAN = Plan(
    pipeline="simulated",
    simulated_gpu="t4",
    time_scale=0.5,
    faults=(msgspec.convert(parse("spikes=5%,size=40%"), KINDS["spikes"]), KINDS["hang"]()),
)


def as_kept(plan: Plan) -> dict[str, Any]:
    """The plan as a session's header has it."""
    values: dict[str, Any] = msgspec.json.decode(plan.to_json())
    return values


def test_every_field_of_a_plan_is_in_the_form() -> None:
    assert {field.name for field in FIELDS} == set(Plan.__struct_fields__)
    assert [field.name for field in FIELDS if field.several] == list(NAMED)


@pytest.mark.parametrize("plan", [Plan(), Plan(pipeline="simulated"), REAL_PLAN, SIMULATED_PLAN], ids=range(4))
def test_a_form_that_a_plan_filled_says_the_same_plan(plan: Plan) -> None:
    form = Form(as_kept(plan))
    assert form.plan() == plan
    assert all(text.isprintable() for text in form.texts.values())
    assert form.left_out == []


@pytest.mark.parametrize("plan", [REAL_PLAN, SIMULATED_PLAN], ids=range(2))
def test_a_plan_can_be_typed_field_by_field(plan: Plan) -> None:
    form = Form()
    clean = msgspec.structs.replace(plan, prompt=plan.prompt.replace("\x1b[2J", ""))
    for field in FIELDS:
        form.type(field.name, shown(field, getattr(clean, field.name)))
    assert form.plan() == clean


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("frames", "1,two", "whole numbers"),
        ("frames", "-1", "outside"),
        ("batch", "1,1", "twice"),
        ("inputs", "'open", "not closed"),
        ("inputs", "", "nothing to run on"),
        ("model", " ", "empty"),
        ("dtype", "float99", "not one of"),
        ("threads", "0", "1 to 1024"),
        ("rounds", "many", "neither a whole number nor auto"),
        ("max_rounds", "3.5", "no whole number"),
        ("delta", "small", "no number"),
        ("time_limit_s", "-1", "above 0"),
        ("seed", "x", "no whole number"),
        ("sample_hz", "nan", "outside"),
    ],
)
def test_what_cannot_be_is_said_of_the_field_that_it_is_in(name: str, text: str, why: str) -> None:
    form = Form()
    form.type(name, text)
    with pytest.raises(PlanError, match=why) as refused:
        form.plan()
    assert form.wrong(refused.value) == name


def test_fields_that_mean_nothing_for_the_pipeline_keep_their_defaults() -> None:
    form = Form()
    for name, text in {"threads": "2", "dtype": "float32,bfloat16", "time_scale": "x", "faults": "hang"}.items():
        form.type(name, text)
    assert form.plan().threads == (2,)
    form.type("pipeline", "simulated")
    form.type("time_scale", "0")
    assert form.plan() == Plan(pipeline="simulated", time_scale=0, faults=(KINDS["hang"](),))
    assert {field.name for field in form.fields()} & {"dtype", "model", "profile"} == set()
    assert next(field for field in FIELDS if field.name == "model").pipelines == REAL


def test_every_field_of_a_plan_can_be_typed_and_groups_are_whole() -> None:
    assert {field.name for field in FIELDS} == set(Plan.__struct_fields__)
    groups = [name for name, _ in itertools.groupby(field.group for field in FIELDS)]
    assert len(groups) == len(set(groups))


def test_a_field_is_shown_where_it_means_something_and_wherever_it_says_something() -> None:
    form = Form()
    names = {field.name for field in form.fields()}
    assert {"inputs", "max_rounds", "delta", "device_map"} <= names
    assert "offload" not in names
    for name, text in {"device_map": "auto", "dataset": "all.jsonl", "rounds": "10"}.items():
        form.type(name, text)
    names = {field.name for field in form.fields()}
    assert "offload" in names
    assert not {"inputs", "max_rounds", "delta"} & names
    form.type("offload", "/big")
    form.type("device_map", "none")
    assert "offload" in {field.name for field in form.fields()}, "it would be refused, and nobody saw why"
    with pytest.raises(PlanError, match="offload: only a device map") as refused:
        form.plan()
    assert form.wrong(refused.value) == "offload"


def test_another_pipeline_has_its_own_frames_unless_they_were_typed() -> None:
    form = Form()
    form.type("pipeline", "eventgpt")
    assert form.texts["frames"] == "5"
    assert form.plan() == from_dict({"pipeline": "eventgpt"})
    form.type("pipeline", "llava")
    assert form.texts["frames"] == "4"
    assert form.plan() == Plan()
    form.type("frames", "2")
    form.type("frames", "4")
    form.type("pipeline", "eventgpt")
    assert form.plan().frames == (4,), "it was typed"


def test_an_empty_field_holds_its_default() -> None:
    form = Form()
    for field in FIELDS:
        if field.kind == "text" and field.name not in ("model", "prompt"):
            form.type(field.name, "  ")
    assert form.plan() == Plan()


def test_home_is_understood_without_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    form = Form()
    form.type("inputs", "~/clip.mp4 'b ~.mp4'")
    assert form.plan().inputs == ("/home/somebody/clip.mp4", "b ~.mp4")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(values=st.dictionaries(st.sampled_from([*Plan.__struct_fields__, "new_field", "\x1b[2J"]), anything))
def test_a_damaged_plan_fills_the_form_and_is_a_plan_or_an_error(values: dict[str, Any]) -> None:
    form = Form(values)
    assert all(text.isprintable() for text in (*form.texts.values(), *form.left_out))
    try:
        assert form.plan() == from_dict(form.plan().to_dict())
    except PlanError:
        pass


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200), width=st.integers(1, 130))
def test_the_plans_page_is_as_wide_as_it_is_asked_for(text: str, width: int) -> None:
    plan = Plan(prompt=text, frames=tuple(range(1, 40)))
    planned = Planned(text, plan, text, True, None, text, plan.to_toml(), text)
    for line in draw_planned(planned, width):
        assert width_of(line) == width
        assert "".join(run for run, _ in line).isprintable()


# --- the estimate ---------------------------------------------------------------------------------------------------


def simulated(**values: Any) -> Plan:
    return from_dict({"pipeline": "simulated", "time_scale": 0, "new_tokens": [16]} | values)


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def recorded(sessions: Path, plan: Plan) -> store.SessionInfo:
    """The plan, run."""
    path, worker = starting.start(sessions, plan, [])
    assert worker.wait(60) == 0
    return store.info(path)


@pytest.mark.parametrize(
    "values",
    [{"frames": [1, 2], "rounds": 6, "warmup": 2}, {"frames": [1]}, {"frames": [1, 2], "time_limit_s": 2.0}],
    ids=["rounds", "auto", "time limit"],
)
def test_runs_and_time_are_what_comes_to_pass(sessions: Path, values: dict[str, Any]) -> None:
    plan = simulated(**values)
    blind = estimate(plan, [])
    assert blind.floor
    assert blind.time_from == "at least, by the peaks of H100 80GB HBM3"
    info = recorded(sessions, plan)
    assert blind.runs[0] <= info.runs_done <= blind.runs[1] or plan.time_limit_s is not None
    known = estimate(plan, [info])
    assert blind.seconds is not None
    assert known.seconds is not None
    assert not known.floor
    assert known.time_from == f"from {info.id}"
    assert blind.seconds[0] < known.seconds[0]
    # The session's own time has loading and preflight in it.
    loading = 8.0
    took = info.duration_ns / 1e9
    assert 0.98 * known.seconds[0] <= took <= 1.05 * known.seconds[1] + loading


def test_only_sessions_of_the_same_model_set_up_alike_on_this_machine_tell(sessions: Path) -> None:
    info = recorded(sessions, simulated(rounds=1, warmup=0, name="like it"))
    header = info.header
    assert header is not None
    assert estimate(simulated(rounds=30), [info]).time_from == "from like it"
    assert "at least" in estimate(simulated(simulated_gpu="t4"), [info]).time_from
    assert "at least" in estimate(simulated(frames=[4, 5]), [info]).time_from
    real = Plan(new_tokens=(16,))
    here = msgspec.structs.replace(header.host, hostname=socket.gethostname())
    away = msgspec.structs.replace(header.host, hostname="elsewhere")
    for host, source in ((here, "from like it"), (away, "unknown until the first run")):
        other = msgspec.structs.replace(header, plan=as_kept(real), host=host, provenance="pretrained")
        found = estimate(real, [dataclasses.replace(info, header=other)])
        assert found.time_from == source
        assert (found.memory is not None) == (host is here)
    (info.path / "summary.json").write_text("{")
    assert "at least" in estimate(simulated(), [info]).time_from


def test_of_a_data_set_every_case_takes_all_items_once_a_pass(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("path\n" + "".join(f"{n}.mp4\n" for n in range(10)))
    of = {"dataset": str(tmp_path / "all.csv"), "batch": [1, 4], "warmup": 0, "self_test": False}
    once, twice = (estimate(simulated(**of, rounds=rounds), []) for rounds in ("auto", 2))
    assert (once.items, once.runs) == (10, (3 + 13, 3 + 13)), "10 runs of one, 3 of four; two checks and a cold start"
    assert twice.runs == (3 + 26, 3 + 26)
    words = " ".join(text for line in draw_planned(Planned("", simulated(**of), estimate=once), 60) for text, _ in line)
    assert "10, 1 pass over them" in " ".join(words.split())
    with pytest.raises(PlanError, match="no such file"):
        estimate(simulated(dataset=str(tmp_path / "absent.csv")), [])


def test_several_loads_are_named_before_they_are_made() -> None:
    plan = Plan(quantization="none,torchao-int8", dtype="bfloat16")
    words = " ".join("".join(text for text, _ in line) for line in draw_planned(Planned("", plan), 80))
    assert "2; cases interleave as far as memory holds them: bfloat16; bfloat16, torchao-int8" in " ".join(
        words.split()
    )


def test_memory_is_that_of_weights_and_cache() -> None:
    found = estimate(simulated(frames=[1, 3]), [])
    assert found.memory is not None
    assert 13.0 < found.memory / 2**30 < 15.0  # 7.06e9 parameters of two bytes, 288 MiB of cache a frame


def test_a_models_config_and_the_gpus_data_sheet_tell_the_least_that_is_to_be_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    llava = presets.find("llava-1.5-7b")
    assert llava is not None
    (tmp_path / "config.json").write_text(json.dumps(llava.config | {"dtype": "bfloat16"}))
    monkeypatch.setattr(estimating, "_boards", lambda: ["NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3"])
    plan = Plan(model=str(tmp_path), frames=(1,), new_tokens=(65,), rounds=1, warmup=0, self_test=False)
    found, second = estimate(plan, []), estimate(msgspec.structs.replace(plan, device="cuda:1"), [])
    assert found.runs == (3, 3)
    assert found.memory is not None
    assert 13.0 < found.memory / 2**30 < 14.0
    # 51 ms of prefill and 64 tokens of 13.4 ms on the one, 8.5 ms and 4.0 ms on the other; three runs of it.
    assert found.seconds is not None
    assert second.seconds is not None
    assert found.seconds[0] / 3 == pytest.approx(0.051 + 64 * 0.0134, rel=0.05)
    assert second.seconds[0] / 3 == pytest.approx(0.0085 + 64 * 0.0040, rel=0.05)
    assert estimate(msgspec.structs.replace(plan, device="cuda:2"), []).seconds is None


def test_a_preset_with_random_weights_is_known_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "_boards", lambda: ["NVIDIA GeForce RTX 4090"])
    found = estimate(Plan(model="llava-1.5-7b", weights="random", new_tokens=(8,)), [])
    assert found.memory is not None
    assert 13.0 < found.memory / 2**30 < 16.0
    assert found.seconds is not None


def test_nothing_is_claimed_of_what_nobody_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimating, "_boards", list)
    for plan in (Plan(), Plan(model="owner/absent"), Plan(model=str(tmp_path)), Plan(device="cuda:3")):
        found = estimate(plan, [])
        assert (found.seconds, found.memory) == (None, None)
        assert time_in_words(found) == "unknown until the first run"


def test_times_are_said_as_people_plan_with_them() -> None:
    assert [span(seconds) for seconds in (0, 8, 89, 100, 5000, 7800, 200_000)] == [
        "1 s",
        "8 s",
        "89 s",
        "2 min",
        "83 min",
        "2 h 10 min",
        "2 days",
    ]


def test_what_will_not_fit_into_memory_is_said_where_it_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "_boards", list)
    monkeypatch.setattr(estimating, "host_free", lambda: 20 << 30)
    plan = Plan(model="llava-1.5-7b", weights="random", dtype="bfloat16", device="cpu", frames=(1, 6), batch=(1, 16))
    found = estimate(plan, [])
    assert [problem.split(":")[0] for problem in found.short] == ["f6-b16-n64 does not fit"]
    words = " ".join(text for line in draw_planned(Planned("", plan, estimate=found), 80) for text, _ in line)
    assert "⚠ memory" in words
    assert "this machine has 20.0 GiB free" in " ".join(words.split())
    assert not estimate(msgspec.structs.replace(plan, batch=(1,)), []).short
