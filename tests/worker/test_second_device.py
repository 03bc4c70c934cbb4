"""A model on the second of two accelerators is timed there, and the driver's GPU is found by its own name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llava_tui.pipelines import devices as room
from llava_tui.worker.clock import DeviceClock, HostClock

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
