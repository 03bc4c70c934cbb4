from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from llava_7b import CONFIG
from made_sessions import MODEL, a100, make

from llava_tui.analysis.peaks import TABLE, Peaks, peaks_of
from llava_tui.analysis.roofline import DECODE_STEP, Roofline, device_of, floor_of, roofline
from llava_tui.analysis.steps import step_table
from llava_tui.analysis.trust import badge
from llava_tui.costs import architecture
from llava_tui.pipelines import simulated_cost
from llava_tui.pipelines.simulated_gpu import GPUS
from llava_tui.plan import Case
from llava_tui.session.timeline import View

ONE = Case(1, 1, 32)


def against(view: View, case: Case = ONE, peaks: Peaks | None = None) -> Roofline:
    return roofline(view, step_table(view, case.id), peaks or peaks_of(device_of(view)))


@pytest.mark.parametrize(
    # The table of docs/advice.md: encode a frame, prefill at 1 and 3 frames, decode; ms.
    ("device", "encode", "prefill_1", "prefill_3", "decode"),
    [
        ("NVIDIA A100-SXM4-80GB", 1.2, 27, 77, 6.7),
        ("NVIDIA H100 80GB HBM3", 0.4, 8.5, 24, 4.0),
        ("NVIDIA GeForce RTX 4090", 2.3, 51, 146, 13.4),
        ("NVIDIA GeForce RTX 3090", 5.4, 118, 339, 14.5),
        ("Tesla T4", 5.9, 129, 370, 42),
    ],
)
def test_floors_are_those_that_the_documentation_tells(
    device: str, encode: float, prefill_1: float, prefill_3: float, decode: float
) -> None:
    peaks = peaks_of(device)
    assert peaks is not None
    made = architecture(CONFIG, "float16", MODEL.parameters)
    flops = peaks.of("float16")
    assert flops is not None
    found = [
        floor_of(cost, flops, peaks.bandwidth)[0] / 1e6
        for cost in (
            made.vision_cost(1), made.prefill_cost(640), made.prefill_cost(1792), made.decode_cost(640),
        )
    ]  # fmt: skip
    assert found == pytest.approx([encode, prefill_1, prefill_3, decode], rel=0.05)


def test_gpt_fasts_own_check_of_the_bandwidth() -> None:
    """They measured 104.9 tok/s with Llama-2-7B and call it 1397 GB/s."""
    made = architecture(CONFIG, "float16", MODEL.parameters)
    assert 104.9 * made.decode_weight_bytes / 1e9 == pytest.approx(1397, rel=0.01)


def test_efficiencies_of_a_session_are_those_it_was_made_with(tmp_path: Path) -> None:
    roof = against(make(tmp_path / "s", [ONE]))
    prefill, step, decode = roof.stage("prefill"), roof.stage(DECODE_STEP), roof.stage("decode")
    assert prefill is not None
    assert step is not None
    assert decode is not None
    assert prefill.mfu == pytest.approx(0.5, rel=0.01)
    assert (prefill.bound, step.bound) == ("compute", "memory")
    assert step.mbu == pytest.approx(0.4, rel=0.01)
    assert decode.mbu == pytest.approx(step.mbu or 0, rel=0.01)
    assert not any(row.impossible for row in roof.stages)
    assert roof.unknown == ()
    assert {row.path.rsplit(".")[-1] for row in roof.stages} == {
        "vision_tower", "projector", "prefill", "decode", DECODE_STEP,
    }  # fmt: skip


def test_what_is_faster_than_physics_is_said_to_be(tmp_path: Path) -> None:
    def hasty(case: Case, round_: int) -> dict[str, float]:
        return a100(case, round_) | {"generate.prefill": 5.0}  # the A100 needs 27 ms at least

    roof = against(make(tmp_path / "s", [ONE], times=hasty))
    assert [row.path for row in roof.stages if row.impossible] == ["generate.prefill"]


