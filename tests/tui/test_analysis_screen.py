"""The analysis: what is drawn of a session, and how one gets around in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from driven import Driven
from hypothesis import given, settings
from hypothesis import strategies as st
from screen_sessions import LOADING, WALL, Recording, Timed, course, record

from llava_tui import events
from llava_tui.session.importing import import_file
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens import analysis
from llava_tui.tui.screens.analysis import Analysed, AnalysisScreen, read, tell
from llava_tui.tui.widgets import analysis_plots
from llava_tui.tui.widgets.analysis_page import Told, draw_analysis, gain_bar
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import Line, width_of
from llava_tui.tui.widgets.page import Page

EXAMPLES = Path(__file__).parents[2] / "sessions"
SIMULATED = EXAMPLES / "example-simulated-h100"
REAL = EXAMPLES / "example-demo-cpu"


def text_of(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def told_of(path: Path, case: str = "") -> Told:
    found = read(path, path.parent)
    return tell(found, case or found.first)


def page(path: Path, width: int = 120, case: str = "") -> list[str]:
    return text_of(draw_analysis(told_of(path, case), width))


def part(lines: list[str], title: str) -> list[str]:
    """The lines under a heading."""
    start = next(index for index, line in enumerate(lines) if line.startswith(f" ━━ {title} "))
    rest = lines[start + 1 :]
    return rest[: next((index for index, line in enumerate(rest) if line.startswith(" ━━ ")), len(rest))]


class Shown(Driven[AnalysisScreen]):
    """The screen, and what is on it."""

    KIND = AnalysisScreen

    async def settled(self) -> None:
        """Until nothing is done aside any more."""
        for _ in range(1000):
            if not self.screen.busy and (self.screen.found is not None or self.screen.problem):
                break
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()
        await self.settled()


@asynccontextmanager
async def shown(path: Path, case: str = "", *, size: tuple[int, int] = (120, 40), **how: Any) -> AsyncIterator[Shown]:
    app = LlavaTui(folder=path.parent, first=lambda: AnalysisScreen(path, path.parent, case), **how)
    async with app.run_test(size=size) as pilot:
        one = Shown(app, pilot)
        await pilot.pause()
        await one.settled()
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An example that may be written to."""
    shutil.copytree(SIMULATED, tmp_path / "one")
    return tmp_path


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_page_says_everything_that_is_known_of_a_case() -> None:
    lines = page(SIMULATED)
    titles = [line[4:].split(" ━")[0] for line in lines if line.startswith(" ━━ ")]
    assert titles == [
        "trust", "where the time goes", "memory and energy", "what a frame costs", "beside it", "roofline", "advice",
    ]  # fmt: skip
    assert "SIMULATED" in lines[0]
    assert "30 measured" in "\n".join(lines[:5])


def test_trust_is_a_badge_and_a_line_a_reason_the_worst_first() -> None:
    trust = part(page(REAL), "trust")
    assert "▕ D ▏  measure again" in trust[0]
    marks = [line.split()[0] for line in trust[1:] if line.strip()]
    assert set(marks) <= {"✗", "!", "·"}
    assert marks == sorted(marks, key=["✗", "!", "·"].index)


def test_shares_are_bars_and_the_extremes_are_named() -> None:
    lines = part(page(SIMULATED), "where the time goes")
    bars = {line[:20].strip(): line.count("█") for line in lines if "%" in line and "slowest" not in line}
    assert bars["3 generate"] > bars["decode"] > bars["prefill"] > bars["1 frames"]
    assert any("slowest 3 generate" in line and "lightest 1 frames" in line for line in lines)
    assert "TTFT 111 ms" in lines[0]
    narrow = "\n".join(part(page(SIMULATED, 80), "where the time goes"))
    for word in ("slowest", "lightest", "steadiest", "least steady"):
        assert word in narrow, "what did not fit goes on in the next line"


def test_what_a_frame_costs_is_a_formula_and_a_picture_through_the_measured_points() -> None:
    lines = part(page(SIMULATED), "what a frame costs")
    assert lines[0].startswith(" encode        1.56 ms + 6.77 ms a frame   95 %: 6.75 ms … 6.79 ms")
    assert sum(line.count("●") for line in lines) == 3 * 3, "three frame counts in three pictures"
    assert lines[-2].split() == ["1", "2", "4"] * 3
    assert sum(line.count("●") for line in part(page(SIMULATED, 60), "what a frame costs")) == 2 * 3
    assert not any("●" in line for line in page(SIMULATED, 20))


