"""Every key that moves the monitor's time, on sessions that are over and on live ones. Nobody waits: the test owns the
clock that the picture goes by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from driven import Driven
from screen_sessions import GIB, LOADING, MS, WALL, Recording, S, course, record
from terminal_program import TerminalProgram
from textual.pilot import Pilot

from llava_tui import events
from llava_tui.session.reader import StreamReader
from llava_tui.session.timeline import Timeline
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.transport import Moment, Playback, Transport
from llava_tui.tui.widgets.canvas import LineCanvas

FIRST = LOADING + 1
"""When the first run began; the second did 10 ms after it ended, and so on."""


class Monotonic:
    def __init__(self) -> None:
        self.ns = 5 * S

    def __call__(self) -> int:
        return self.ns


class Replay(Driven[MonitorScreen]):
    """A monitor whose clock is the test's."""

    KIND = MonitorScreen

    def __init__(self, app: LlavaTui, pilot: Pilot[None], monotonic: Monotonic) -> None:
        super().__init__(app, pilot)
        self.monotonic = monotonic

    @property
    def transport(self) -> Transport:
        assert self.screen.transport is not None
        return self.screen.transport

    @property
    def play(self) -> Playback:
        return self.transport.playback()

    @property
    def t(self) -> int:
        return self.play.t

    async def press(self, *keys: str) -> int:  # type: ignore[override]
        """Returns where it is then."""
        await self.pilot.press(*keys)
        return self.t

    async def wait(self, seconds: float) -> None:
        """Time goes by, and is looked at."""
        self.monotonic.ns += int(seconds * S)
        self.screen.tick()
        await self.pilot.pause()

    def log(self) -> str:
        """What it says, however its lines are broken."""
        return " ".join(self.part("log").split())

    def drawn(self) -> dict[str, str]:
        return {str(canvas.id): self.part(str(canvas.id)) for canvas in self.screen.query(LineCanvas)}


@asynccontextmanager
async def replay(path: Path, size: tuple[int, int] = (120, 40), **options: Any) -> AsyncIterator[Replay]:
    monotonic = Monotonic()
    app = LlavaTui(path, fps=20, monotonic=monotonic, **options)
    async with app.run_test(size=size) as pilot:
        shown = Replay(app, pilot, monotonic)
        await shown.until(lambda: shown.screen.transport is not None and "opening" not in shown.part("heading"))
        await shown.until(lambda: size[1] < 9 or bool(shown.part("transport").strip()))
        yield shown


def starts(path: Path) -> list[int]:
    """When runs began, loading included."""
    return [int(t) for t in Timeline.open(path).started["t"]]


# --- a session that is over -----------------------------------------------------------------------------------------


async def test_space_plays_a_session_that_is_over_from_its_start_and_holds(finished: Path) -> None:
    async with replay(finished) as shown:
        assert shown.t == shown.transport.edge
        assert "space play" in shown.part("footer")
        assert " ■ " in shown.part("transport")
        assert await shown.press("space") == 0
        assert "space hold" in shown.part("footer")
        assert "▶ 1×" in shown.part("transport")
        await shown.wait(5)
        assert shown.t == 5 * S
        assert "▸3 generate" in shown.part("steps")
        assert "00:05.0 / 00:19" in shown.part("transport")
        assert "run 0/8" in shown.part("heading")
        await shown.press("space")
        await shown.wait(5)
        assert shown.t == 5 * S
        assert "‖" in shown.part("transport")
        await shown.press("space")
        await shown.wait(60)
        assert shown.t == shown.transport.edge
        assert not shown.play.playing
        assert "run 8/8" in shown.part("heading")
        assert "space play" in shown.part("footer")


