"""The clocks: pace, control within a slice, and (where there is one) a real accelerator."""

import itertools
import time
from pathlib import Path

import pytest

from llava_tui.pipelines.base import LLAVA_STAGES
from llava_tui.worker.clock import BlindDeviceClock, HostClock, SimulatedClock, torch_clock
from llava_tui.worker.recorder import Recorder


def test_simulated_time_passes_without_real_time():
    clock = SimulatedClock(0, start=0)
    begin = time.monotonic()
    clock.advance(3600 * 10**9)
    assert clock.now() == 3600 * 10**9
    assert time.monotonic() - begin < 1


def test_simulated_time_keeps_pace_and_looks_up_often():
    clock = SimulatedClock(0.5, start=0)
    looks = [time.monotonic()]
    begin = looks[0]
    for _ in range(40):  # 40 × 10 ms, then 200 ms, at half speed.
        clock.advance(10_000_000, lambda: looks.append(time.monotonic()))
    clock.advance(200_000_000, lambda: looks.append(time.monotonic()))
    assert clock.now() == 600_000_000
    assert 0.29 <= time.monotonic() - begin < 1.5
    assert len(looks) >= 40 + 5


def test_what_check_raises_stops_the_clock_there():
    clock = SimulatedClock(1, start=0)

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        clock.advance(10**9, stop)
    assert 0 < clock.now() <= 20_000_000


def test_all_time_is_told_in_order():
    clock = SimulatedClock(0.1, start=5)
    told = []
    clock.passed = lambda start, end: told.append((start, end))
    clock.advance(300_000_000)
    clock.wait(0.01)
    clock.advance(7)
    assert told[0][0] == 5
    assert told[-1][1] == clock.now()
    assert all(a[1] == b[0] for a, b in itertools.pairwise(told))
    assert clock.now() >= 5 + 300_000_000 + 100_000_000, "10 ms of waiting are 100 simulated ones"


def test_a_device_without_timed_events_gives_no_device_times():
    waits = []
    recorder = Recorder(LLAVA_STAGES, BlindDeviceClock(lambda: waits.append(1)), lambda: None)
    recorder.start(1)
    for path in ("frames.decode_frames", "encode.vision_tower"):
        recorder.begin(path)
        recorder.end(path)
    recorder.token([1])
    spans = recorder.finish()
    of = dict(zip(spans.stages, spans.durations, strict=True))
    assert of["frames.decode_frames"] is not None
    assert of["encode.vision_tower"] is None
    assert spans.token_times == []
    assert len(waits) == 2


def test_the_cpu_is_timed_by_the_host():
    clock = HostClock()
    assert clock.on("cpu") is clock
    assert clock.at(clock.device_mark()) <= time.monotonic_ns()


GPU_DRIVER = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))


@pytest.mark.gpu
@pytest.mark.models
@pytest.mark.skipif(not GPU_DRIVER, reason="no NVIDIA driver")
class TestOnAGpu:
    @pytest.fixture
    def torch(self):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return torch

    def test_spans_match_a_kernel_of_known_length(self, torch):
        """``torch.cuda._sleep`` spins for a number of cycles; its length is calibrated against the host's clock."""
        clock = torch_clock("cuda:0")
        cycles = 50_000_000
        torch.cuda._sleep(cycles)
        torch.cuda.synchronize()
        begin = time.monotonic_ns()
        torch.cuda._sleep(cycles)
        torch.cuda.synchronize()
        known = time.monotonic_ns() - begin

        recorder = Recorder(LLAVA_STAGES, clock, lambda: None)
        recorder.start(1)
        launched = time.monotonic_ns()
        recorder.begin("encode")
        for path in ("encode.h2d", "encode.vision_tower", "encode.projector"):
            recorder.begin(path)
            torch.cuda._sleep(cycles)
            recorder.end(path)
        recorder.end("encode")
        launched = time.monotonic_ns() - launched
        spans = recorder.finish()
        of = dict(zip(spans.stages, spans.durations, strict=True))
        begun = dict(zip(spans.stages, spans.starts, strict=True))
        assert launched < known, "launches ran ahead: nothing waited for the device inside the run"
        for path in ("encode.h2d", "encode.vision_tower", "encode.projector"):
            assert of[path] == pytest.approx(known, rel=0.05)
        assert begun["encode.projector"] == pytest.approx(2 * known, rel=0.1)
        assert spans.wall >= 3 * known * 0.95

    def test_the_host_axis_is_met(self, torch):
        clock = torch_clock("cuda:0")
        for _ in range(20):
            clock.start_run()
            before = clock.now()
            mark = clock.device_mark()
            after_launch = clock.now()
            clock.finish_run()
            at = clock.at(mark)
            assert before - clock.uncertainty <= at <= after_launch + 1_000_000 + clock.uncertainty

    def test_allocator_peaks_are_read(self, torch):
        from llava_tui.worker.memory import allocator_peaks

        peaks = allocator_peaks("cuda:0")
        recorder = Recorder(LLAVA_STAGES, torch_clock("cuda:0"), lambda: None, peaks=peaks)
        recorder.start(1)
        recorder.begin("encode.vision_tower")
        block = torch.empty(64 << 20, dtype=torch.uint8, device="cuda:0")
        del block
        recorder.end("encode.vision_tower")
        spans = recorder.finish()
        of = dict(zip(spans.stages, spans.allocated, strict=True))
        assert of["encode.vision_tower"] >= 64 << 20
        assert of["encode"] == of["encode.vision_tower"]
