"""Advice that a setting of the worker answers: caches, compiled steps, threads, half precision on a CPU; what is told
where nothing can be predicted; and how each is put to the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_sessions import MODEL, a100, make

from llava_tui import events
from llava_tui.analysis.advice import Advice, Change
from llava_tui.analysis.peaks import Peaks
from llava_tui.analysis.trial import prove, trial_plan
from llava_tui.analysis.whole import Analysis, analyze
from llava_tui.plan import Case, from_dict
from llava_tui.session.timeline import View

ONE = Case(1, 1, 64)
CPU = msgspec.structs.replace(
    MODEL, device="cpu", device_name="CPU", dtype="float32", weights_bytes=2 * (MODEL.weights_bytes or 0),
    extra={"threads": 2, "usable_cores": 2, "cache": "dynamic", "compile": "off"},
)  # fmt: skip
FAST = Peaks("a CPU", {"float32": 1e15, "bfloat16": 1e15}, 8e12, "measured here", measured=True)
"""Of which a decode step of two bytes a weight at 815 GB/s is a fifth."""
TRIED = {"frames": 1, "batch": 1, "new_tokens": 64}


def of(view: View, peaks: Peaks | None = None) -> dict[str, Advice]:
    return {each.id: each for each in analyzed(view, peaks).advice}


def analyzed(view: View, peaks: Peaks | None = None) -> Analysis:
    return analyze(view, {"a cpu": peaks} if peaks is not None else None)


def extra(**values: Any) -> events.ModelFacts:
    return msgspec.structs.replace(CPU, extra=CPU.extra | values)


# --- compile ------------------------------------------------------------------------------------------------------


def test_on_a_cpu_nothing_is_predicted_of_compiling_but_a_bound(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [ONE], model=CPU)
    share = 63 * 16.5 / sum(a100(ONE, 0).values())
    blind = of(view)["compile"]
    assert (blind.gain, blind.change) == (None, Change("compile", "off", "on"))
    assert blind.bound == pytest.approx(share, rel=0.02)
    assert "nothing is predicted" in blind.evidence[1]
    assert "--measure-peaks" in blind.evidence[1]

    known = of(view, FAST)["compile"]
    assert known.gain is None
    assert known.bound is not None
    assert known.bound == pytest.approx(share * (1 - 0.2), rel=0.03)  # a step cannot come below its floor
    assert "of the memory bandwidth" in known.evidence[0]
    assert of(view, FAST)["batch"].metric == "wall per sequence"

    slow = Peaks("a CPU", {"float32": 1e15}, 1.7e12, "measured here", measured=True)
    assert "compile" not in of(view, slow), "a step that is near its floor has nothing to gain"


def test_a_profile_on_a_cpu_is_evidence_and_no_prediction(tmp_path: Path) -> None:
    def profile(ratio: float) -> events.Profile:
        stage = events.StageProfile("generate.decode", 10**8, 10**8, operators=int(10**8 * ratio))
        return events.Profile(t=10**12, run=99, case=ONE.id, device="cpu", stages=[stage])

    seen = of(make(tmp_path / "s", [ONE], model=CPU, extra=[profile(0.5)]), FAST)["compile"]
    assert seen.gain is None
    assert "operators take 50.0 %" in seen.evidence[1]
    assert "compile" not in of(make(tmp_path / "full", [ONE], model=CPU, extra=[profile(0.9)]), FAST)


def test_what_is_compiled_or_hardly_decodes_is_not_to_be_compiled(tmp_path: Path) -> None:
    assert "compile" not in of(make(tmp_path / "s", [ONE], model=extra(compile="on", cache="static")))
    assert "compile" not in of(make(tmp_path / "c", [Case(1, 1, 64, cache="static", compile="on")], model=CPU))
    assert "compile" not in of(make(tmp_path / "short", [Case(4, 1, 2)], model=CPU))


# --- static cache -------------------------------------------------------------------------------------------------


def long_prompt(case: Case, round_: int) -> dict[str, float]:
    return a100(case, round_) | {"frames.decode_frames": 1.0, "generate.prefill": 300.0}


def test_a_dynamic_cache_that_is_copied_for_every_token(tmp_path: Path) -> None:
    cases = [Case(4, 1, 64)]  # 2,400 tokens of 0.5 MiB, read and written: 2.5 GB beside the 14.5 GB of a step
    advice = of(make(tmp_path / "s", cases, times=long_prompt))["static-cache"]
    assert advice.change == Change("cache", "dynamic", "static")
    assert advice.gain is not None
    assert advice.bound is not None
    copied = 2 * 0.524288e6 * (576 * 4 + 64 + 32)
    step_ms = (13.21e9 + 0.524e6 * (576 * 4 + 64 + 32)) / 2039e9 * 1e3 / 0.4
    assert advice.gain == pytest.approx(copied / 2039e9 * 1e3 / step_ms * (advice.bound / 0.6), rel=0.05)
    static = msgspec.structs.replace(MODEL, extra={"cache": "static"})
    assert "static-cache" not in of(make(tmp_path / "static", cases, times=long_prompt, model=static))
    assert "static-cache" not in of(make(tmp_path / "few", [Case(1, 1, 8)]))  # a twentieth of what a step moves


def test_what_may_stay_in_a_processors_cache_is_not_predicted(tmp_path: Path) -> None:
    """Half a gigabyte or less: whether it crosses the memory bus nobody has seen."""
    config = MODEL.config | {"text_config": MODEL.config["text_config"] | {"hidden_size": 512, "num_hidden_layers": 8}}
    config["text_config"] |= {"num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 1376}
    config["text_config"] |= {"vocab_size": 320}
    small = msgspec.structs.replace(CPU, config=config, parameters=330_000_000)
    advice = of(make(tmp_path / "s", [Case(4, 1, 64)], model=small), FAST)["static-cache"]
    assert advice.gain is None
    assert 0 < (advice.bound or 0) <= 1
    assert "nothing is predicted" in advice.evidence[1]


# --- threads, dtype, tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "usable", "change"),
    [(1, 8, (1, 2)), (2, 3, (2, 3)), (8, 2, (8, 2)), (2, 2, None), (1, 1, None)],
)
def test_threads_beside_the_cores_that_there_are(
    tmp_path: Path, threads: int, usable: int, change: tuple[int, int] | None
) -> None:
    view = make(tmp_path / "s", [ONE], model=extra(threads=threads, usable_cores=usable))
    advice = of(view).get("threads")
    if change is None:
        assert advice is None
        return
    assert advice is not None
    assert advice.change == Change("threads", *change)
    assert advice.gain is None
    assert (advice.bound or 0) <= (1 - threads / change[1] if threads < usable else 1)
    assert f"may use: {usable} of 16" in advice.evidence[0]


def test_a_gpu_and_an_older_session_have_no_threads_to_advise_on(tmp_path: Path) -> None:
    assert "threads" not in of(make(tmp_path / "gpu", [ONE]))
    older = msgspec.structs.replace(CPU, extra={"threads": 1})
    assert "threads" not in of(make(tmp_path / "older", [ONE], model=older))


def test_half_precision_on_a_cpu_that_computes_in_it(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [ONE], model=CPU)
    quick = Peaks("a CPU", {"float32": 1e12, "bfloat16": 4e12}, 1e11, "measured here", measured=True)
    advice = of(view, quick)["half"]
    assert advice.gain is None
    assert advice.change == Change("dtype", "float32", "bfloat16")
    assert "4.0 × as much" in advice.evidence[0]
    emulated = Peaks("a CPU", {"float32": 1e12, "bfloat16": 2e11}, 1e11, "measured here", measured=True)
    assert "half" not in of(view, emulated)
    assert "half" not in of(view)


def test_a_long_answer_is_most_of_the_run(tmp_path: Path) -> None:
    advice = of(make(tmp_path / "s", [ONE]))["fewer-tokens"]
    assert advice.change == Change("new_tokens", 64, 32)
    whole, half = (sum(a100(Case(1, 1, count), 0).values()) for count in (64, 32))
    assert advice.gain == pytest.approx(1 - half / whole, rel=0.03)
    assert "fewer-tokens" not in of(make(tmp_path / "short", [Case(4, 1, 4)]))


# --- put to the test ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "values", "cases"),
    [
        ({}, TRIED, ["f1-b1-n64-dynamic-uncompiled", "f1-b1-n64-static-compiled"]),
        ({"cache": "dynamic"}, TRIED, ["f1-b1-n64-dynamic-uncompiled", "f1-b1-n64-static-compiled"]),
        ({"cache": "static"}, TRIED, ["f1-b1-n64-uncompiled", "f1-b1-n64-compiled"]),
        (
            {"cache": "dynamic,static", "frames": [1, 2], "attention": "eager,sdpa"},
            TRIED | {"cache": "dynamic", "attention": "eager"},
            ["f1-b1-n64-dynamic-uncompiled", "f1-b1-n64-static-compiled"],
        ),
        (
            {"compile": "off,on"},
            TRIED | {"cache": "dynamic", "compile": "off"},
            ["f1-b1-n64-dynamic-uncompiled", "f1-b1-n64-static-compiled"],
        ),
    ],
)
def test_a_compiled_step_is_tried_beside_what_the_case_had(
    tmp_path: Path, plan: dict[str, Any], values: dict[str, Any], cases: list[str]
) -> None:
    advice = of(make(tmp_path / "s", [ONE], model=CPU))["compile"]
    tried = from_dict(trial_plan(from_dict(plan).to_dict(), advice, values, 8))
    assert [case.id for case in tried.cases()] == cases


@pytest.mark.parametrize(
    ("change", "cases"),
    [
        (Change("cache", "dynamic", "static"), ["f1-b1-n64-dynamic", "f1-b1-n64-static"]),
        (Change("threads", 1, 2), ["f1-b1-n64-t1", "f1-b1-n64-t2"]),
        (Change("dtype", "float32", "bfloat16"), ["f1-b1-n64-float32", "f1-b1-n64-bfloat16"]),
        (Change("attention", "eager", "sdpa"), ["f1-b1-n64-eager", "f1-b1-n64-sdpa"]),
        (Change("new_tokens", 64, 32), ["f1-b1-n64", "f1-b1-n32"]),
        (Change("batch", 1, 2), ["f1-b1-n64", "f1-b2-n64"]),
        (Change("frames", 2, 1), ["f2-b1-n64", "f1-b1-n64"]),
    ],
)
def test_every_change_is_two_cases_of_one_session(change: Change, cases: list[str]) -> None:
    advice = Advice(id="any", rule=0, case="", title="", evidence=(), remedy="", change=change)
    asked = from_dict({"profile": True, "time_limit_s": 5, "rounds": "auto"}).to_dict()
    plan = from_dict(trial_plan(asked, advice, TRIED, 8))
    assert [case.id for case in plan.cases()] == cases
    assert (plan.rounds, plan.time_limit_s, plan.profile) == (8, None, False)


def compiled(case: Case, round_: int) -> dict[str, float]:
    times = a100(ONE, round_)
    return times | {"generate.decode": times["generate.decode"] * (0.7 if case.compile == "on" else 1)}


def test_without_a_prediction_the_bound_is_what_is_held_against(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [ONE], model=CPU)
    advice = of(view, FAST)["compile"]
    both = [Case(1, 1, 64, cache="dynamic", compile="off"), Case(1, 1, 64, cache="static", compile="on")]
    proof = prove(make(tmp_path / "trial", both, times=compiled), advice)
    assert (proof.predicted, proof.bound, proof.verdict) == (None, advice.bound, "faster")
    assert proof.low is not None
    assert proof.low <= (proof.measured or 0) <= (proof.high or 0)
    assert proof.sentence.endswith("within the bound, nothing more was predicted")


def test_a_case_that_cannot_be_compiled_says_why_nothing_came_of_it(tmp_path: Path) -> None:
    advice = of(make(tmp_path / "s", [ONE], model=CPU))["compile"]
    why = "1 of 2 cases failed: f1-b1-n64-static-compiled: compile: needs a C++ compiler"
    end = events.StateChange(t=10**13, state="closed", reason=why)
    trial = make(tmp_path / "trial", [Case(1, 1, 64, cache="dynamic", compile="off")], extra=[end])
    proof = prove(trial, advice)
    assert (proof.measured, proof.rounds) == (None, 0)
    assert "needs a C++ compiler" in proof.sentence


def test_doubtful_figures_keep_their_advice_for_whoever_insists(tmp_path: Path) -> None:
    found = analyzed(make(tmp_path / "s", [ONE], rounds=4, model=CPU))
    assert [each.id for each in found.advice] == ["measure-again"]
    assert "compile" in {each.id for each in found.withheld}
    assert found.doubt.startswith("trust is D: 4 runs")
    fine = analyzed(make(tmp_path / "fine", [ONE], model=CPU))
    assert (fine.withheld, fine.doubt) == ((), "")
    hot = analyzed(make(tmp_path / "hot", [ONE], throttle=0x20))
    assert [each.id for each in hot.advice] == ["cool"]
    assert hot.withheld
    imported = analyzed(make(tmp_path / "imported", [ONE], rounds=4, header={"provenance": "imported"}))
    assert imported.withheld == ()
