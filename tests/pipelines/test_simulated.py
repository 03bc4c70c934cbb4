"""The simulator: never better than the hardware allows, and its GPU a plausible one."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llava_tui.events import GpuAbsent, GpuDevice, GpuSample
from llava_tui.pipelines.base import LLAVA_STAGES, LOAD_STAGES, PipelineError
from llava_tui.pipelines.simulated import SimulatedPipeline
from llava_tui.pipelines.simulated_cost import (
    WEIGHTS_BYTES,
    decode_cost,
    prefill_cost,
    projector_cost,
    vision_cost,
)
from llava_tui.pipelines.simulated_gpu import GPUS
from llava_tui.plan import Case, from_dict
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.recorder import Recorder


class Bench:
    """A simulated pipeline with its clock, recorder and telemetry."""

    def __init__(self, **values):
        self.plan = from_dict({"pipeline": "simulated", "time_scale": 0, **values})
        self.clock = SimulatedClock(0, start=10**12)
        self.telemetry = []
        self.pipeline = SimulatedPipeline(self.plan, self.clock, self.telemetry.append)

    def record(self, stages, act):
        recorder = Recorder(stages, self.clock, lambda: None)
        recorder.start(1)
        result = act(recorder)
        spans = recorder.finish()
        return result, dict(zip(spans.stages, spans.durations, strict=True)), spans

    def load(self):
        return self.record(LOAD_STAGES, self.pipeline.load)

    def run(self, frames=1, batch=1, new_tokens=16, seed=0):
        case = Case(frames, batch, new_tokens)
        return self.record(LLAVA_STAGES, lambda probe: self.pipeline.run(case, ("x",), seed, probe))

    def samples(self):
        return [event for event in self.telemetry if isinstance(event, GpuSample)]


@pytest.fixture
def bench():
    made = Bench()
    made.load()
    made.run()  # cold
    return made


def test_costs_are_those_of_the_architecture():
    """The published figures for LLaVA-1.5-7B in fp16 at batch 1, with 64 tokens of text."""
    assert vision_cost(1).flops == pytest.approx(0.382e12, rel=0.005)
    assert projector_cost(1).flops == pytest.approx(0.024e12, rel=0.01)
    for frames, flops in ((1, 8.4e12), (2, 16.1e12), (3, 24.1e12)):
        assert prefill_cost(576 * frames + 64, 1).flops == pytest.approx(flops, rel=0.01)
    assert decode_cost(0, 1).bytes == pytest.approx(13.21e9, rel=0.001)
    assert (decode_cost(1000, 1).bytes - decode_cost(0, 1).bytes) / 1000 == pytest.approx(0.524e6, rel=0.001)
    assert decode_cost(0, 1).floor_ns(GPUS["h100"]) == pytest.approx(4.0e6, rel=0.02)
    assert prefill_cost(3 * 576 + 64, 1).floor_ns(GPUS["rtx-4090"]) == pytest.approx(146e6, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(GPUS)), st.integers(1, 6), st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**31 - 1)
)
def test_never_faster_than_the_roofline(gpu, frames, batch, new_tokens, seed):
    assume(gpu != "t4" or frames * batch <= 3)  # it holds no more
    made = Bench(simulated_gpu=gpu)
    made.load()
    result, of, spans = made.run(frames, batch, new_tokens, seed)
    board, prompt = GPUS[gpu], result.prompt_tokens
    assert of["encode.vision_tower"] > vision_cost(frames * batch).floor_ns(board)
    assert of["encode.projector"] > projector_cost(frames * batch).floor_ns(board)
    assert of["generate.prefill"] > prefill_cost(prompt, batch).floor_ns(board)
    decode = sum(decode_cost(prompt + index, batch).floor_ns(board) for index in range(1, new_tokens))
    assert of["generate.decode"] >= decode
    assert len(spans.token_times) == new_tokens
    assert [len(ids) for ids in result.token_ids] == [new_tokens] * batch
    assert result.image_tokens == 576 * frames
    assert result.frames == frames * batch


def test_frames_are_an_effect_on_prefill_above_all(bench):
    _, one, _ = bench.run(frames=1)
    _, four, _ = bench.run(frames=4)
    more = {stage: four[stage] - one[stage] for stage in ("encode.vision_tower", "generate.prefill")}
    assert more["generate.prefill"] > 10 * more["encode.vision_tower"]


def test_noise_is_small_and_seeded(bench):
    walls = [bench.run(seed=seed)[2].wall for seed in range(40)]
    assert bench.run(seed=7)[2].wall == walls[7]
    spread = np.std(np.log(walls))
    assert 0.001 < spread < 0.01
    assert len(set(walls)) == 40


def test_the_first_run_is_slower():
    made = Bench()
    made.load()
    cold, warm = made.run()[2].wall, made.run()[2].wall
    assert cold > 1.5 * warm


def test_an_h100_beats_a_4090():
    walls = {}
    for gpu in GPUS:
        made = Bench(simulated_gpu=gpu)
        made.load()
        made.run()
        walls[gpu] = made.run(frames=3)[2].wall
    assert walls["h100"] < walls["rtx-4090"]


def test_what_does_not_fit(bench):
    assert bench.pipeline.check_case(Case(7, 1, 16)) == ""
    assert "at most 7 frames fit" in bench.pipeline.check_case(Case(8, 1, 16))
    assert "fewer new tokens" in bench.pipeline.check_case(Case(1, 1, 4000))
    with pytest.raises(MemoryError, match=r"GiB needed, 79\.6 GiB on the NVIDIA H100"):
        bench.run(frames=7, batch=64)
    assert bench.pipeline.telemetry.worker_memory == WEIGHTS_BYTES, "what the run held is given back"


def test_another_architecture_is_refused():
    with pytest.raises(PipelineError, match="the simulator knows"):
        Bench(model="gpt-2").load()


def test_it_says_that_it_is_simulated(bench):
    facts, _, _ = Bench().load()
    assert "simulated" in facts.device_name
    assert facts.extra["simulated"] is True
    (device,) = [event for event in bench.telemetry if isinstance(event, GpuDevice)]
    assert device.source == "simulated"
    assert "simulated" in device.name
    (absent,) = [event for event in bench.telemetry if isinstance(event, GpuAbsent)]
    empty = {field for field in GpuSample.__struct_fields__ if all(getattr(s, field) is None for s in bench.samples())}
    assert set(absent.reasons) == empty, "every field has a value or a reason"


def test_telemetry_comes_at_its_rate_on_the_simulated_clock(bench):
    times = [sample.t for sample in bench.samples()]
    assert {b - a for a, b in itertools.pairwise(times)} == {100_000_000}
    assert bench.clock.now() - times[-1] < 100_000_000
    fast = Bench(sample_hz=50)
    fast.load()
    assert {b.t - a.t for a, b in itertools.pairwise(fast.samples())} == {20_000_000}


def test_telemetry_follows_what_runs(bench):
    idle_power = GPUS["h100"].idle_w * 1000
    first = bench.samples()[0]
    assert first.utilization == 0
    assert first.power_mw == pytest.approx(idle_power, rel=0.05)
    assert first.worker_memory is None
    before = len(bench.samples())
    for _ in range(6):
        bench.run(frames=4, new_tokens=64)
    busy = bench.samples()[before:]
    assert np.mean([sample.utilization for sample in busy]) > 60
    assert all(0 <= sample.utilization <= 100 and 0 <= sample.memory_utilization <= 100 for sample in busy)
    assert all(sample.worker_memory >= WEIGHTS_BYTES for sample in busy)
    assert max(sample.worker_memory for sample in busy) > WEIGHTS_BYTES + 1_000_000_000, "the cache grows"
    assert all(sample.memory_used > sample.worker_memory for sample in busy)
    assert all(idle_power < sample.power_mw <= 1.02 * sample.power_limit_mw for sample in busy)
    assert busy[-1].temperature_c > first.temperature_c
    assert busy[-1].sm_clock_mhz > 3 * first.sm_clock_mhz
    before = len(bench.samples())
    bench.clock.advance(5 * 10**9)
    rest = bench.samples()[before:]
    assert rest[-1].utilization == 0
    assert rest[-1].power_mw == pytest.approx(idle_power, rel=0.05)
    assert rest[-1].temperature_c <= busy[-1].temperature_c


def test_energy_is_the_integral_of_power():
    made = Bench(sample_hz=100)
    made.load()
    for _ in range(5):
        made.run(frames=2, new_tokens=64)
    samples = made.samples()
    t = np.array([sample.t for sample in samples]) / 1e9
    power = np.array([sample.power_mw for sample in samples]) / 1e3
    joules = (samples[-1].energy_mj - samples[0].energy_mj) / 1e3
    assert joules == pytest.approx(float(np.sum((power[1:] + power[:-1]) / 2 * np.diff(t))), rel=0.02)
    assert all(a.energy_mj <= b.energy_mj for a, b in itertools.pairwise(samples))


def test_text_and_ids_agree(bench):
    result, _, _ = bench.run(batch=2, new_tokens=200)
    assert result.text == [bench.pipeline.detokenize(ids) for ids in result.token_ids]
    assert len(result.text[0].split()) == 200


def test_what_it_holds_adds_up_as_a_real_models_does():
    """Weights by part, the cache against its formula, and a peak that is not below both together."""
    bench = Bench()
    model, _, _ = bench.load()
    assert sum(part["parameters"] for part in model.extra["modules"]) == model.parameters
    assert sum(part["bytes"] for part in model.extra["modules"]) == model.weights_bytes
    for frames, batch in ((1, 1), (4, 3)):
        bench.pipeline.allocator.take()
        result, _, _ = bench.run(frames, batch, new_tokens=64)
        allocated, reserved = bench.pipeline.allocator.take()
        cached = result.facts["kv_cache_bytes"]
        assert cached == result.facts["kv_cache_predicted"] == batch * (result.prompt_tokens + 63) * 524_288
        assert model.weights_bytes + cached < allocated <= reserved
        assert cached < bench.pipeline.memory_free
