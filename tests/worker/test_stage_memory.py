"""Memory by stage: whose it was, and what the kernel and the allocator say of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llava_tui.events import StageInfo
from llava_tui.pipelines.base import LLAVA_STAGES
from llava_tui.worker.clock import SimulatedClock
from llava_tui.worker.recorder import Recorder, Spans
from llava_tui.worker.stage_memory import AllocatorPeaks, ResidentSet, meter

TREE = (
    StageInfo("a", "a"),
    StageInfo("a.x", "x"),
    StageInfo("a.x.deep", "deep"),
    StageInfo("a.y", "y"),
    StageInfo("b", "b"),
    StageInfo("b.z", "z"),
)
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


class StandIn:
    """torch.cuda as far as its allocator's statistics go: the one thing that only a driver has."""

    def __init__(self) -> None:
        self.now = self.peak = self.kept = 0
        self.asked = 0
        self.known = True

    def use(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)
        self.kept = max(self.kept, self.now)

    def memory_stats_as_nested_dict(self, device: str) -> dict[str, Any]:
        assert device == "cuda:1", "of the device that the model is on"
        self.asked += 1
        if not self.known:
            return {}
        return {"allocated_bytes": {"all": {"peak": self.peak}}, "reserved_bytes": {"all": {"peak": self.kept + 1000}}}

    def reset_peak_memory_stats(self, device: str) -> None:
        self.peak = self.now


def by_stage(spans: Spans, column: str) -> dict[str, int | None]:
    return dict(zip(spans.stages, getattr(spans, column), strict=True))


def test_allocator_peaks_belong_to_the_stage_and_its_parents() -> None:
    torch_cuda = StandIn()
    recorder = Recorder(TREE, SimulatedClock(0), lambda: None, meter=AllocatorPeaks(torch_cuda, "cuda:1"))
    torch_cuda.use(10)
    recorder.start(1)
    recorder.begin("a")
    recorder.begin("a.x")
    torch_cuda.use(50)
    torch_cuda.use(-50)
    recorder.end("a.x")
    recorder.begin("a.y")
    before = torch_cuda.asked
    for _ in range(3):  # Again and again without another stage between.
        recorder.end("a.y")
        recorder.begin("a.y")
        torch_cuda.use(5)
    recorder.end("a.y")
    assert torch_cuda.asked == before, "a stage that goes on does not cost a question a token"
    recorder.end("a")
    recorder.begin("b")
    recorder.end("b")
    spans = recorder.finish()
    assert by_stage(spans, "allocated") == {"a": 60, "a.x": 60, "a.x.deep": None, "a.y": 25, "b": 25, "b.z": None}
    assert spans.reserved[0] == 1060
    assert (spans.rss_stages, spans.rss_peaks) == ([], [])

    recorder.start(2)
    recorder.begin("b")
    recorder.end("b")
    again = recorder.finish()
    assert by_stage(again, "allocated")["a"] is None, "the next run remembers nothing of it"
    assert by_stage(again, "allocated")["b"] == 25, "what is still held counts, the last run's peak does not"


def test_before_its_first_allocation_an_allocator_has_nothing() -> None:
    torch_cuda = StandIn()
    torch_cuda.known = False
    assert AllocatorPeaks(torch_cuda, "cuda:1").take() == (0, 0)


def test_a_run_that_dies_says_what_was_held_until_then_and_where_it_was() -> None:
    """A stage that raises is ended by its context, the tower's hook is not called: both leave the last that began."""
    for closes in (True, False):
        torch_cuda = StandIn()
        recorder = Recorder(LLAVA_STAGES, SimulatedClock(0), lambda: None, meter=AllocatorPeaks(torch_cuda, "cuda:1"))
        recorder.start(1)
        recorder.begin("encode")
        recorder.begin("encode.vision_tower")
        torch_cuda.use(700)
        if closes:
            recorder.end("encode.vision_tower")
            recorder.end("encode")
        spans = recorder.finish()
        assert spans.last == "encode.vision_tower"
        assert by_stage(spans, "allocated")["encode.vision_tower"] == 700