@given(st.floats(0, 100), st.floats(0, 100), st.integers(4, 60), st.integers(1, 12))
def test_a_picture_has_its_size_and_its_points_lie_on_their_line(a: float, b: float, cells: int, rows: int) -> None:
    top = max(a + b * 5, 1e-3)
    points = [(float(x), a + b * x) for x in (1, 2, 4)]
    lines = analysis_plots.picture(a, b, points, 5.0, top, cells, rows)
    assert len(lines) == rows
    drawn = text_of([[(text + "|", style) for text, style in line] for line in lines])
    assert all(width_of(line) == cells for line in lines)
    for x, y in points:
        column = min(int(x / 5 * cells), cells - 1)
        row = rows - 1 - min(max(int(y / top * rows), 0), rows - 1)
        glyphs = "".join(text for text, _ in lines[row])
        assert glyphs[column] == "●", drawn


def test_the_roof_that_bounds_a_stage_is_the_bright_bar() -> None:
    told = told_of(SIMULATED)
    assert told.insight is not None
    paths = [row.path for row in told.insight.table.rows]
    lines = analysis_plots.draw_roofline(told.insight.roofline, paths, 120)
    rows = {"".join(text for text, _ in line)[:16].strip(): line for line in lines}
    prefill = [(text, style) for text, style in rows["prefill"] if "%" in text]
    assert [style for _, style in prefill] == ["strong", "dim"], "compute bounds prefill"
    decode = [style for text, style in rows["decode"] if "%" in text]
    assert decode == ["dim", "strong"], "memory bounds decode"
    assert "51.9 %" in prefill[0][0]


def test_without_peaks_the_roofline_says_what_is_missing_and_how_to_find_it() -> None:
    roof = "\n".join(part(page(REAL), "roofline"))
    assert "llava-tui doctor --measure-peaks" in roof
    assert "FLOP" in roof
    assert "MFU" not in roof


def test_another_model_stands_beside_with_where_its_figures_are_from() -> None:
    beside = part(page(SIMULATED), "beside it")
    assert beside[0].startswith(" llava-1.5-7b ")
    assert beside[1].startswith(" EventGPT ")
    assert "step 5" in "\n".join(beside)
    assert "unverified" in beside[-3] + beside[-2]


def test_a_session_of_eventgpt_is_shown_beside_one_of_llava(folder: Path) -> None:
    shutil.copytree(REAL, folder / "events")
    header = folder / "events" / "session.json"
    raw = msgspec.json.decode(header.read_bytes()) | {"pipeline": "eventgpt", "model": "event [red]gpt"}
    header.write_bytes(msgspec.json.encode(raw))
    beside = "\n".join(part(page(folder / "one"), "beside it"))
    assert "event [red]gpt" in beside
    assert "1 frames" in beside
    assert "session" in beside


def test_advice_is_a_card_with_gain_evidence_and_the_command_that_verifies_it() -> None:
    told = told_of(SIMULATED)
    advice = part(text_of(draw_analysis(told, 120)), "advice")
    assert advice[0].startswith("  1 ")
    assert "█" in advice[1]
    assert "about" in advice[1]
    assert advice[2].startswith("    because ")
    verify = [line for line in advice if line.startswith("    verify")]
    assert [line.split(maxsplit=1)[1] for line in verify] == list(told.commands)
    first = told.one.advice[0]
    bar = gain_bar(first, 20)
    assert bar.count("█") == round((first.gain or 0) * 20)
    assert bar.count("█") + bar.count("░") == round((first.bound or 0) * 20)


def test_doubtful_figures_hold_advice_back_and_say_what() -> None:
    advice = "\n".join(part(page(REAL, 200), "advice"))
    assert "1 trust is D: measure again" in advice
    assert "held back until the figures can be trusted: " in advice


