"""GPU telemetry end to end: the real sampler process, the real pynvml, a stand-in for the driver's library."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest
from sampler_process import Start

from llava_tui.events import GpuDevice, GpuProcess, GpuSample
from llava_tui.telemetry.nvml import NEVER, RETRY_NS, Reading, explain

Build = Callable[..., Path]
GIB = 1 << 30


def test_two_gpus_are_read_field_by_field(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin()).until(lambda s: len(s.samples(1)) >= 5)
    assert sampler.end() == 0

    large, small = sampler.device(0), sampler.device(1)
    assert (large.name, large.uuid[-1], large.memory_total) == ("Stand-in L", "1", 80 * GIB)
    assert large.memory_reserved == GIB
    assert (large.driver, large.cuda, large.pcie, large.mig, large.ecc) == (
        "550.54.14",
        "12.4",
        "gen 5 ×16",
        False,
        True,
    )
    assert (small.name, small.pcie, small.mig, small.ecc) == ("Stand-in S", "gen 4 ×8 of ×16", None, False)

    first, *later = sampler.samples(0)
    assert first == GpuSample(
        t=first.t,
        gpu=0,
        memory_used=2 * GIB,
        utilization=93.0,
        memory_utilization=41.0,
        power_mw=412_345,
        power_limit_mw=700_000,
        energy_mj=first.energy_mj,
        temperature_c=64,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        throttle=4,
        pcie_tx_kbs=1100,
        pcie_rx_kbs=2200,
        processes=[GpuProcess(os.getpid(), 13 * GIB), GpuProcess(4_194_300, None)],
        worker_memory=13 * GIB,
    )
    assert all(sample.processes is None for sample in later), "an unchanged list is not written again"
    assert all(sample.worker_memory == 13 * GIB for sample in later)
    energies = [sample.energy_mj for sample in sampler.samples(0)]
    assert energies == sorted(set(energies)), "the counter is read at every sample"
    assert sampler.absent(0) == [], "nothing is missing on the first"

    assert sampler.samples(1)[0].processes == [], "an empty list is known, not absent"
    (reasons,) = sampler.absent(1)
    assert reasons["energy_mj"] == reasons["mig"] == "not supported by this GPU"
    assert reasons["worker_memory"].startswith("the worker is not listed")
    assert set(reasons) == {"energy_mj", "mig", "worker_memory"}


def test_every_absent_field_has_a_reason_before_its_sample(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin(), "no-permission").until(lambda s: len(s.samples(1)) >= 2)
    optional = [name for name in GpuSample.__struct_fields__ if name not in ("t", "rank", "gpu")]
    reasons: dict[int, dict[str, str]] = {0: {}, 1: {}}
    samples = 0
    for event in sampler.events:
        if hasattr(event, "reasons"):
            reasons[event.gpu] = event.reasons
        elif isinstance(event, GpuSample):
            samples += 1
            assert {name for name in optional if getattr(event, name) is None} <= set(reasons[event.gpu])
    assert samples >= 4
    assert reasons[0] == {"processes": "no permission", "worker_memory": "no permission"}


@pytest.mark.parametrize(
    ("library", "scenario", "reason"),
    [
        (True, "no-driver", "no NVIDIA driver: it is not loaded"),
        (True, "no-gpus", "the NVIDIA driver sees no GPU"),
        (False, "", "no NVIDIA driver: libnvidia-ml.so.1 was not found"),
    ],
)
def test_without_a_driver_it_says_so_once_and_watches_the_host(
    start: Start, build_standin: Build, library: bool, scenario: str, reason: str
) -> None:
    if not library:
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            pass
        else:
            pytest.skip("this machine has NVIDIA's library")
    sampler = start(build_standin() if library else None, scenario).until(lambda s: len(s.host()) >= 3)
    assert sampler.end() == 0
    assert sampler.absent(-1) == [{"*": reason}]
    assert len(sampler.events) == len(sampler.host()) + 1


def test_a_gpu_lost_half_way_is_told_once_and_the_other_goes_on(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin(), "gpu-lost").until(lambda s: any("*" in r for r in s.absent(1)))
    seen = len(sampler.samples(0))
    sampler.until(lambda s: len(s.samples(0)) >= seen + 5)
    assert sampler.end() == 0
    assert len(sampler.samples(1)) >= 1, "what was read before the loss is kept"
    assert sampler.absent(1)[-1] == {"*": "GPU lost: it stopped answering (the kernel log has the cause)"}
    assert [list(r) for r in sampler.absent(1)].count(["*"]) == 1
    lost_at = next(i for i, e in enumerate(sampler.events) if getattr(e, "reasons", {}).get("*"))
    assert not any(isinstance(e, GpuSample) and e.gpu == 1 for e in sampler.events[lost_at:])


def test_pids_of_another_namespace_are_not_taken_for_the_workers(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin(), "container-pids").until(lambda s: len(s.samples(0)) >= 2)
    assert all(sample.worker_memory is None for sample in sampler.samples(0))
    (reasons,) = sampler.absent(0)
    assert list(reasons) == ["worker_memory"]
    assert reasons["worker_memory"].startswith("the worker is not listed")
    processes = sampler.samples(0)[0].processes
    assert processes is not None
    assert [p.pid for p in processes] == [4_194_300, 4_194_301]


def test_an_old_driver_is_asked_the_old_way_or_said_to_be_too_old(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin("-DOLD_DRIVER")).until(lambda s: len(s.samples(0)) >= 2)
    sample = sampler.samples(0)[0]
    assert sample.memory_used == 3 * GIB, "the old form of memory"
    assert sampler.device(0).memory_reserved == 0, "which counts as used what the driver keeps"
    assert sample.throttle == 4, "by the function's old name"
    assert sample.worker_memory == 13 * GIB, "the old form of the process list"
    assert sample.energy_mj is None
    assert sampler.absent(0) == [{"energy_mj": "driver too old for this reading"}]


def test_mig_gives_no_utilization_never_0(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin(), "mig").until(lambda s: len(s.samples(0)) >= 2)
    assert sampler.device(0).mig is True
    sample = sampler.samples(0)[0]
    assert sample.utilization is None
    assert sample.memory_utilization is None
    assert sample.power_mw == 412_345
    (reasons,) = sampler.absent(0)
    assert reasons["utilization"] == reasons["memory_utilization"] == "not available under MIG"
    assert reasons["processes"].startswith("no permission (MIG is on")


def test_undocumented_answers_become_reasons(start: Start, build_standin: Build) -> None:
    """A name that is no UTF-8, an error code that pynvml does not know."""
    sampler = start(build_standin(), "broken").until(lambda s: len(s.samples(0)) >= 2)
    assert sampler.device(0).name == ""
    assert sampler.samples(0)[0].temperature_c == 64
    reasons = sampler.absent(0)[0]
    assert reasons["name"].startswith("unexpected UnicodeDecodeError")
    assert reasons["power_mw"] == "driver error: an error of the stand-in"


def test_a_driver_that_hangs_does_not_keep_the_sampler_alive(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin(), "hang").until(lambda s: any(isinstance(e, GpuDevice) for e in s.events))
    assert sampler.end() == 0


def test_what_a_gpu_will_never_tell_is_asked_once_and_a_passing_failure_again() -> None:
    asked = {"never": 0, "passing": 0}

    def fail(kind: str, code: int) -> tuple[int]:
        asked[kind] += 1
        raise pynvml.NVMLError(code)

    never = Reading(("power_mw",), lambda: fail("never", pynvml.NVML_ERROR_NOT_SUPPORTED))
    passing = Reading(("power_mw",), lambda: fail("passing", pynvml.NVML_ERROR_NO_PERMISSION))
    for t in range(0, 3 * RETRY_NS, RETRY_NS // 10):
        never.read(t)
        passing.read(t)
    assert asked == {"never": 1, "passing": 3}
    assert (never.values, never.reason, never.due) == ((None,), "not supported by this GPU", NEVER)

    passing.ask = lambda: (300,)
    passing.read(4 * RETRY_NS)
    assert (passing.values, passing.reason) == ((300,), "")


def test_every_error_that_pynvml_knows_has_words() -> None:
    codes = [value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")]
    assert len(codes) > 20
    for code in codes:
        try:
            reason, _ = explain(pynvml.NVMLError(code))
        except Exception as lost:  # noqa: BLE001 - the two that mean that the GPU is gone
            reason = str(lost)
            assert code in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
        assert reason.strip(": ")


@pytest.mark.gpu
def test_a_real_driver_is_read(start: Start) -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVIDIA driver to read: {error}")
    begun = time.monotonic_ns()
    sampler = start(None, hz=10).until(lambda s: len(s.samples(0)) >= 5)
    assert sampler.end() == 0
    device = sampler.device(0)
    assert device.name
    assert device.uuid.startswith(("GPU-", "MIG-"))
    samples = sampler.samples(0)
    assert all(begun < sample.t <= time.monotonic_ns() for sample in samples)
    reasons = sampler.absent(0)[-1] if sampler.absent(0) else {}
    for name in ("memory_used", "utilization", "power_mw", "temperature_c", "sm_clock_mhz", "throttle"):
        assert getattr(samples[-1], name) is not None or reasons.get(name), name
    if samples[-1].memory_used is not None and device.memory_total is not None:
        assert 0 < samples[-1].memory_used <= device.memory_total
