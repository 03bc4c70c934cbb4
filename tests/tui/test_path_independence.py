"""The same picture at the same time, however it was come to: what is drawn depends on the session, the time, and what
was chosen, and on nothing that was drawn before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from screen_sessions import LOADING, MS, Recording, S, Timed, course
from textual.pilot import Pilot

from llava_tui import events
from llava_tui.session.timeline import Timeline
from llava_tui.tui import actions
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.transport import Moment, Playback
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.panels import PANELS, wants

SIZES = {
    "heading": (120, 1), "steps": (120, 14), "run": (120, 1), "gauges": (120, 2), "strips": (120, 8),
    "output": (60, 4), "log": (60, 6), "transport": (120, 1),
}  # fmt: skip
CASES = ("f1-b1-n16", "f4-b1-n16")


def eventful(ms: int, **how: Any) -> list[Timed]:
    """A session in which some of everything happens; a millisecond of a run takes ``ms``."""
    told = course(ms=ms, **how)
    end = told[-1][1].t
    worker: list[events.Event] = [
        events.Log(t=LOADING + 5, level="warning", text="slow disk"),
        events.Log(t=end // 2, level="error", text="a frame was lost"),
        events.Answer(t=end * 2 // 3, id="x", verb="extend", accepted=True, text="one round more"),
        events.Schedule(t=end * 2 // 3, cases=[events.Case(case, {"frames": 1}) for case in CASES], rounds=9, runs=40),
    ]
    told += [("events.jsonl", event) for event in worker]
    told.append(("telemetry.jsonl", events.GpuAbsent(t=end * 3 // 4, gpu=0, reasons={"power_mw": "not told"})))
    return sorted(told, key=lambda pair: pair[1].t)


SESSIONS = {
    "some runs": eventful(MS, runs=6),
    "short runs": eventful(MS // 40, runs=60),
    "no GPU": eventful(MS, runs=4, gpu=False, hole=True),
}


@dataclass
class Watched:
    """A session that grows, a timeline that follows it, and what one viewer has drawn of it so far."""

    path: Path
    told: list[Timed]
    live: bool
    t: int = 0
    written: dict[str, int] = field(default_factory=dict)
    drawn: dict[tuple[str, object], list[Line]] = field(default_factory=dict)

    def begin(self, part: float = 1.0) -> None:
        self.recording = Recording(self.path, [])
        self.grow(part, 0)
        self.timeline = Timeline.open(self.path)
        self.look = Look(status="running" if self.live else "finished")

    def grow(self, part: float, late: int) -> None:
        """Writes the worker's part of the session, and the sampler's but for the last ``late`` ns: it comes later."""
        until = int(self.told[-1][1].t * part)
        for stream, limit in (("events.jsonl", until), ("telemetry.jsonl", until - late)):
            mine = [event for name, event in self.told if name == stream]
            for event in mine[self.written.get(stream, 0) :]:
                if event.t > limit:
                    break
                self.recording._streams[stream].write(event)
                self.written[stream] = self.written.get(stream, 0) + 1

    def playback(self, t: int, following: bool) -> Playback:
        edge = max(self.timeline.end, t)
        return Playback(t=t, live=self.live, following=following and self.live, edge=edge)

    def check(self, t: int, *, following: bool) -> None:
        """Every part, as this viewer would draw it, beside a viewer who has only just come."""
        look, view = self.look, self.timeline.at(t)
        look.playback = self.playback(t, following)
        fresh = Look(status=look.status, case=look.case, zoom=look.zoom, gpu=look.gpu, playback=look.playback)
        theirs = Timeline.open(self.path).at(t)
        assert wants(view, look) == wants(theirs, fresh)
        for name, (draw, key) in PANELS.items():
            drawn = draw(view, look, *SIZES[name])
            assert drawn == draw(theirs, fresh, *SIZES[name]), name
            before = self.drawn.setdefault((name, key(view, look)), drawn)
            assert before == drawn, f"{name}: an equal key is of another drawing"


STEPS = st.one_of(
    st.tuples(st.just("seek"), st.floats(0, 1)),
    st.tuples(st.just("near"), st.integers(-3, 3)),
    st.tuples(st.just("by"), st.sampled_from([-60, -7, 7, 60, 400, -400])),
    st.tuples(st.just("case"), st.sampled_from(["", *CASES])),
    st.tuples(st.just("zoom"), st.integers(-6, 6)),
    st.tuples(st.just("gpu"), st.sampled_from([None, 0])),
    st.tuples(st.just("grow"), st.floats(0, 1)),
    st.tuples(st.just("follow"), st.none()),
)


@pytest.mark.parametrize("which", SESSIONS)
@pytest.mark.parametrize("live", [False, True])
@settings(max_examples=10, deadline=None)
@given(steps=st.lists(STEPS, min_size=2, max_size=14))
def test_a_picture_depends_on_nothing_that_was_drawn_before(
    tmp_path_factory: pytest.TempPathFactory, which: str, live: bool, steps: list[tuple[str, Any]]
) -> None:
    watched = Watched(tmp_path_factory.mktemp("s") / "s", SESSIONS[which], live)
    watched.begin(0.3 if live else 1.0)
    try:
        times = sorted({event.t for _, event in watched.told})
        t, part = watched.timeline.end, 0.3
        for step, value in steps:
            following = False
            match step:
                case "seek":
                    t = int(watched.timeline.end * value)
                case "near":  # as close to an event as can be
                    t = times[int(t * 7919) % len(times)] + value
                case "by":
                    t += value * MS
                case "case" | "zoom" | "gpu":
                    setattr(watched.look, step, value)
                case "grow" if live:
                    part = min(part + value / 3, 1.0)
                    watched.grow(part, int(value * S))
                    watched.timeline.poll()
                case "follow":
                    following, t = True, watched.timeline.end
            t = min(max(t, 0), watched.timeline.end)
            watched.check(t, following=following)
    finally:
        watched.recording.close()


@pytest.mark.parametrize("which", SESSIONS)
@settings(max_examples=10, deadline=None)
@given(part=st.floats(0, 0.999), zoom=st.integers(-6, 6), case=st.sampled_from(["", *CASES]))
def test_a_replay_shows_what_was_shown_live(
    tmp_path_factory: pytest.TempPathFactory, which: str, part: float, zoom: int, case: str
) -> None:
    folder = tmp_path_factory.mktemp("s")
    then, now = (Watched(folder / name, SESSIONS[which], live) for name, live in (("then", True), ("now", False)))
    t = int(then.told[-1][1].t * part)
    then.begin(part)
    now.begin()
    try:
        for name, (draw, _) in PANELS.items():
            if name in ("heading", "transport"):  # they say that it is live
                continue
            drawn = []
            for watched, status in ((then, "running"), (now, "finished")):
                look = Look(status=status, zoom=zoom, case=case, playback=watched.playback(t, following=True))
                drawn.append(draw(watched.timeline.at(t), look, *SIZES[name]))
            assert drawn[0] == drawn[1], name
    finally:
        then.recording.close()
        now.recording.close()


# --- the screen itself ----------------------------------------------------------------------------------------------


class Monotonic:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


KEYS = (
    "space", "left", "right", "home", "comma", "full_stop", "left_square_bracket", "right_square_bracket",
    "left_curly_bracket", "right_curly_bracket", "n", "N", "2", "7", "greater_than_sign", "l", "v", "z", "Z", "u",
)  # fmt: skip
KEY_ACTIONS: dict[str, tuple[str, ...]] = {
    key: (entry.id, key) if entry.key_matters else (entry.id,)
    for entry in actions.ACTIONS
    if "monitor" in entry.screens
    for key in entry.keys
    if key in KEYS
}
DECLARED = ("log", "footer")
"""A viewer's own notices are in its log alone, and the footer says what a key does next."""