def test_imported_results_say_what_they_are(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(
        json.dumps({
            "benchmark_info": {"model": "LLaVA", "timestamp": "2026-01-01T00:00:00"},
            "step_statistics": {
                "1. frames [bold]": {"durations": [0.01] * 12},
                "2. encode": {"durations": [0.12 + 0.001 * at for at in range(12)]},
                "3. generate": {"durations": [1.0 + 0.01 * at for at in range(12)]},
            },
        })
    )  # fmt: skip
    lines = page(import_file(tmp_path / "sessions", results))
    text = "\n".join(lines)
    assert "IMPORTED" in lines[0]
    assert "imported: how it was warmed up and timed is not known" in text
    assert any("3 generate" in line and "█" in line for line in part(lines, "where the time goes"))
    assert "unknown: " in "\n".join(part(lines, "roofline"))


def failed(reason: str) -> list[Timed]:
    """A session that ended while it was loading."""
    early = [pair for pair in course() if pair[1].t < LOADING and not isinstance(pair[1], events.RunEnd)]
    return [*early, ("events.jsonl", events.StateChange(t=LOADING, state="failed", reason=reason))]


def test_a_session_that_failed_says_what_is_missing_and_why(tmp_path: Path) -> None:
    text = "\n".join(page(record(tmp_path / "failed", failed("no such checkpoint"))))
    assert "nothing was measured" in text
    assert "failed before any run: no such checkpoint" in text
    assert "where the time goes" not in text


def test_a_case_that_ran_out_of_memory_says_so_beside_those_that_did_not(tmp_path: Path) -> None:
    told: list[Timed] = []
    for stream, event in course():
        if isinstance(event, events.RunEnd) and event.run % 2 == 1:
            told.append(
                (stream, events.RunEnd(t=event.t, run=event.run, outcome="out-of-memory", start=event.start,
                                       wall=event.wall, reason="2 GiB asked, 1 free"))
            )  # fmt: skip
        else:
            told.append((stream, event))
    path = record(tmp_path / "oom", told)
    lines = page(path, case="f4-b1-n16")
    assert "no run of f4-b1-n16 was measured; the next case may have been (v)" in "\n".join(lines)
    assert any("! out of memory" in line for line in part(lines, "trust"))
    assert "where the time goes" in "\n".join(page(path, case="f1-b1-n16"))


def test_a_session_that_has_only_begun_says_what_it_waits_for(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING + 5)
    text = "\n".join(page(recording.path))
    assert "what it says comes with its first measured runs" in text
    empty = live([])
    assert "what it says comes" in "\n".join(page(empty.path))


_told: dict[Path, Told] = {}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([SIMULATED, REAL]), st.integers(1, 220))
def test_at_any_width_lines_are_exactly_as_wide(path: Path, width: int) -> None:
    told = _told.setdefault(path, told_of(path))
    for line in draw_analysis(told, width):
        assert width_of(line) == width


# --- the screen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (20, 5)])
async def test_it_is_read_aside_and_shown_at_any_size(size: tuple[int, int]) -> None:
    async with shown(SIMULATED, size=size) as one:
        assert "ANALYSIS" in one.part("heading")
        assert len(one.part("page").split("\n")) == size[1] - 2
        if size[0] >= 80:
            assert "trust A" in one.part("heading")
            assert "case f4-b1-n64  3/3" in one.part("heading")
            assert "v next case" in one.part("footer")
        await one.press("end")
        last = one.part("page").rstrip().split("\n")[-1]
        assert last.strip(), "the page's last line"
        await one.press("home", "pagedown", "up", "down", "pageup")
        assert one.screen.query_one(Page).top == 0
        await one.pilot.resize_terminal(100, 30)
        await one.pilot.pause()
        assert "━━ trust ━" in one.part("page")


async def test_v_goes_through_the_cases() -> None:
    async with shown(SIMULATED, "f1-b1-n64") as one:
        seen = []
        for _ in range(4):
            seen.append(one.screen.case)
            run = next(line for line in one.part("page").split("\n") if line.startswith(" run "))
            assert {"f1": "484 ms", "f2": "519 ms", "f4": "596 ms"}[seen[-1][:2]] in run
            await one.press("v")
        assert seen == ["f1-b1-n64", "f2-b1-n64", "f4-b1-n64", "f1-b1-n64"]


async def test_m_copies_markdown_and_y_the_command_and_both_say_so() -> None:
    async with shown(SIMULATED) as one:
        await one.press("m")
        assert "copied as Markdown" in one.part("heading")
        assert one.app.clipboard.startswith("# analysis of example-simulated-h100")
        await one.press("y")
        assert (
            one.app.clipboard
            == "llava-tui advise example-simulated-h100 --verify --only largest-batch --case f4-b1-n64"
        )
        assert "copied: llava-tui advise" in one.part("heading")


