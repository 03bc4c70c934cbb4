"""Each rule's trigger, both sides of it; what comes before all rules; and gains within Amdahl's bound."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_sessions import MODEL, MS, Times, a100, make

from llava_tui import events
from llava_tui.analysis.advice import Advice, Change
from llava_tui.analysis.trial import prove, trial_plan
from llava_tui.analysis.whole import analyze
from llava_tui.plan import Case, from_dict

ONE = Case(1, 1, 64)
FRAMES = [Case(frames, 1, 64) for frames in (1, 2, 4)]


def given(folder: Path, cases: list[Case] | None = None, **how: Any) -> dict[str, Advice]:
    advice = analyze(make(folder / "s", cases or [ONE], **how)).advice
    for each in advice:
        assert each.evidence
        assert each.change is not None or "llava-tui" in each.command
        if each.gain is not None and each.bound is not None:
            assert 0 <= each.gain <= each.bound + 1e-9 <= 1 + 1e-9
    gains = [each.gain or 0 for each in advice]
    assert gains == sorted(gains, reverse=True)
    return {each.id: each for each in advice}


def with_times(**ms: float) -> Times:
    leaves = {
        "frames": "frames.decode_frames", "preprocess": "encode.preprocess", "tower": "encode.vision_tower",
        "prefill": "generate.prefill", "decode": "generate.decode",
    }  # fmt: skip
    changed = {leaves[name]: value for name, value in ms.items()}
    return lambda case, round_: a100(case, round_) | changed


FAST_DECODE = with_times(decode=63 * 8.0)  # 8 ms a token: 83 % of the A100's bandwidth
SLOW_DECODE = with_times(decode=63 * 25.0)  # 27 %
DECODE_SHARE = 63 * 25 / (63 * 25 + 5 + 8 + 0.1 + 3.45 + 0.16 + 54 + 0.1)
"""Of a run with the slow one."""


def test_bandwidth_bound_decode(tmp_path: Path) -> None:
    found = given(tmp_path, times=FAST_DECODE)
    quantise, batch = found["quantise"], found["batch"]
    assert quantise.rule == batch.rule == 1
    assert "83.2 %" in quantise.evidence[0]
    share = 63 * 8 / (63 * 8 + 5 + 8 + 0.1 + 3.45 + 0.16 + 54 + 0.1)
    assert quantise.bound == pytest.approx(share, rel=0.01)
    assert quantise.gain == pytest.approx(share * (1 - 1 / 1.9), rel=0.01)  # 1.9 ×, not 4 ×
    assert quantise.change == Change("quantization", "none", "bnb-4bit")  # the other's kernel takes bfloat16 alone
    half = msgspec.structs.replace(MODEL, dtype="bfloat16")
    assert given(tmp_path / "half", times=FAST_DECODE, model=half)["quantise"].change == Change(
        "quantization", "none", "torchao-int4"
    )
    # Two sequences read the weights once: a step takes hardly longer, so half of decode is saved a sequence.
    assert batch.change is not None
    assert (batch.change.axis, batch.change.before, batch.change.after) == ("batch", 1, 2)
    assert batch.gain == pytest.approx(share * 0.485, rel=0.05)
    assert "quantise" not in given(tmp_path / "below", times=with_times(decode=63 * 12.0))


def test_quantised_weights_are_not_quantised_again(tmp_path: Path) -> None:
    config = MODEL.config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    model = msgspec.structs.replace(MODEL, config=config, parameters=MODEL.parameters // 2)
    found = given(tmp_path, model=model, times=with_times(decode=63 * 2.6))
    assert "quantise" not in found
    assert "batch" in found
    asked = msgspec.structs.replace(MODEL, extra=MODEL.extra | {"quantization": "bnb-4bit"})
    assert "quantise" not in given(tmp_path / "asked", model=asked, times=with_times(decode=63 * 2.6))


def profile(ratio: float) -> events.Profile:
    stage = events.StageProfile("generate.decode", 100 * MS, 100 * MS, operators=int(100 * MS * ratio))
    return events.Profile(t=10**12, run=99, case=ONE.id, device="cuda", stages=[stage])


def test_launch_bound_decode_needs_the_microscope(tmp_path: Path) -> None:
    found = given(tmp_path, times=SLOW_DECODE)
    assert found["profile"].rule == 2
    assert found["profile"].gain is None
    assert "--profile" in found["profile"].command
    # Nothing is predicted before anybody has looked; a step that reaches 27 % has 73 % to lose at most.
    assert found["compile"].gain is None
    assert found["compile"].bound == pytest.approx(DECODE_SHARE * (1 - 0.266), rel=0.01)
    looked = given(tmp_path / "launches", times=SLOW_DECODE, extra=[profile(0.4)])
    assert looked["compile"].gain == pytest.approx(DECODE_SHARE * 0.6, rel=0.01)
    assert "40.0 % of decode's span" in looked["compile"].evidence[1]
    assert looked["compile"].change == Change("compile", "off", "on")
    assert (looked["batch"].rule, looked["batch"].gain) == (2, None)
    launches = {"compile", "profile", "batch"}
    assert not launches & given(tmp_path / "kernels", times=SLOW_DECODE, extra=[profile(0.9)]).keys()
    assert not launches & given(tmp_path / "near", times=with_times(decode=63 * 14.0)).keys()
    compiled = msgspec.structs.replace(MODEL, extra={"compile": "on", "cache": "static"})
    assert not launches & given(tmp_path / "compiled", times=SLOW_DECODE, model=compiled).keys()


def test_overhead_in_encode(tmp_path: Path) -> None:
    def slow_start(case: Case, round_: int) -> dict[str, float]:
        return a100(case, round_) | {"encode.preprocess": 300.0 + 6 * case.frames}

    found = given(tmp_path, FRAMES, times=slow_start)
    advice = found["encode-overhead"]
    assert advice.rule == 3
    assert "frames 1, 2, 4" in advice.evidence[0]
    assert "encode-overhead" not in given(tmp_path / "fine", FRAMES)


def test_a_vision_tower_far_from_its_floor(tmp_path: Path) -> None:
    def slow_tower(case: Case, round_: int) -> dict[str, float]:
        return a100(case, round_) | {"encode.vision_tower": 40.0 * case.frames}

    found = given(tmp_path, FRAMES, times=slow_tower)
    assert "MFU 3.1 %" in found["encode-kernels"].evidence[0]
    assert "encode-kernels" not in given(tmp_path / "fine", FRAMES)  # 50 %

    def near_the_floor(case: Case, round_: int) -> dict[str, float]:
        usual = a100(case, round_)
        quick = {"frames.decode_frames": 1.0, "encode.preprocess": 1.0, "encode.vision_tower": 2.0 * case.frames}
        return usual | quick | {"generate.prefill": usual["generate.prefill"] / 2}

    short = [Case(frames, 1, 2) for frames in (1, 2, 4)]
    left = given(tmp_path / "near", short, times=near_the_floor)["encode-floor"]
    assert (left.rule, left.gain) == (3, None)
    assert "MFU 61.2 %" in left.evidence[0]


def test_prefill_that_is_mostly_pictures(tmp_path: Path) -> None:
    cases = [Case(4, 1, 4)]
    advice = given(tmp_path, cases)["fewer-frames"]
    assert advice.rule == 4
    assert advice.change is not None
    assert (advice.change.before, advice.change.after) == (4, 2)
    # What the same machine does at two frames, by the same formulas.
    four, two = (sum(a100(Case(frames, 1, 4), 0).values()) for frames in (4, 2))
    assert advice.gain == pytest.approx(1 - two / four, rel=0.06)
    assert given(tmp_path / "one", [Case(1, 1, 4)], times=with_times(prefill=200))["pool"].change is None
    assert "fewer-frames" not in given(tmp_path / "long", [Case(4, 1, 256)])


def test_eager_attention_and_float32_on_a_gpu(tmp_path: Path) -> None:
    eager = msgspec.structs.replace(MODEL, attention="eager")
    advice = given(tmp_path, model=eager)["attention"]
    assert advice.rule == 5
    assert advice.change is not None
    assert (advice.change.axis, advice.change.before, advice.change.after) == ("attention", "eager", "sdpa")
    full = msgspec.structs.replace(MODEL, dtype="float32")
    assert given(tmp_path / "f", model=full, times=with_times(decode=63 * 30.0, prefill=500))["half"].rule == 5
    on_cpu = msgspec.structs.replace(full, device="cpu", device_name="CPU")
    assert "half" not in given(tmp_path / "c", model=on_cpu)
    assert not {"attention", "half"} & given(tmp_path / "fine").keys()


def test_step_1_that_holds_up_the_gpu(tmp_path: Path) -> None:
    advice = given(tmp_path, times=with_times(frames=400))["prefetch"]
    assert advice.rule == 6
    assert advice.gain == pytest.approx(advice.bound or 0, rel=0.2)
    assert "prefetch" not in given(tmp_path / "fine")
    on_cpu = msgspec.structs.replace(MODEL, device="cpu", device_name="CPU")
    assert "prefetch" not in given(tmp_path / "c", model=on_cpu, times=with_times(frames=400))


def test_the_largest_batch_that_fits(tmp_path: Path) -> None:
    advice = given(tmp_path, allocated=MODEL.weights_bytes + 1_000_000_000)["largest-batch"]
    assert advice.rule == 7
    # (80 GiB × 0.95 − 14.1 GB) / 1 GB a sequence
    assert "about 67 fits" in advice.title
    assert advice.change is not None
    assert advice.change.after == 8
    full = MODEL.weights_bytes + 50_000_000_000
    assert "largest-batch" not in given(tmp_path / "full", allocated=full)


def test_fragmented_memory(tmp_path: Path) -> None:
    advice = given(tmp_path, allocated=20 * 10**9, reserved=30 * 10**9)["fragmentation"]
    assert advice.rule == 8
    assert "1.50 ×" in advice.evidence[0]
    assert "fragmentation" not in given(tmp_path / "fine", allocated=20 * 10**9, reserved=25 * 10**9)


def test_a_throttled_gpu_is_cooled_before_anything_else(tmp_path: Path) -> None:
    found = given(tmp_path, times=FAST_DECODE, throttle=0x20)
    assert list(found) == ["cool"]
    assert found["cool"].rule == 9
    # A power cap is no throttling, and neither is what happened outside of runs.
    assert "cool" not in given(tmp_path / "cap", times=FAST_DECODE, throttle=0x4)


def test_figures_nobody_trusts_lead_to_measuring_again_only(tmp_path: Path) -> None:
    found = given(tmp_path, rounds=4, times=FAST_DECODE)  # too few: red, D
    assert list(found) == ["measure-again"]
    assert any("4 runs" in line for line in found["measure-again"].evidence)


def test_what_was_imported_is_measured_again_and_nothing_is_made_of_it(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [ONE], rounds=4, header={"provenance": "imported"})
    before_loading = view.timeline.at(1)
    assert analyze(before_loading).advice == ()
    (advice,) = analyze(view).advice
    assert advice.id == "measure-again"
    assert "--from" not in advice.command


# --- put to the test ----------------------------------------------------------------------------------------------


def test_a_trial_runs_the_change_and_nothing_else_beside_the_baseline(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [Case(frames, batch, 4) for frames in (2, 4) for batch in (1, 2)])
    advice = next(each for each in analyze(view).advice if each.id == "fewer-frames")
    values = {"frames": 4, "batch": 2, "new_tokens": 4}
    plan = from_dict(trial_plan(view.header.plan, advice, values, 8))
    assert sorted(case.id for case in plan.cases()) == ["f2-b2-n4", "f4-b2-n4"]
    assert (plan.rounds, plan.tags) == (8, ("advice",))
    with pytest.raises(ValueError, match="no sweep axis"):
        trial_plan(view.header.plan, dataclasses.replace(advice, change=None), values, 8)


def test_a_proof_holds_prediction_against_measurement(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [Case(4, 1, 4)])
    advice = analyze(view).advice[0]
    assert advice.id == "fewer-frames"
    trial = make(tmp_path / "trial", [Case(4, 1, 4), Case(2, 1, 4)])
    proof = prove(trial, advice)
    assert (proof.rounds, proof.verdict) == (12, "faster")
    assert proof.measured == pytest.approx(advice.gain or 0, rel=0.06)
    assert proof.low is not None
    assert proof.high is not None
    assert proof.low <= (proof.measured or 0) <= proof.high
    assert "FASTER" in proof.sentence
    assert proof.trust == "A"
    throttled = prove(make(tmp_path / "hot", [Case(4, 1, 4), Case(2, 1, 4)], throttle=0x20), advice)
    assert throttled.trust == "D"
    assert "trust is D" in throttled.sentence


def test_a_batch_is_judged_by_the_sequence(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [ONE], times=FAST_DECODE)
    advice = next(each for each in analyze(view).advice if each.id == "batch")
    proof = prove(make(tmp_path / "trial", [ONE, Case(1, 2, 64)]), advice)
    # A run of two takes longer, a sequence of it less.
    assert proof.verdict == "faster"
    assert 0.2 < (proof.measured or 0) < 0.5


def test_advice_that_does_not_hold_is_said_not_to(tmp_path: Path) -> None:
    view = make(tmp_path / "s", [Case(4, 1, 4)])
    advice = analyze(view).advice[0]

    def no_better(case: Case, round_: int) -> dict[str, float]:
        return a100(Case(4, 1, 4), round_)

    proof = prove(make(tmp_path / "same", [Case(4, 1, 4), Case(2, 1, 4)], times=no_better), advice)
    assert proof.verdict == "same"
    assert "points off" in proof.sentence
    missing = prove(make(tmp_path / "missing", [Case(4, 1, 4)]), advice)
    assert (missing.measured, missing.rounds) == (None, 0)
