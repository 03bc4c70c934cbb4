"""The comparison: what is drawn of two and more sides, and how one gets around in it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.pilot import Pilot

from llava_tui import events
from llava_tui.session import store
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.compare import Compared, CompareScreen, read
from llava_tui.tui.widgets.cells import width_of
from llava_tui.tui.widgets.compare_page import draw_compare, rows_of, step_widths
from llava_tui.tui.widgets.page import Page

EXAMPLES = Path(__file__).parents[2] / "sessions"
SIMULATED = "example-simulated-h100"


@pytest.fixture(scope="module")
def cases() -> Compared:
    """The cases of one session beside each other."""
    return read(EXAMPLES, [SIMULATED])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sessions of the same cases, the second with another plan."""
    for name in ("one", "two"):
        shutil.copytree(EXAMPLES / SIMULATED, tmp_path / name)
    header = tmp_path / "two" / "session.json"
    raw = msgspec.json.decode(header.read_bytes())
    raw["plan"]["prompt"] = "What is \x1b[31mthis\x1b[0m?"
    header.write_bytes(msgspec.json.encode(raw))
    for name in ("one", "two"):
        store.set_notes(tmp_path / name, events.Notes(name=name))
    return tmp_path


@asynccontextmanager
async def shown(
    folder: Path, references: list[str], size: tuple[int, int] = (120, 60)
) -> AsyncIterator[tuple[Pilot[None], CompareScreen, Callable[[], str]]]:
    app = LlavaTui(folder=folder, first=lambda: CompareScreen(folder, references))
    async with app.run_test(size=size) as pilot:
        screen = next(one for one in app.screen_stack if isinstance(one, CompareScreen))
        for _ in range(500):
            if screen.compared is not None or screen._notice:
                break
            await pilot.pause(0.02)
        await pilot.pause()

        def text() -> str:
            strips = app.screen._compositor.render_strips()
            return "\n".join("".join(segment.text for segment in strip) for strip in strips)

        yield pilot, screen, text


def page(compared: Compared, width: int = 120, row: str = "wall", group: int = 0) -> list[str]:
    lines = draw_compare(compared.groups[group], row, compared.differences, compared.labels, width)
    return ["".join(text for text, _ in line) for line in lines]


def test_the_cases_of_one_session_stand_beside_each_other_with_their_verdicts(cases: Compared) -> None:
    text = "\n".join(page(cases))
    assert "▲ f4-b1-n64 is 23 % slower than f1-b1-n64" in text
    assert "SIMULATED" in text
    whole = next(line for line in page(cases) if "whole run" in line and "%" in line)
    assert whole.count("SLOWER") == 2


def test_two_sides_show_interval_and_verdict_of_every_row() -> None:
    compared = read(EXAMPLES, [f"{SIMULATED}:f1-b1-n64", f"{SIMULATED}:f2-b1-n64"])
    lines = page(compared)
    prefill = next(line for line in lines if line.strip().startswith("prefill"))
    assert "SLOWER" in prefill
    assert "…" in prefill
    assert all("SLOWER" in line or "SAME" in line or "INCON" in line for line in lines if "  decode  " in line)
    narrow = page(compared, 80)
    assert any("▲ SLOWER" in line and "prefill" in line for line in narrow)


def test_every_row_that_was_measured_has_a_distribution(cases: Compared) -> None:
    group = cases.groups[0]
    for key in rows_of(group.columns, group.comparisons):
        title = group.comparisons[0].row(key).title  # type: ignore[union-attr]
        text = "\n".join(page(cases, row=key))
        assert f" {title}  runs by" in text
        assert text.count("●") == len(group.columns)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 200), row=st.sampled_from(["wall", "generate.decode", "ttft", "nothing"]))
def test_at_any_width_lines_are_exactly_as_wide(width: int, row: str) -> None:
    compared = _read_once()
    for line in draw_compare(compared.groups[0], row, compared.differences, ["a", "b"], width):
        assert width_of(line) == width


_kept: list[Compared] = []


def _read_once() -> Compared:
    if not _kept:
        _kept.append(read(EXAMPLES, [SIMULATED]))
    return _kept[0]


def test_steps_begin_at_the_same_place_on_every_side(cases: Compared) -> None:
    bars = [line for line in page(cases) if line[3:7] == "step"]
    assert len(bars) == 3
    assert len({tuple(place for place, glyph in enumerate(bar) if glyph == "│") for bar in bars}) == 1
    widths = step_widths([column.profile for column in cases.groups[0].columns], 100)
    assert sum(widths) <= 100
    assert widths[2] == max(widths)


def test_what_differs_in_the_plans_is_told_as_text(folder: Path) -> None:
    text = "\n".join(page(read(folder, ["one", "two"])))
    differing = next(line for line in text.split("\n") if line.startswith("   prompt"))
    assert "What is" in differing
    assert "\x1b" not in text


async def test_keys_choose_case_row_and_baseline(folder: Path) -> None:
    async with shown(folder, ["one", "two"]) as (pilot, screen, text):
        assert "COMPARE  f1-b1-n64  case 1 of 3" in text()
        assert "A one" in text()
        await pilot.press("v")
        assert "case 2 of 3" in text()
        await pilot.press("n")
        assert "▸ 1 frames" in text()
        await pilot.press("N")
        assert "▸ whole run" in text()
        await pilot.press("x")
        for _ in range(500):
            if screen.compared is not None:
                break
            await pilot.pause(0.02)
        assert screen.references == ["two", "one"]
        assert "A two" in text()


async def test_one_session_is_compared_with_the_pinned_baseline(folder: Path) -> None:
    store.set_notes(folder / "one", events.Notes(name="one", baseline=True))
    async with shown(folder, [str(folder / "two")]) as (_, screen, text):
        assert screen.references == ["@pinned", str(folder / "two")]
        assert "baseline" in text()


async def test_markdown_is_copied(folder: Path) -> None:
    async with shown(folder, ["one:f1-b1-n64", "one:f2-b1-n64"]) as (pilot, screen, text):
        await pilot.press("m")
        assert "copied as Markdown" in text()
        assert "| | A | B |" in screen.app.clipboard


async def test_a_small_window_scrolls_over_all_of_it(folder: Path) -> None:
    async with shown(folder, ["one"], (80, 24)) as (pilot, screen, text):
        assert "whole run" in text()
        await pilot.press("end")
        assert "step by step" in text() or "mem" in text()
        assert screen.query_one(Page).more[1] == 0
        await pilot.press("home", "pagedown", "up", "down", "pageup")
        assert screen.query_one(Page).more[0] == 0
        for size in ((20, 5), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert "whole run" in text()


@pytest.mark.parametrize(
    ("references", "why"),
    [
        (["nothing"], "no session 'nothing'"),
        (["one:f9-b1-n1", "two"], "no case f9-b1-n1"),
        ([f"one:f{n}" for n in range(7)], "at most 6"),
    ],
)
async def test_what_cannot_be_compared_is_said_and_left_with_escape(
    folder: Path, references: list[str], why: str
) -> None:
    async with shown(folder, references) as (pilot, screen, text):
        assert why in text()
        await pilot.press("v", "n", "x", "m", "end")
        await pilot.press("escape")
        await pilot.pause()
        assert screen.app.screen is not screen
