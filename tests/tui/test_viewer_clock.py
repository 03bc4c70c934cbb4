from __future__ import annotations

from llava_tui.tui.clock import LiveClock


class Monotonic:
    def __init__(self) -> None:
        self.ns = 1_000_000

    def __call__(self) -> int:
        return self.ns


def test_live_time_is_the_newest_event_and_what_was_waited_since() -> None:
    monotonic = Monotonic()
    clock = LiveClock(500, monotonic=monotonic)
    monotonic.ns += 30
    assert clock.now() == 530
    clock.saw(600)
    assert clock.now() == 600
    monotonic.ns += 5
    assert clock.now() == 605


def test_live_time_never_goes_back() -> None:
    monotonic = Monotonic()
    clock = LiveClock(0, monotonic=monotonic)
    monotonic.ns += 100
    assert clock.now() == 100
    clock.saw(40)  # written late
    assert clock.now() == 100
    monotonic.ns += 70
    assert clock.now() == 110


def test_a_simulated_session_runs_at_its_own_pace() -> None:
    monotonic = Monotonic()
    fast, unknown = LiveClock(0, rate=4.0, monotonic=monotonic), LiveClock(0, rate=0.0, monotonic=monotonic)
    monotonic.ns += 100
    assert fast.now() == 400
    assert unknown.now() == 0
