"""The monitor driven by keys and by time, in a terminal that is not there."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from driven import Driven
from screen_sessions import GIB, LOADING, MS, WALL, Recording, course, record
from textual.geometry import Region

from llava_tui import events
from llava_tui.session.reader import StreamReader, read_notes
from llava_tui.tui import theme
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.transport import Moment
from llava_tui.tui.widgets.canvas import LineCanvas

Shown = Callable[[], str]


class Monitor(Driven[MonitorScreen]):
    """The monitor, and what it shows."""

    KIND = MonitorScreen


@asynccontextmanager
async def monitor(path: Path, size: tuple[int, int] = (120, 40), **options: object) -> AsyncIterator[Monitor]:
    app = LlavaTui(path, **{"fps": 20, **options})  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        shown = Monitor(app, pilot)
        await shown.until(lambda: shown.screen.timeline is not None)
        await shown.until(lambda: "step" in shown.part("strips") or size[1] < 9)
        yield shown


def commands(path: Path) -> list[events.Command]:
    control = path / "control.jsonl"
    return StreamReader(control, events.Command).read() if control.exists() else []


async def test_a_finished_session_is_shown_at_its_end_and_offers_no_control(finished: Path) -> None:
    async with monitor(finished) as shown:
        assert shown.part("heading").startswith(" ■ FINISHED  llava  · cuda:0 · bfloat16 · sdpa  run 8/8")
        assert "2 encode" in shown.part("steps")
        assert "GPU 0 H100" in shown.part("gauges")
        assert "A street, seen from above." in shown.part("output")
        assert "pause" not in shown.part("footer")
        await shown.pilot.press("p", "k", "plus", "s")
        assert len(shown.app.screen_stack) == 1
        assert commands(finished) == []
        await shown.pilot.press("q")
    assert shown.app.last_words == ""


async def test_on_the_smallest_screen_there_are_the_steps_and_the_way_out(finished: Path) -> None:
    async with monitor(finished, (20, 5)) as shown:
        await shown.until(lambda: "generate" in shown.part("steps"))
        lines = shown.everything().splitlines()
        assert lines[0].startswith(" ■ FINISHED")
        assert [line.split()[:2] for line in lines[1:4]] == [["1", "frames"], ["2", "encode"], ["3", "generate"]]
        assert lines[4].split()[:2] == ["q", "quit"]


async def test_a_live_session_is_followed_while_it_grows(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING - 1)
    async with monitor(recording.path) as shown:
        assert "● LIVE loading" in shown.part("heading")
        assert "weights" in shown.part("steps")
        assert "p pause" in shown.part("footer")
        recording.write_until(LOADING + 3 * WALL)
        await shown.until(lambda: "run 2/8" in shown.part("heading"))
        await shown.until(lambda: "▸3 generate" in shown.part("steps"))
        recording.write_until(1 << 62)
        await shown.until(lambda: "run 8/8" in shown.part("heading"))
        recording.close()
        await shown.until(lambda: "■ FINISHED" in shown.part("heading"))
        assert "pause" not in shown.part("footer")
        view = shown.screen.view
        assert view is not None
        assert view.t == view.timeline.end


async def test_a_worker_that_is_gone_leaves_an_interrupted_session_that_stands_still(
    live: Callable[..., Recording],
) -> None:
    recording = live()
    recording.write_until(LOADING + 1500 * MS)
    async with monitor(recording.path) as shown:
        recording.close()
        await shown.until(lambda: "▲ INTERRUPTED" in shown.part("heading"))
        drawn = shown.everything()
        await shown.pilot.pause(0.3)
        assert shown.everything() == drawn


async def test_quitting_a_live_run_detaches_and_says_how_to_come_back(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    for key in ("q", "d", "ctrl+c"):
        async with monitor(recording.path) as shown:
            await shown.pilot.press(key)
        assert shown.app.last_words == f"detached: the run goes on; llava-tui attach {recording.path.name}"
    assert commands(recording.path) == []


async def test_control_goes_to_the_worker_and_its_answer_comes_into_the_log(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    async with monitor(recording.path) as shown:
        await shown.pilot.press("p")
        await shown.until(lambda: "pause: asked" in shown.part("log"))
        (asked,) = commands(recording.path)
        assert (asked.verb, asked.case) == ("pause", "")
        t = LOADING + WALL + 1
        recording.say(events.Answer(t=t, id=asked.id, verb="pause", accepted=True, text="pauses after this run"))
        await shown.until(lambda: "pause: pauses after this run" in shown.part("log"))
        await shown.until(lambda: "p go on" in shown.part("footer"))
        await shown.pilot.press("p", "k")
        await shown.until(lambda: "Skip what remains of f" in shown.everything())
        await shown.pilot.press("y", "plus")
        assert [(c.verb, c.rounds) for c in commands(recording.path)] == [
            ("pause", 0), ("resume", 0), ("skip", 0), ("extend", 1),
        ]  # fmt: skip


@pytest.mark.parametrize(("key", "verbs"), [("y", ["stop"]), ("x", ["stop-now"]), ("escape", []), ("n", [])])
async def test_stopping_asks_first(live: Callable[..., Recording], key: str, verbs: list[str]) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    async with monitor(recording.path) as shown:
        await shown.pilot.press("s")
        await shown.until(lambda: "Stop the run?" in shown.everything())
        assert commands(recording.path) == []
        await shown.pilot.press(key)
        await shown.until(lambda: len(shown.app.screen_stack) == 1)
        assert [command.verb for command in commands(recording.path)] == verbs


async def test_a_session_that_cannot_be_written_to_says_so(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    (recording.path / "control.jsonl").mkdir()  # as good as read-only, for root too
    async with monitor(recording.path) as shown:
        await shown.pilot.press("p")
        await shown.until(lambda: "cannot send pause" in shown.part("log"))


async def test_a_worker_that_does_not_answer_is_told_of(
    live: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava_tui.tui.screens.run_control.PATIENCE_S", 0.2)
    recording = live()
    recording.write_until(LOADING + WALL)
    async with monitor(recording.path) as shown:
        await shown.pilot.press("plus")
        await shown.until(lambda: "extend: no answer from the worker yet" in shown.part("log"))


async def test_v_goes_through_the_cases_and_back_to_the_running_one(finished: Path) -> None:
    async with monitor(finished) as shown:
        titles = []
        for _ in range(3):
            await shown.pilot.press("v")
            titles.append(shown.part("steps").split("\n")[0].split("last")[0].strip())
        assert titles == ["step · f1-b1-n16 1/2 (chosen)", "step · f4-b1-n16 2/2 (chosen)", "step · f1-b1-n16 1/2"]


async def test_help_and_palette_offer_what_can_be_done_now(finished: Path, live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING + WALL)
    for path, control in ((finished, False), (recording.path, True)):
        async with monitor(path, (120, 70)) as shown:
            await shown.pilot.press("question_mark")
            await shown.until(lambda shown=shown: "Leave. A live run goes on" in shown.everything())
            assert ("Stop after this run" in shown.everything()) is control
            await shown.pilot.press("escape")
            await shown.until(lambda shown=shown: len(shown.app.screen_stack) == 1)
            await shown.pilot.press("ctrl+p")
            await shown.until(lambda shown=shown: "sessions" in shown.everything())
            await shown.pilot.press(*"skip")
            found = "skip case" if control else "No matches"
            await shown.until(lambda shown=shown, found=found: found in shown.everything().rsplit("\n", 1)[0])
            await shown.pilot.press("escape")


async def test_help_that_is_higher_than_the_screen_is_scrolled(finished: Path) -> None:
    async with monitor(finished, (60, 20)) as shown:
        await shown.pilot.press("question_mark")
        await shown.until(lambda: "more" in shown.everything().rsplit("\n", 1)[-1])
        assert "Hold the picture" in shown.everything()
        assert "palette" not in shown.everything()
        await shown.pilot.press("end")
        await shown.until(lambda: "palette" in shown.everything())
        assert "Hold the picture" not in shown.everything()


async def test_any_size_can_be_drawn_and_comes_back(finished: Path) -> None:
    async with monitor(finished, (80, 24)) as shown:
        before = shown.everything()
        for width, height in ((20, 5), (1, 1), (300, 80), (40, 10), (200, 3), (80, 24)):
            await shown.pilot.resize_terminal(width, height)
            await shown.pilot.pause(0.1)
            lines = shown.everything().split("\n")
            assert len(lines) == height
        await shown.until(lambda: shown.everything() == before)


async def test_80x24_has_steps_a_gpu_line_the_ribbon_and_the_keys(finished: Path) -> None:
    async with monitor(finished, (80, 24)) as shown:
        text = shown.everything()
        for piece in ("1 frames", "3 generate", "unaccounted", "GPU 0", "  step ", "? help"):
            assert piece in text
        assert max(len(line) for line in text.split("\n")) == 80


async def test_an_unchanged_view_paints_nothing_and_a_changed_cell_paints_its_region(finished: Path) -> None:
    painted: list[Region] = []
    async with monitor(finished, at=Moment(LOADING + WALL)) as shown:
        screen = shown.screen
        screen._paint = lambda changes: painted.extend(region for _, regions in changes for region in regions)
        await shown.pilot.pause(0.3)
        screen._drawn.clear()  # the keys may not have changed; the drawings must not have either
        screen.redraw()
        assert painted == []

        heading = screen.query_one("#heading", LineCanvas)
        line = heading._lines[0]
        at = "".join(text for text, _ in line).index("FINISHED")
        assert heading.change([list(line)]) == []
        changed = [(text.replace("FINISHED", "FINISHeD"), style) for text, style in line]
        assert heading.change([changed]) == [Region(at + 6, 0, 1, 1)]


async def test_a_repaint_of_changed_cells_shows_what_a_full_paint_would(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING)
    async with monitor(recording.path) as shown:
        for step in range(12):
            recording.write_until(LOADING + step * 600 * MS)
            await shown.pilot.pause(0.1)
        canvases = shown.screen.query(LineCanvas)
        for canvas in canvases:
            strips = [canvas.render_line(y) for y in range(canvas.size.height)]
            canvas._strips = [None] * len(canvas._lines)
            assert [strip.text for strip in strips] == [canvas.render_line(y).text for y in range(canvas.size.height)]


@pytest.mark.parametrize("name", [theme.DARK, theme.LIGHT, theme.TERMINAL, "nord", "solarized-light"])
async def test_every_theme_draws_with_a_style_on_every_cell(finished: Path, name: str) -> None:
    async with monitor(finished) as shown:
        shown.app.theme = name
        await shown.pilot.pause(0.2)
        for canvas in shown.screen.query(LineCanvas):
            for y in range(canvas.size.height):
                assert all(segment.style is not None for segment in canvas.render_line(y))


async def test_t_turns_from_dark_to_light(finished: Path) -> None:
    async with monitor(finished) as shown:
        colours = []
        for _ in range(2):
            colours.append(shown.screen.query_one("#steps", LineCanvas).render_line(1)._segments[0].style)
            await shown.pilot.press("ctrl+t")
            await shown.pilot.pause(0.1)
        assert colours[0] != colours[1]


async def test_no_color_draws_without_colours(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textual.constants.COLOR_SYSTEM", "truecolor")
    monkeypatch.setenv("NO_COLOR", "1")
    async with monitor(finished) as shown:
        assert "2 encode" in shown.everything()
        for segment in shown.screen.query_one("#steps", LineCanvas).render_line(1):
            assert segment.style is not None
            assert segment.style.color is not None
            red, green, blue = segment.style.color.get_truecolor()
            assert red == green == blue


async def test_ascii_shows_only_ascii_overlays_included(tmp_path: Path) -> None:
    path = record(tmp_path / "s", course(text="漢字 — «quoted»"))
    async with monitor(path, ascii=True) as shown:
        assert shown.everything().isascii()
        assert "????" in shown.everything()
        await shown.pilot.press("question_mark")
        await shown.pilot.pause(0.2)
        assert shown.everything().isascii()
        await shown.pilot.press("escape", "ctrl+p")
        await shown.pilot.pause(0.3)
        assert shown.everything().isascii()


async def test_a_large_session_opens_aside_with_a_message(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from llava_tui.session.timeline import Timeline

    go, real = threading.Event(), Timeline.open
    monkeypatch.setattr(Timeline, "open", classmethod(lambda cls, path: go.wait(20) and real(path)))
    app = LlavaTui(finished)
    async with app.run_test(size=(80, 24)) as pilot:
        shown = Monitor(app, pilot)
        await shown.until(lambda: "opening finished …" in shown.part("heading"))
        await pilot.press("v", "ctrl+t", "p")  # nothing to act on yet, and nothing breaks
        assert "? help" in shown.part("footer")
        go.set()
        await shown.until(lambda: "FINISHED" in shown.part("heading"))


async def test_leaving_while_a_session_is_being_opened_does_not_wait_for_it(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from llava_tui.session.timeline import Timeline

    go = threading.Event()
    monkeypatch.setattr(Timeline, "open", classmethod(lambda cls, path: go.wait(20)))
    app = LlavaTui(finished)
    async with asyncio.timeout(5):
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("q")
    go.set()
    assert app.return_code == 0


async def test_what_is_no_session_ends_the_app_with_the_reason(tmp_path: Path) -> None:
    app = LlavaTui(tmp_path)
    async with app.run_test() as pilot:
        for _ in range(200):
            if app.return_code is not None:
                break
            await pilot.pause(0.02)
    assert app.return_code == 2
    assert "session.json" in app.last_words


async def test_a_gpu_that_is_found_late_gets_its_place(live: Callable[..., Recording]) -> None:
    recording = live([])
    async with monitor(recording.path) as shown:
        assert "waiting for the first reading" in shown.part("gauges")
        recording._streams["telemetry.jsonl"].write(events.GpuDevice(t=5, gpu=0, name="L4", memory_total=24 * GIB))
        recording._streams["telemetry.jsonl"].write(events.GpuSample(t=6, gpu=0, memory_used=GIB, utilization=3.0))
        await shown.until(lambda: "GPU 0 L4" in shown.part("gauges"))


async def test_a_session_that_is_deleted_while_it_is_watched_stays_on_the_screen(
    live: Callable[..., Recording],
) -> None:
    recording = live()
    recording.write_until(LOADING + 3 * WALL)
    async with monitor(recording.path) as shown:
        shutil.rmtree(recording.path)
        await shown.until(lambda: "▲ INTERRUPTED" in shown.part("heading"))
        assert "2 encode" in shown.part("steps")
        await shown.pilot.press("q")


def test_what_is_sent_is_what_the_worker_reads(tmp_path: Path) -> None:
    from llava_tui.session import control

    path = record(tmp_path / "s", [])
    command = control.send(path, "extend", rounds=1)
    assert msgspec.json.decode((path / "control.jsonl").read_bytes())["rounds"] == command.rounds == 1


async def test_b_pins_the_session_as_the_baseline(finished: Path) -> None:
    async with monitor(finished) as shown:
        await shown.pilot.press("B")
        await shown.until(lambda: "baseline: this session" in shown.part("log"))
        assert read_notes(finished).baseline