async def test_where_there_is_nothing_to_copy_that_is_said(tmp_path: Path) -> None:
    async with shown(record(tmp_path / "failed", failed("no such checkpoint"))) as one:
        assert "✗ FAILED" in one.part("heading")
        assert "no such checkpoint" in one.part("page")
        await one.press("y")
        assert "there is no advice to try" in one.part("heading")
        await one.press("v")


async def test_what_is_no_session_is_said_on_the_screen(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    async with shown(tmp_path / "x") as one:
        assert "session.json" in one.part("page")


async def test_a_live_session_says_as_of_which_run_and_looks_again_when_asked(live: Callable[..., Recording]) -> None:
    recording = live()
    recording.write_until(LOADING + 5 * WALL)
    async with shown(recording.path) as one:
        assert "● LIVE" in one.part("heading")
        assert "as of run 4" in one.part("heading")
        assert "r refresh" in one.part("footer")
        recording.write_until(LOADING + 8 * WALL)
        await one.press("r")
        assert "as of run 7" in one.part("heading")
        recording.write_until(1 << 62)
        recording.close()
        await one.press("r")
        assert "as of" not in one.part("heading")
        assert "■ FINISHED" in one.part("heading")
        assert "refresh" not in one.part("footer")


async def test_a_live_session_is_looked_at_again_by_itself_but_not_all_the_time(
    live: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = live()
    recording.write_until(LOADING + 5 * WALL)
    reads: list[Path] = []
    real = analysis.read

    def counting(path: Path, folder: Path) -> Analysed:
        reads.append(path)
        return real(path, folder)

    monkeypatch.setattr(analysis, "read", counting)
    async with shown(recording.path) as one:
        recording.write_until(LOADING + 8 * WALL)
        one.screen._look_again()
        await one.settled()
        assert len(reads) == 1, "ten seconds have not passed"
        one.screen._due = 0.0
        one.screen._look_again()
        await one.settled()
        assert "as of run 7" in one.part("heading")
        one.screen._due = 0.0
        one.screen._look_again()
        await one.settled()
        assert len(reads) == 2, "nothing was measured since"


async def test_a_result_that_comes_after_the_screen_was_left_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go, real = threading.Event(), analysis.read
    monkeypatch.setattr(analysis, "read", lambda *given: go.wait(20) and real(*given))
    app = LlavaTui(folder=EXAMPLES)
    async with app.run_test(size=(80, 24)) as pilot:
        app.open_analysis(SIMULATED)
        await pilot.pause(0.1)
        screen = app.screen
        assert isinstance(screen, AnalysisScreen)
        assert "reading example-simulated-h100 …" in "".join(screen.query_one("#page", LineCanvas).drawn)
        await pilot.press("escape")
        await pilot.pause()
        go.set()
        await pilot.pause(0.3)
        assert app.screen is not screen
        assert screen.found is None


async def test_ascii_and_no_colour_show_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shown(REAL, ascii=True) as one:
        strips = one.app.screen._compositor.render_strips()
        text = "\n".join("".join(segment.text for segment in strip) for strip in strips)
        assert text.isascii()
        assert "| D |" in text
    monkeypatch.setattr("textual.constants.COLOR_SYSTEM", "truecolor")
    monkeypatch.setenv("NO_COLOR", "1")
    async with shown(REAL) as one:
        for y in range(20):
            for segment in one.screen.query_one("#page", LineCanvas).render_line(y):
                assert segment.style is not None
                assert segment.style.color is not None
                assert len(set(segment.style.color.get_truecolor())) == 1


async def test_foreign_text_is_neither_markup_nor_control(folder: Path) -> None:
    header = folder / "one" / "session.json"
    raw = msgspec.json.decode(header.read_bytes())
    raw["pipeline"], raw["model"] = "x", "[red]\x1b[31mevil[/]"
    header.write_bytes(msgspec.json.encode(raw))
    stream = folder / "one" / "events.jsonl"
    lines = stream.read_text().splitlines()
    stream.write_text(
        "\n".join(line.replace('"name":"llava-1.5-7b"', '"name":"[b]\\u001b[2Jx"') for line in lines) + "\n"
    )
    async with shown(folder / "one") as one:
        text = one.part("page")
        assert "\x1b" not in text
        assert "[b]" in text
