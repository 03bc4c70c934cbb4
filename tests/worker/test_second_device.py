"""A model on the second of two accelerators is timed there, and the driver's GPU is found by its own name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llava_tui.pipelines import devices as room
from llava_tui.worker.clock import DeviceClock, HostClock, SeveralDevicesClock

pytestmark = pytest.mark.models


class TwoDevices:
    """Stands in for ``torch.cuda``: each device has a stream with a time of its own, ms. Device 0 stands still."""

    def __init__(self) -> None:
        self.current = 0
        self.times = [0.0, 0.0]
        self.waited: list[int] = []
        devices = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                self.at = (-1, 0.0)

            def record(self, stream: Any = None) -> None:
                device = devices.current if stream is None else stream
                self.at = (device, devices.times[device])

            def synchronize(self) -> None:
                devices.waited.append(self.at[0])

            def elapsed_time(self, end: Event) -> float:
                assert self.at[0] == end.at[0], "events of two devices cannot be compared"
                return end.at[1] - self.at[1]

        self.Event = Event

    def current_device(self) -> int:
        return self.current

    def set_device(self, device: int) -> None:
        self.current = device

    def current_stream(self, device: int | None = None) -> int:
        return self.current if device is None else device

    def synchronize(self, device: int | None = None) -> None:
        self.waited.append(self.current if device is None else device)

    def get_device_properties(self, device: Any) -> Any:
        return SimpleNamespace(uuid=f"1234-{device.index}")


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> TwoDevices:
    import torch

    devices = TwoDevices()
    monkeypatch.setattr(torch, "get_device_module", lambda device: devices)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", devices.get_device_properties)
    return devices


def test_work_is_timed_on_the_device_that_does_it(devices: TwoDevices) -> None:
    clock = HostClock().on("cuda:1")
    assert isinstance(clock, DeviceClock)
    devices.waited.clear()
    clock.start_run()
    first = clock.device_mark()
    devices.times[1] += 5
    last = clock.device_mark()
    clock.finish_run()
    assert clock.between(first, last) == 5_000_000
    assert set(devices.waited) == {1}, "nobody waits for a device that does nothing"


@pytest.mark.parametrize(("wanted", "number"), [("cuda:1", 1), ("cuda", 0), ("auto", 0)])
def test_a_device_is_made_current_and_has_its_number(devices: TwoDevices, wanted: str, number: int) -> None:
    import torch

    device = room.choose(torch, wanted)
    assert str(device) == f"cuda:{number}"
    assert devices.current == number
    assert room.uuid_of(torch, device) == f"1234-{number}"


def test_the_cpu_has_no_number_and_no_gpu() -> None:
    import torch

    device = room.choose(torch, "cpu")
    assert str(device) == "cpu"
    assert room.uuid_of(torch, device) == ""


def test_a_model_on_two_devices_is_timed_by_whichever_is_behind_and_both_are_waited_for(devices: TwoDevices) -> None:
    """The tower computes on one, the language model on the other: by one device's events alone the other's work would
    take no time."""
    clock = HostClock().on("cpu,cuda:0,cuda:1")
    assert isinstance(clock, SeveralDevicesClock)
    devices.waited.clear()
    clock.start_run()
    assert {0, 1} <= set(devices.waited)
    begin = clock.device_mark()
    devices.times[0] += 5
    tower = clock.device_mark()
    devices.times[1] += 30  # has waited for the other's 5 ms
    language = clock.device_mark()
    devices.waited.clear()
    clock.finish_run()
    assert set(devices.waited) == {0, 1}
    slack = 2 * clock.uncertainty + 1_000_000
    assert clock.between(begin, tower) == pytest.approx(5_000_000, abs=slack)
    assert clock.between(begin, language) == pytest.approx(30_000_000, abs=slack)
    assert clock.at(language) > clock.at(tower) > clock.at(begin)  # type: ignore[operator]


def test_devices_named_once_or_not_at_all_need_no_clock_of_several(devices: TwoDevices) -> None:
    assert isinstance(HostClock().on("cpu,cuda:1"), DeviceClock)
    assert type(HostClock().on("cpu")) is HostClock


@pytest.mark.gpu
@pytest.mark.skipif(not any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg")), reason="no NVIDIA driver")
def test_two_real_gpus_are_both_waited_for() -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device at most")
    clock = HostClock().on("cuda:0,cuda:1")
    clock.start_run()
    begin = clock.device_mark()
    with torch.cuda.device(1):
        torch.cuda._sleep(50_000_000)
    end = clock.device_mark()
    clock.finish_run()
    assert (clock.between(begin, end) or 0) > 5_000_000
