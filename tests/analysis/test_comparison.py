"""Sessions on disk compared: verdicts row by row, what is refused and why, and the sentence on top."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import MS, STAGES, record, view

import llava_tui as lt
from llava_tui import events
from llava_tui.analysis import loads
from llava_tui.analysis.calibration import spread_between
from llava_tui.analysis.comparison import Comparison, Side, compare
from llava_tui.analysis.measures import measures
from llava_tui.analysis.trust import badge
from llava_tui.analysis.verdict import decide, holm, paired
from llava_tui.pipelines.simulated_session import simulated_session
from llava_tui.plan import from_dict
from llava_tui.report import comparison as report
from llava_tui.report.facts import head

TWO = {"a": {"frames": 4, "batch": 1, "new_tokens": 4, "variant": 1}, "b": {"frames": 4, "batch": 1, "new_tokens": 4}}
SLOW_VISION = {"b": {"encode.vision_tower": 2.0}}
MIRRORED = {"faster": "slower", "slower": "faster"}


def side(*paths: Path, case: str = "") -> Side:
    return Side(paths[0].name, tuple(view(path) for path in paths), case)


def only(comparisons: list[Comparison]) -> Comparison:
    assert len(comparisons) == 1
    return comparisons[0]


def verdicts(one: Comparison) -> dict[str, str]:
    return {row.key: row.verdict for row in one.rows}


def test_interleaved_cases_are_compared_round_by_round(tmp_path: Path) -> None:
    path = record(tmp_path / "s", cases=TWO, factor=SLOW_VISION)
    one = only(compare([side(path)]))
    assert one.method == "paired rounds"
    assert verdicts(one) == {
        "wall": "slower",
        "frames": "same",
        "frames.decode_frames": "same",
        "encode": "slower",
        "encode.preprocess": "same",
        "encode.vision_tower": "slower",
        "generate": "same",
        "generate.prefill": "same",
        "generate.decode": "same",
        "ttft": "slower",
        "tpot": "same",
        "itl": "same",
        "tokens_per_second": "same",
        "frames_per_second": "same",
    }
    vision, whole = one.row("encode.vision_tower"), one.row("wall")
    assert vision is not None
    assert whole is not None
    assert vision.effect == pytest.approx(1.0, abs=0.02)
    assert vision.change == pytest.approx(20 * MS, rel=0.03)
    assert whole.n == 20
    assert one.slower
    assert re.fullmatch(r"b is 2[01] % slower than a: step 2 \+(19|20)\.\d ms \(vision tower\)\.", one.sentence)


def test_the_other_way_round_is_the_mirror_image(tmp_path: Path) -> None:
    path = record(tmp_path / "s", cases=TWO, factor=SLOW_VISION, noise=0.02)
    a, b = side(path, case="a"), side(path, case="b")
    forth, back = only(compare([a, b])), only(compare([b, a]))
    assert {key: MIRRORED.get(verdict, verdict) for key, verdict in verdicts(forth).items()} == verdicts(back)
    for row, other in zip(forth.rows, back.rows, strict=True):
        assert (row.a, row.b, row.n, row.p, row.needed) == (other.b, other.a, other.n, other.p, other.needed)
        assert row.low is not None
        assert other.high is not None
        assert (1 + row.low) * (1 + other.high) == pytest.approx(1)


def test_a_session_is_the_same_as_itself(tmp_path: Path) -> None:
    path = record(tmp_path / "s")
    one = only(compare([side(path), side(path)]))
    assert set(verdicts(one).values()) == {"same"}
    assert not one.slower


def test_rates_turn_round_what_faster_means(tmp_path: Path) -> None:
    path = record(tmp_path / "s", cases=TWO, factor={"b": {"generate.decode": 1.25}})
    row = only(compare([side(path)])).row("tokens_per_second")
    assert row is not None
    assert (row.verdict, row.effect) == ("slower", pytest.approx(-0.2, abs=0.01))
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.effect < row.high


def test_three_sessions_a_side_make_the_session_the_unit(tmp_path: Path) -> None:
    """Sessions differ by 1 % among themselves: what 20 runs of one show is not what the next one will."""
    base = [1.0, 1.01, 0.99]
    a, b, c = (
        [record(tmp_path / f"{name}{i}", seed=10 * k + i, session_factor=factor * of) for i, factor in enumerate(base)]
        for k, (name, of) in enumerate((("a", 1.0), ("b", 1.1), ("c", 1.012)))
    )
    slow, unclear = compare([side(*a), side(*b), side(*c)])
    assert (slow.method, slow.verdict, slow.rows[0].n) == ("sessions", "slower", 3)
    assert unclear.verdict == "inconclusive"
    assert unclear.rows[0].needed is not None
    assert unclear.rows[0].needed > 3


def test_a_single_session_a_side_claims_little_and_says_so(tmp_path: Path) -> None:
    a = record(tmp_path / "a", seed=1)
    two = record(tmp_path / "two", seed=2, session_factor=1.02)
    ten = record(tmp_path / "ten", seed=3, session_factor=1.10)
    small, large = compare([side(a), side(two), side(ten)])
    assert (small.method, small.verdict, small.slower) == ("single session", "inconclusive", False)
    assert "single session" in small.sentence
    assert large.verdict == "slower"
    assert "(single session)" in large.sentence
    # On a machine whose identical sessions differ by 5 %, 10 % is nothing.
    wide = compare([side(a), side(ten)], spread={"wall": 0.05})
    assert (only(wide).verdict, only(wide).spread) == ("inconclusive", 0.05)


WITHOUT_DECODE = {stage: typical for stage, typical in STAGES.items() if stage != "encode.preprocess"}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"frames": 8}, "frames: 4 against 8"),
        ({"tokens": 5}, "new tokens: 4 against 5"),
        ({"model": {"dtype": "float32"}}, "dtype: float16 against float32"),
        ({"model": {"digest": "e" * 64}}, "model digest: dddddddddddddddddddd against eeeeeeeeeeeeeeeeeeee"),
        ({"model": {"revision": "r2"}}, "model revision: r1 against r2"),
        ({"model": {"extra": {"quantization": "int4"}}}, "quantization: int8 against int4"),
        ({"stages": WITHOUT_DECODE}, "stage map: only A has encode.preprocess"),
        ({"header": {"provenance": "simulated"}}, "simulated against real: a model of hardware is no measurement"),
        ({"rounds": 0}, "b has no measured run of a"),
    ],
)
def test_an_unfair_comparison_is_refused_with_its_reason(tmp_path: Path, other: dict[str, Any], reason: str) -> None:
    base = {"revision": "r1", "extra": {"quantization": "int8"}}
    a = record(tmp_path / "a", model=base)
    b = record(tmp_path / "b", **(other | {"model": base | other.get("model", {})}))
    one = only(compare([side(a), side(b)]))
    assert reason in one.reasons
    assert one.verdict == "not comparable"
    assert set(verdicts(one).values()) == {"not comparable"}
    assert not one.slower
    assert one.sentence.startswith("b cannot be compared with a: ")


def test_sessions_without_any_run_are_refused_too(tmp_path: Path) -> None:
    a, b = record(tmp_path / "a", rounds=0), record(tmp_path / "b", rounds=0)
    one = only(compare([side(a), side(b)]))
    assert one.reasons == ("a has no measured run of a", "b has no measured run of a")
    for form in (report.as_text, report.as_markdown, report.as_json):
        assert "no measured run" in form([one])


def test_what_may_differ_is_told(tmp_path: Path) -> None:
    a = record(tmp_path / "a", model={"attention": "sdpa"})
    b = record(tmp_path / "b", model={"attention": "eager"}, header={"provenance": "imported"})
    one = only(compare([side(a), side(b)]))
    assert one.reasons == ()
    assert "attention: sdpa against eager" in one.notes
    assert any(note.startswith("imported against measured") for note in one.notes)


def test_what_a_session_sweeps_is_the_question_not_a_reason_to_refuse(tmp_path: Path) -> None:
    cases = {"f4": {"frames": 4, "batch": 1}, "f8": {"frames": 8, "batch": 1}}
    path = record(tmp_path / "s", cases=cases)
    one = only(compare([side(path)]))
    assert one.reasons == ()
    assert "the cases differ in frames (4 → 8)" in one.notes


def test_a_setting_of_a_case_is_told_and_its_dtype_has_to_be_equal(tmp_path: Path) -> None:
    cases = {name: {"frames": 4, "attention": name} for name in ("sdpa", "eager")}
    swept = record(tmp_path / "swept", cases=cases)
    one = only(compare([side(swept)]))
    assert (one.reasons, one.notes) == ((), ("the cases differ in attention (sdpa → eager)",))
    # Of two sessions: other attention is a difference to know of, another dtype is another computation.
    other = record(tmp_path / "other", cases={"half": {"frames": 4, "attention": "eager", "dtype": "bfloat16"}})
    apart = only(compare([side(swept, case="sdpa"), side(other, case="half")]))
    assert apart.reasons == ("dtype: float16 against bfloat16",)
    assert "attention: sdpa against eager" in apart.notes


def test_a_setting_that_changes_what_is_said_is_told(tmp_path: Path) -> None:
    """A compiled step may round otherwise: its time compares, and that its answer is another is to be known."""
    plain, compiled = "f4-dynamic-uncompiled", "f4-static-compiled"
    cases = {
        plain: {"frames": 4, "cache": "dynamic", "compile": "off"},
        compiled: {"frames": 4, "cache": "static", "compile": "on"},
    }
    differs = "the cases differ in cache (dynamic → static), compile (off → on)"
    same = only(compare([side(record(tmp_path / "same", cases=cases))]))
    assert (same.reasons, same.notes) == ((), (differs,))
    other = only(compare([side(record(tmp_path / "other", cases=cases, said={compiled: 9}))]))
    assert other.reasons == ()
    assert other.notes == (differs, "the generated tokens differ, in equal number")
    # Of other frames something else is said anyway.
    frames = {"f4": {"frames": 4}, "f8": {"frames": 8}}
    assert "tokens" not in "".join(only(compare([side(record(tmp_path / "f", cases=frames, said={"f8": 9}))])).notes)
    # Between sessions a loaded model's cache and compilation are differences to know of.
    loaded = [
        record(tmp_path / how, model={"extra": {"cache": cache, "compile": how}})
        for how, cache in (("off", "dynamic"), ("on", "static"))
    ]
    apart = only(compare([side(path) for path in loaded]))
    assert apart.reasons == ()
    assert {"cache: dynamic against static", "compile: off against on"} <= set(apart.notes)


def test_clocks_that_differ_add_cycles(tmp_path: Path) -> None:
    a = record(tmp_path / "a", clock=2000, utilization=90)
    b = record(tmp_path / "b", clock=1000, utilization=60, session_factor=2.0, seed=1)
    one = only(compare([side(a), side(b)]))
    assert any("SM clock 2000 against 1000 MHz" in note for note in one.notes)
    vision, host = one.row("encode.vision_tower"), one.row("encode.preprocess")
    assert vision is not None
    assert host is not None
    assert vision.verdict == "slower"
    assert vision.cycles == pytest.approx(0, abs=0.01)
    assert host.cycles is None
    assert "GPU utilization −30 points" in one.sentence


def test_a_stage_that_the_timer_cannot_tell_is_no_verdict(tmp_path: Path) -> None:
    stages = STAGES | {"encode.h2d": (0.004, "device")}  # 4 µs: eight ticks of an event pair
    path = record(tmp_path / "s", cases=TWO, stages=stages, factor={"b": {"encode.h2d": 1.5}})
    row = only(compare([side(path)])).row("encode.h2d")
    assert row is not None
    assert (row.verdict, row.reason, row.effect) == ("inconclusive", "below timer resolution", None)


def test_sides_without_a_case_in_common_are_a_clear_error(tmp_path: Path) -> None:
    a = record(tmp_path / "a", cases={"f1": {"frames": 1}, "f2": {"frames": 2}})
    b = record(tmp_path / "b", cases={"f4": {"frames": 4}, "f8": {"frames": 8}})
    with pytest.raises(ValueError, match="no case in common: a has f1, f2; b has f4, f8"):
        compare([side(a), side(b)])
    with pytest.raises(ValueError, match="a has no case f9: f1, f2"):
        compare([side(a, case="f9"), side(b)])
    with pytest.raises(ValueError, match="which case is f1 to be compared with"):
        compare([side(a, case="f1"), side(b)])
    assert only(compare([side(a, case="f1"), side(b, case="f4")])).case_b == "f4"


def test_the_spread_is_what_identical_sessions_differ_by(tmp_path: Path) -> None:
    factors = [0.96, 1.04, 1.0, 0.98, 1.02]
    paths = [record(tmp_path / f"s{i}", session_factor=of, seed=i, noise=0.001) for i, of in enumerate(factors)]
    spread = spread_between([view(path) for path in paths])
    # Standard deviation of the factors (3.16 %) times √2.
    assert spread["wall"] == pytest.approx(0.0447, rel=0.05)
    assert set(spread) >= {"wall", "encode", "encode.vision_tower", "ttft", "tokens_per_second"}
    assert spread_between([view(path) for path in paths[:2]]) == {}


def test_cases_that_failed_early_are_still_described(tmp_path: Path) -> None:
    """The last schedule has only the cases that still took part."""
    path = record(tmp_path / "s", cases=TWO)
    from llava_tui.session.writer import StreamWriter

    stream = StreamWriter(path / "events.jsonl")
    stream.write(events.Schedule(t=10**12, cases=[events.Case("b", TWO["b"])], rounds=20, runs=40))
    stream.close()
    one = only(compare([side(path, case="a"), side(path, case="b")]))
    assert one.reasons == ()


def test_whole_simulated_sessions_raise_no_false_alarm() -> None:
    """Neighbouring runs of a session with drift and spikes, given to A or B by a coin: the same by construction."""
    claims = found = 0
    for seed in range(12):
        plan = {"pipeline": "simulated", "frames": [1], "new_tokens": [4], "rounds": 40, "warmup": 1, "seed": seed}
        of = measures(simulated_session(from_dict(plan | {"faults": ["drift=2%", "spikes=5%"]})).now(), "f1-b1-n4")
        coin = np.random.default_rng(seed).integers(0, 2, 20)
        a, b = 2 * np.arange(20) + coin, 2 * np.arange(20) + 1 - coin
        for effect in (1.0, 1.02):
            estimates = [paired(times[a], times[b] * effect) for times in (of.stages[step] for step in of.steps)]
            known = [one for one in estimates if one is not None]
            said = [decide(one, p, 3).verdict for one, p in zip(known, holm([one.p for one in known]), strict=True)]
            assert len(said) == 3
            if effect == 1.0:
                claims += sum(verdict in MIRRORED for verdict in said)
            else:
                found += said.count("slower")
    assert claims == 0
    assert found >= 34  # of 36


def test_the_package_compares_timelines(tmp_path: Path) -> None:
    timelines = [lt.open(record(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    one = only(lt.compare(*timelines, delta=0.02))
    assert (one.a, one.b, one.method, one.delta) == ("a", "b", "single session", 0.02)


def test_cases_that_did_not_interleave_are_compared_with_less_to_claim_and_that_is_said(tmp_path: Path) -> None:
    """Each was measured on a model of its own, one after the other: no round pairs them."""
    cases = {name: {"frames": 4, "batch": 1, "new_tokens": 4, "quantization": name} for name in ("none", "bnb-4bit")}
    far, near = {"bnb-4bit": {"generate.decode": 2.0}}, {"bnb-4bit": {"generate.decode": 1.03}}
    apart = view(record(tmp_path / "apart", cases=cases, factor=far, apart=True))
    (found,) = compare([Side("s", (apart,))])
    assert found.reasons == ()  # what a plan sweeps does not make its cases incomparable
    assert (found.method, found.verdict) == ("single session", "slower")
    assert "slower than none (not interleaved)" in found.sentence
    assert any("each on a model of its own" in note for note in found.notes)
    reason = badge(apart, "none").named("not interleaved")
    assert reason is not None
    assert reason.level == "note"
    assert "2 groups, one in memory after the other: none; then bnb-4bit" in "\n".join(head(apart))

    # What paired rounds would decide is not claimed of them.
    small = {"cases": cases, "factor": near, "noise": 0.001}
    (paired_,) = compare([Side("s", (view(record(tmp_path / "paired", **small)),))])
    (unpaired,) = compare([Side("s", (view(record(tmp_path / "unpaired", **small, apart=True)),))])
    assert (paired_.method, paired_.verdict) == ("paired rounds", "slower")
    assert unpaired.verdict == "inconclusive"
    assert "not interleaved" in unpaired.sentence
    assert badge(view(tmp_path / "paired"), "none").named("not interleaved") is None


def test_loads_that_are_not_well_formed_are_left_out(tmp_path: Path) -> None:
    odd = [
        {"group": [0], "cases": ["a"]},
        {"group": 0, "cases": 3},
        {"group": 1, "cases": [["a"]]},
        {"cases": ["a"]},
        4,
    ]
    seen = view(record(tmp_path / "odd", model={"extra": {"loads": odd}}))
    assert (loads.loads(seen), loads.group_of(seen, "a"), loads.told(seen)) == ([], None, "")