async def test_left_and_right_go_ten_seconds_and_digits_a_tenth(finished: Path) -> None:
    async with replay(finished) as shown:
        end = shown.t
        assert await shown.press("left") == end - 10 * S
        assert await shown.press("right") == end
        assert await shown.press("right") == end
        assert await shown.press("left", "left", "left") == 0
        assert await shown.press("right") == 10 * S
        assert [await shown.press(digit) for digit in "0159"] == [0, end // 10, end * 5 // 10, end * 9 // 10]
        assert await shown.press("home") == 0
        assert await shown.press("end") == end


async def test_braces_go_from_run_to_run(finished: Path) -> None:
    began = starts(finished)
    async with replay(finished) as shown:
        assert await shown.press("left_curly_bracket") == began[-1]
        assert await shown.press("left_curly_bracket") == began[-2]
        assert await shown.press("right_curly_bracket") == began[-1]
        assert await shown.press("right_curly_bracket") == began[-1]  # there is none after it
        await shown.press("home")
        assert [await shown.press("right_curly_bracket") for _ in began] == began
        assert "run 8 " in shown.part("run")


async def test_brackets_go_from_step_to_step(finished: Path) -> None:
    scale = 1.01  # of the first run
    async with replay(finished, at=Moment(FIRST + int(600 * MS * scale))) as shown:
        steps = [FIRST + int(at * MS * scale) for at in (500, 100, 0)]
        assert [await shown.press("left_square_bracket") for _ in steps] == steps
        assert "▸1 frames" in shown.part("steps")
        await shown.press("right_square_bracket")
        assert shown.t == steps[1]
        assert "▸2 encode" in shown.part("steps")


async def test_full_stop_and_comma_go_from_event_to_event_and_hold(finished: Path) -> None:
    timeline = Timeline.open(finished)
    names = [name for name in timeline.tables if name not in ("stages", "tokens")]
    times = sorted({int(t) for name in names for t in timeline.tables[name]["t"]})
    async with replay(finished) as shown:
        assert await shown.press("comma") == times[-2]
        assert await shown.press("full_stop") == times[-1]
        assert await shown.press("full_stop") == times[-1]
        await shown.press("home", "space")
        assert shown.play.playing
        assert await shown.press("full_stop", "full_stop", "full_stop") == times[3]
        assert not shown.play.playing


async def test_a_key_comes_to_the_run_before_though_time_goes_on(finished: Path) -> None:
    began = starts(finished)
    async with replay(finished, at=Moment(began[4] + S), speed=1) as shown:
        assert await shown.press("left_curly_bracket") == began[4]
        await shown.wait(0.4)
        assert await shown.press("left_curly_bracket") == began[3]
        await shown.wait(1)
        assert await shown.press("left_curly_bracket") == began[3]
        assert shown.play.playing


async def test_less_and_greater_halve_and_double_the_speed(finished: Path) -> None:
    async with replay(finished, at=Moment(4 * S), speed=1) as shown:
        await shown.press("greater_than_sign", "greater_than_sign")
        assert "▶ 4×" in shown.part("transport")
        await shown.wait(1)
        assert shown.t == 8 * S
        await shown.press(*["less_than_sign"] * 6)
        assert "▶ 0.25×" in shown.part("transport")
        await shown.wait(4)
        assert shown.t == 9 * S
        await shown.press(*["greater_than_sign"] * 20)
        assert shown.play.speed == 64


async def test_l_loops_over_this_run_then_the_session_then_no_more(finished: Path) -> None:
    began = starts(finished)
    async with replay(finished, at=Moment(began[3] + S)) as shown:
        run = Timeline.open(finished).runs.row(3)
        await shown.press("l")
        assert "↻ run" in shown.part("transport")
        await shown.wait(run["wall"] / S)
        assert shown.t == pytest.approx(began[3] + S, abs=2)
        await shown.press("right_curly_bracket")  # the loop goes along
        await shown.wait(60)
        assert began[4] <= shown.t < began[5]
        await shown.press("l")
        assert "↻ all" in shown.part("transport")
        await shown.wait(19)
        assert 0 <= shown.t < shown.transport.edge
        await shown.press("l")
        assert "↻" not in shown.part("transport")
        await shown.wait(60)
        assert shown.t == shown.transport.edge


async def test_g_asks_for_a_time_and_says_what_is_wrong_with_it(finished: Path) -> None:
    async with replay(finished, (80, 24)) as shown:
        end = shown.t
        await shown.press("g", *"12.5", "enter")
        assert shown.t == 12.5 * S
        await shown.press("g", "minus", *"2.5", "enter")
        assert shown.t == end - 2.5 * S
        await shown.press("g", *"0:04", "escape")
        assert shown.t == end - 2.5 * S
        await shown.press("g", *"1:00", "enter")
        said = lambda: "".join(s.text for line in shown.app.screen._compositor.render_strips() for s in line)  # noqa: E731
        await shown.until(lambda: "there is no such time: the session is 00:19 long" in said())
        await shown.press(*["backspace"] * 4, *"noon", "enter")
        await shown.until(lambda: "'noon' is no time: 12.5, 1:30" in said())
        await shown.press(*["backspace"] * 4, "3", "enter")
        assert shown.t == 3 * S
        await shown.press("g", "enter")
        assert (shown.t, len(shown.app.screen_stack)) == (3 * S, 1)


@pytest.fixture
def eventful(tmp_path: Path) -> Path:
    """A session with an error at 4 s, throttling from 6 s on, a memory that is full at 9 s."""
    told = course()
    told.append(("events.jsonl", events.Log(t=4 * S, level="error", text="a frame was lost")))
    told = [(stream, _worse(event)) for stream, event in told]
    return record(tmp_path / "eventful", sorted(told, key=lambda pair: pair[1].t))


def _worse(event: events.Event) -> events.Event:
    if not isinstance(event, events.GpuSample):
        return event
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    fields |= {"throttle": 0x40 if 6 * S <= event.t < 7 * S else 0}
    return events.GpuSample(**fields | ({"memory_used": 79 * GIB} if 9 * S <= event.t < 10 * S else {}))


async def test_n_goes_from_incident_to_incident_and_says_what_each_is(eventful: Path) -> None:
    async with replay(eventful) as shown:
        end = shown.t
        await shown.press("home")
        bar = shown.part("transport")
        assert [bar.count(mark) for mark in "ETMO"] == [1, 1, 1, 0]
        assert await shown.press("n") == 4 * S
        assert "error: a frame was lost" in shown.log()
        assert 6 * S <= await shown.press("n") < 6.2 * S
        assert "throttling: GPU 0 throttles: thermal, hardware" in shown.log()
        assert 9 * S <= await shown.press("n") < 9.2 * S
        assert "near out of memory: GPU 0 memory 98.8 % full" in shown.log()
        before = shown.t
        assert await shown.press("n") == before
        assert "no incident after" in shown.log()
        assert await shown.press("end", "N") == before
        assert await shown.press("N", "N", "N") == 4 * S
        assert "no incident before" in shown.log()
        assert end == shown.transport.edge


async def test_a_session_without_incidents_says_so(finished: Path) -> None:
    async with replay(finished) as shown:
        await shown.press("n")
        assert "no incident at all" in shown.log()


async def test_a_session_opens_at_a_time_or_played(finished: Path) -> None:
    async with replay(finished, at=Moment(12 * S)) as shown:
        assert shown.t == 12 * S
        await shown.wait(1)
        assert shown.t == 12 * S
    async with replay(finished, speed=4) as shown:
        await shown.wait(1)
        assert shown.t == 4 * S
    async with replay(finished, at=Moment(5 * S, from_end=True), speed=0.5) as shown:
        await shown.wait(2)
        assert shown.t == shown.transport.edge - 4 * S
    async with replay(finished, at=Moment(99 * S)) as shown:
        assert shown.t == shown.transport.edge


def test_the_command_line_opens_a_session_at_a_time(finished: Path) -> None:
    program = TerminalProgram.monitor(finished, "--at", "-12.5", "--speed", "0.25")
    try:
        program.until("▶ 0.25×")
        program.until("00:06.")
        program.write("q")
        program.ended_within(10)
    finally:
        program.end()


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12), (20, 5)])
async def test_the_bar_says_where_the_picture_is_at_any_size(finished: Path, size: tuple[int, int]) -> None:
    async with replay(finished, size, at=Moment(9 * S), speed=2) as shown:
        bar = "".join(shown.screen.query_one("#transport", LineCanvas).drawn)
        if size[1] < 9:
            assert "1 frames" in shown.part("steps")
            return
        assert len(bar) == size[0]
        assert bar.startswith(" ▶ ")
        assert "00:09.0" in bar
        at = bar.index("●")
        assert "━●─" in bar
        assert abs((at - bar.index("━")) / (bar.rindex("─") - bar.index("━")) - 9 / 19.3) < 0.12