def test_quantised_weights_are_no_faster_than_physics(tmp_path: Path) -> None:
    """By the bytes of 4-bit weights: by those of float16 they would be called a timing bug."""
    quick = {"generate.decode": 31 * 2.6}
    plain = make(tmp_path / "plain", [ONE], times=lambda case, round_: a100(case, round_) | quick)
    assert badge(plain, ONE.id).grade == "F"
    model = msgspec.structs.replace(MODEL, extra={"quantization": "bnb-4bit"})
    quantised = make(tmp_path / "q", [ONE], model=model, times=lambda case, round_: a100(case, round_) | quick)
    step = against(quantised).stage(DECODE_STEP)
    assert step is not None
    assert not step.impossible
    assert badge(quantised, ONE.id).named("faster-than-roofline") is None
    # Of what multiplies int8 by int8 no peak is known, and none is invented.
    model = msgspec.structs.replace(MODEL, extra={"quantization": "torchao-int8-dynamic"})
    dynamic = against(make(tmp_path / "d", [ONE], model=model))
    assert any("none of int8 products" in why for why in dynamic.unknown)
    assert {row.floor for row in dynamic.stages} == {None}


def test_unknown_hardware_is_unknown_and_a_measured_one_is_not(tmp_path: Path) -> None:
    model = msgspec.structs.replace(MODEL, device_name="NVIDIA GeForce RTX 4090 Laptop GPU")
    view = make(tmp_path / "s", [ONE], model=model)
    roof = roofline(view, step_table(view, ONE.id), peaks_of(device_of(view)))
    assert roof.peaks is None
    assert any("doctor --measure-peaks" in why for why in roof.unknown)
    row = roof.stage("prefill")
    assert row is not None
    assert (row.floor, row.mfu, row.mbu, row.bound) == (None, None, None, None)
    assert row.flops == pytest.approx(8.4e12, rel=0.01)

    own = Peaks("that laptop", {"float16": 1e14}, 5e11, "measured", measured=True)
    assert peaks_of(device_of(view), {"geforce rtx 4090 laptop gpu": own}) is own


def test_what_a_cache_may_hold_sets_no_bandwidth_floor() -> None:
    text = CONFIG["text_config"] | {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8}
    small = architecture(CONFIG | {"text_config": text}, "float32")
    cost = small.decode_cost(100)
    assert cost.bytes < 512 << 20
    assert floor_of(cost, 1e12, 1e9)[1] == "compute"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3 (simulated)", True),
        ("Tesla V100-SXM2-32GB", True),
        ("nvidia l40s", True),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", False),
        ("NVIDIA GeForce RTX 3090 Ti", False),
        ("AMD EPYC 7763", False),
        ("", False),
    ],
)
def test_devices_are_matched_whole(name: str, known: bool) -> None:
    assert (peaks_of(name) is not None) == known


def test_every_peak_is_plausible_and_has_a_source() -> None:
    for peaks in TABLE.values():
        assert peaks.source
        for dtype in ("float16", "bfloat16", "float32"):
            assert 5e12 < (peaks.of(dtype) or 0) < 2e15
        assert 2e11 < peaks.bandwidth < 1e13
        assert (peaks.of("float32") or 0) < (peaks.of("float16") or 0)


# --- the simulator, which states the same formulas for itself ------------------------------------------------------


@pytest.mark.parametrize("gpu", GPUS)
def test_the_simulators_boards_are_those_of_the_table(gpu: str) -> None:
    board = GPUS[gpu]
    peaks = peaks_of(board.name)
    assert peaks is not None
    assert peaks.of("float16") == pytest.approx(board.flops, rel=0.01)
    assert peaks.bandwidth == pytest.approx(board.bandwidth, rel=0.01)


def test_the_simulators_costs_are_the_derived_ones() -> None:
    made = architecture(CONFIG, "float16", MODEL.parameters)
    for frames in (1, 3):
        assert made.vision_cost(frames).flops == pytest.approx(simulated_cost.vision_cost(frames).flops, rel=1e-3)
        assert made.projector_cost(frames).flops == pytest.approx(simulated_cost.projector_cost(frames).flops, rel=1e-3)
    for batch in (1, 4):
        prefill, theirs = made.prefill_cost(1200, batch), simulated_cost.prefill_cost(1200, batch)
        assert (prefill.flops, prefill.bytes) == pytest.approx((theirs.flops, theirs.bytes), rel=1e-3)
        decode, theirs = made.decode_cost(1200, batch), simulated_cost.decode_cost(1200, batch)
        assert (decode.flops, decode.bytes) == pytest.approx((theirs.flops, theirs.bytes), rel=1e-3)