@linux
def test_what_a_stage_took_for_a_moment_is_its_peak_and_not_the_next_ones() -> None:
    """In a process of its own: RSS is the whole process's."""
    program = """
import json, mmap
from llava_tui.worker.clock import HostClock
from llava_tui.worker.recorder import Recorder
from llava_tui.worker.stage_memory import host_meter
from llava_tui.events import StageInfo
tree = [StageInfo("a", "a"), StageInfo("a.x", "x"), StageInfo("a.y", "y"), StageInfo("b", "b")]
recorder = Recorder(tree, HostClock(), lambda: None, meter=host_meter())
def take(mib):
    area = mmap.mmap(-1, mib << 20)
    for page in range(0, mib << 20, mmap.PAGESIZE):
        area[page] = 1
    return area
recorder.start(1)
recorder.begin("a")
recorder.begin("a.x"); held = take(64); gone = take(200); gone.close(); recorder.end("a.x")
recorder.begin("a.y"); more = take(32); recorder.end("a.y")
recorder.end("a")
recorder.begin("b"); held.close(); recorder.end("b")
spans = recorder.finish()
print(json.dumps([spans.rss_stages, spans.rss_peaks, spans.allocated]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    left, peaks, allocated = json.loads(done.stdout)
    mib, slack = 1 << 20, 8 << 20
    a, x, y, b = left
    assert allocated == []
    assert y - x == pytest.approx(32 * mib, abs=slack)
    assert a == y
    assert y - b == pytest.approx(64 * mib, abs=slack)
    if peaks:  # where the kernel lets them be reset
        assert peaks[1] - x == pytest.approx(200 * mib, abs=slack)
        assert peaks[0] == peaks[1], "a step's peak is its highest stage's"
        assert peaks[2] - y == pytest.approx(0, abs=slack)


def proc(folder: Path, status: str, clear_refs: bool) -> str:
    (folder / "status").write_text(status)
    if clear_refs:
        (folder / "clear_refs").write_text("")
    return str(folder)


def test_without_leave_to_reset_it_there_are_no_peaks(tmp_path: Path) -> None:
    told = "VmHWM:\t  9000 kB\nVmRSS:\t  5000 kB\n"
    resident = ResidentSet(proc(tmp_path, told, clear_refs=False))
    assert resident.take() == (None, 5000 * 1024), "the process's highest ever is no stage's peak"
    resident.close()
    resident = ResidentSet(proc(tmp_path, told, clear_refs=True))
    assert resident.take() == (9000 * 1024, 5000 * 1024)
    assert (tmp_path / "clear_refs").read_text().startswith("5"), "VmHWM is reset"
    resident.close()


def test_a_kernel_that_tells_nothing_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    with pytest.raises(OSError):
        ResidentSet(proc(tmp_path, "Name: python\n", clear_refs=True))
    with pytest.raises(OSError):
        ResidentSet(str(tmp_path / "nothing"))
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_simulation_tells_its_own_memory() -> None:
    torch_cuda = StandIn()
    own = AllocatorPeaks(torch_cuda, "cuda:1")
    assert meter("simulated", SimpleNamespace(allocator=own)) is own  # type: ignore[arg-type]
    assert meter("simulated", SimpleNamespace()) is None  # type: ignore[arg-type]


@linux
def test_reading_a_runs_stages_costs_less_than_a_thousandth_of_a_second() -> None:
    """A LLaVA's run leaves a stage some fifteen times; the shortest run that is worth profiling takes 0.1 s."""
    resident = ResidentSet()
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter_ns()
        for _ in range(15):
            resident.take()
        best = min(best, time.perf_counter_ns() - begin)
    resident.close()
    assert best < 1e6


@pytest.mark.gpu
@pytest.mark.models
def test_on_a_gpu_a_stages_peak_is_what_its_tensors_took() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    found = meter("cuda:0", SimpleNamespace())  # type: ignore[arg-type]
    assert found is not None
    recorder = Recorder(TREE, SimulatedClock(0), lambda: None, meter=found)
    base = torch.cuda.memory_allocated()
    recorder.start(1)
    held = defaultdict(list)
    for path, size in (("a.x", 64 << 20), ("a.y", 0), ("b.z", 16 << 20)):
        recorder.begin(path.split(".")[0])
        recorder.begin(path)
        torch.empty(size, dtype=torch.uint8, device="cuda:0")  # given back at once
        held[path].append(torch.empty(size // 4, dtype=torch.uint8, device="cuda:0"))
        recorder.end(path)
        recorder.end(path.split(".")[0])
    spans = recorder.finish()
    allocated = by_stage(spans, "allocated")
    assert allocated["a.x"] - base >= 64 << 20  # type: ignore[operator]
    assert (16 << 20) <= allocated["a.y"] - base < (32 << 20)  # type: ignore[operator]
    assert (32 << 20) <= allocated["b.z"] - base < (48 << 20)  # type: ignore[operator]
    assert all(kept >= used for kept, used in zip(spans.reserved, spans.allocated, strict=True) if used)