# --- a live one -----------------------------------------------------------------------------------------------------


async def test_scrolling_back_in_a_live_session_leaves_it_alone_and_end_returns(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(FIRST + 3 * WALL)
    async with replay(recording.path) as shown:
        assert shown.play.following
        now = shown.t
        assert await shown.press("left_curly_bracket") == starts(recording.path)[-1]
        held = shown.drawn()
        assert "● LIVE −0:0" in held["heading"]
        recording.write_until(FIRST + 6 * WALL)
        await shown.wait(0)
        await shown.wait(0.2)
        assert shown.screen.timeline is not None
        assert shown.screen.timeline.end > now  # it is read on
        for part in ("steps", "run", "gauges", "strips", "output", "log"):
            assert shown.part(part) == held[part]
        assert "‖" in shown.part("transport")
        assert "LIVE −0:0" in shown.part("transport")
        await shown.press("end")
        assert shown.play.following
        assert "−0:" not in shown.part("heading")
        assert "run 5/8" in shown.part("heading")
        assert not (recording.path / "control.jsonl").exists()


async def test_space_holds_a_live_picture_and_the_run_does_not_notice(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(FIRST + 3 * WALL)
    async with replay(recording.path) as shown:
        await shown.press("space")
        t = shown.t
        for seconds in (3, 39):
            await shown.wait(seconds)
        assert shown.t == t
        assert "LIVE −0:42" in shown.part("heading")
        assert "LIVE −0:42" in shown.part("transport")
        assert "space play" in shown.part("footer")
        await shown.press("space")
        await shown.wait(10)
        assert shown.t == t + 10 * S
        assert "LIVE −0:42" in shown.part("heading")
        await shown.press("greater_than_sign")
        await shown.wait(42)
        assert shown.play.following
        assert not (recording.path / "control.jsonl").exists()


async def test_the_pace_of_what_is_happening_now_cannot_be_changed_and_that_is_said(
    live: Callable[..., Recording],
) -> None:
    recording = live()
    recording.write_until(FIRST + WALL)
    async with replay(recording.path) as shown:
        await shown.press("greater_than_sign")
        assert shown.play.following
        assert "go back first" in shown.log()
        assert await shown.press("right") == shown.transport.edge


async def test_every_time_key_works_on_a_live_session(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(FIRST + 4 * WALL)
    async with replay(recording.path) as shown:
        now = shown.t
        for key in ("comma", "left_square_bracket", "left_curly_bracket", "left", "home", "0", "3"):
            await shown.press("end")
            assert shown.play.following
            assert await shown.press(key) < now
            assert not shown.play.moving
        for key in ("full_stop", "right_square_bracket", "right_curly_bracket"):
            await shown.press("3")
            assert shown.transport.start < await shown.press(key) < now
        await shown.press("9", "right")
        assert shown.play.following
        await shown.press("l")
        assert shown.play.loop == "run"
        await shown.wait(60)
        assert starts(recording.path)[-1] <= shown.t <= now
        await shown.press("end")
        assert (shown.play.following, shown.play.loop) == (True, "")


async def test_a_live_session_that_ends_leaves_who_scrolled_back_where_they_are(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(FIRST + 4 * WALL)
    async with replay(recording.path, at=Moment(7 * S)) as shown:
        recording.write_until(1 << 62)
        recording.close()
        await shown.until(lambda: "■ FINISHED" in shown.part("heading"))
        assert shown.t == 7 * S
        assert "00:07.0 / 00:19" in shown.part("transport")
        await shown.press("space")
        await shown.wait(2)
        assert shown.t == 9 * S


async def test_what_is_asked_while_scrolled_back_means_the_run_as_it_is_and_its_answer_is_told(
    live: Callable[..., Recording],
) -> None:
    recording = live()
    recording.write_until(FIRST + 3 * WALL)
    async with replay(recording.path, at=Moment(5 * S)) as shown:
        await shown.press("p")
        assert "pause: asked" in shown.log()
        (asked,) = StreamReader(recording.path / "control.jsonl", events.Command).read()
        t = FIRST + 3 * WALL + 1
        recording.say(events.Answer(t=t, id=asked.id, verb="pause", accepted=True, text="pauses after this run"))
        await shown.until(lambda: "pause: pauses after this run" in shown.log())
        assert "p go on" in shown.part("footer")
        assert shown.t == 5 * S


async def test_two_viewers_of_one_run_see_what_was_asked_and_answered(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(FIRST + 3 * WALL)
    async with replay(recording.path) as one, replay(recording.path) as other:
        await one.press("plus")
        assert "extend: asked" in one.log()
        assert "extend" not in other.log()
        (asked,) = StreamReader(recording.path / "control.jsonl", events.Command).read()
        t = FIRST + 3 * WALL + 1
        recording.say(events.Answer(t=t, id=asked.id, verb="extend", accepted=True, text="one round more"))
        recording.say(events.Answer(t=t + 1, id="theirs", verb="pause", accepted=True, text="pauses after this run"))
        for viewer in (one, other):
            await viewer.until(lambda viewer=viewer: "extend: one round more" in viewer.log())  # type: ignore[misc]
            await viewer.until(lambda viewer=viewer: "p go on" in viewer.part("footer"))  # type: ignore[misc]
        await other.press("home")  # who scrolls back does not take the other along
        assert one.play.following
        for part in ("steps", "gauges", "strips", "heading"):
            await other.press("end")
            await one.press("end")
            assert one.part(part) == other.part(part)