async def opened(app: LlavaTui, pilot: Pilot[None]) -> MonitorScreen:
    screen = app.screen
    assert isinstance(screen, MonitorScreen)
    for _ in range(1000):
        if screen.transport is not None:
            break
        await pilot.pause(0.005)
    assert screen.transport is not None
    await pilot.pause()
    await pilot.pause()
    return screen


def pictures(screen: MonitorScreen) -> dict[str, list[Line]]:
    return {str(c.id): list(c._lines) for c in screen.query(LineCanvas) if str(c.id) not in DECLARED}


async def walk(path: Path, keys: list[tuple[str, float]], size: tuple[int, int]) -> None:
    monotonic = Monotonic()
    app = LlavaTui(path, fps=1, monotonic=monotonic, at=Moment(0), speed=1)
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        for key, seconds in keys:
            screen.action_act(*KEY_ACTIONS[key])
            monotonic.ns += int(seconds * S)
            screen.tick()
        transport, look = screen.transport, screen.look
        assert transport is not None
        assert look is not None
        transport.loop_over("")
        transport.hold()
        transport.set_speed(1)
        screen.tick()  # what was held back while time went on has to be caught up with now
        await pilot.pause()
        await pilot.pause()
        t, case, zoom, gpu = transport.now(), look.case, look.zoom, look.gpu
        one = pictures(screen)
    app = LlavaTui(path, fps=1, monotonic=monotonic, at=Moment(t))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        assert screen.look is not None
        screen.look.case, screen.look.zoom, screen.look.gpu = case, zoom, gpu
        screen.redraw()
        await pilot.pause()
        assert pictures(screen) == one


@pytest.mark.parametrize(("which", "size"), [("some runs", (120, 40)), ("short runs", (80, 24))])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(keys=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([0.0, 0.13, 0.4, 2.0])), min_size=3, max_size=25))
def test_a_screen_shows_what_one_opened_at_that_time_shows(
    tmp_path_factory: pytest.TempPathFactory, which: str, size: tuple[int, int], keys: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    recording = Recording(path, SESSIONS[which])
    recording.write_until(1 << 62)
    recording.close()
    asyncio.run(walk(path, keys, size))
