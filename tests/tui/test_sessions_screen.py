"""The browser of sessions driven by keys, in a terminal that is not there."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from driven import Driven
from screen_sessions import LOADING, WALL, Recording, course, record
from terminal_program import ESCAPES, TerminalProgram

from llava_tui import preflight, starting
from llava_tui.analysis.done import items_done
from llava_tui.events import DatasetFacts, Notes
from llava_tui.plan import from_dict
from llava_tui.session import control, store
from llava_tui.session.reader import read_notes
from llava_tui.session.timeline import Timeline
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.compare import CompareScreen
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.screens.new_run import NewRunScreen
from llava_tui.tui.screens.sessions import SessionsScreen
from llava_tui.tui.widgets.overlays import Prompt, Question

T0 = 1_767_225_600_000_000_000
HOSTILE = (
    "\x1b[2J\x1b]0;pwned\x07evil",
    "[bold red]markup[/] [link=x]y",
    "\u202egnp.exe\u2066",
    "a\nb\tc\r\n\x00\x9b31m",
    "👩‍👩‍👧‍👦 🇩🇪 e\u0301\u0301\u0301 漢字" * 20,
    "שלום עולם مرحبا",
    "x" * 1_000_000,
)


class Browser(Driven[SessionsScreen]):
    """The browser, and what it shows."""

    KIND = SessionsScreen

    @property
    def rows(self) -> list[str]:
        """The lines of the list."""
        return self.part("table").rstrip().splitlines()

    async def type(self, text: str) -> None:
        """Into the line that was asked for."""
        await self.until(lambda: isinstance(self.app.screen, Prompt))
        self.app.screen.query_one("Input").value = text  # type: ignore[attr-defined]
        await self.pilot.pause()
        await self.pilot.press("enter")


@asynccontextmanager
async def browser(folder: Path, size: tuple[int, int] = (120, 40), **options: object) -> AsyncIterator[Browser]:
    app = LlavaTui(folder=folder, **options)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        shown = Browser(app, pilot)
        await shown.until(lambda: shown.screen.infos is not None)
        yield shown


def add(folder: Path, name: str, hour: int, **header: object) -> Path:
    """A session that began in that hour."""
    return record(folder / name, course(runs=8), wall0=T0 + hour * 3_600_000_000_000, **header)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three sessions, the newest last by name."""
    monkeypatch.setenv("LLAVA_TUI_DATA", str(tmp_path / "no calibration"))
    for hour, name in enumerate(("old", "middle", "new")):
        add(tmp_path / "all", name, hour, model=f"owner/{name}-llava", plan={"frames": [1, 4], "new_tokens": [16]})
    return tmp_path / "all"


async def test_live_sessions_come_first_then_the_newest_each_with_its_figures(
    folder: Path, live: Callable[..., Recording]
) -> None:
    recording = Recording(folder / "running", course(), wall0=T0 - 10**9, model="tiny/live")
    try:
        recording.write_until(LOADING + 2 * WALL)
        async with browser(folder, (140, 40)) as shown:
            assert [row.split()[2 if row.startswith("▸") else 1] for row in shown.rows] == [
                "running",
                "new",
                "middle",
                "old",
            ]
            assert shown.rows[0].startswith("▸ ● running")
            assert "1/8" in shown.part("preview")
            await shown.until(lambda: "…" not in shown.part("table"))
            row = shown.rows[1].split()
            assert row[:4] == ["■", "new", "new-llava", "2"]
            assert "new-llava" in shown.rows[1]
            assert {"A", "B", "C", "D", "E"} & set(row)
            assert "00:19" in row
            assert "● 1 live" in shown.part("heading")
            await shown.press("down")
            await shown.until(lambda: "1 frames" in shown.part("preview"))
            assert "2 encode" in shown.part("preview")
            recording.write_until(1 << 62)
            recording.close()
            await shown.until(lambda: "● 1 live" not in shown.part("heading"))
            # Now it is the oldest; the cursor stays on its session.
            assert shown.rows[-1].startswith("  ■ running")
            assert shown.rows[0].startswith("▸ ■ new")
    finally:
        recording.close()


async def test_what_cannot_be_read_is_listed_with_its_reason_and_opens_nothing(folder: Path) -> None:
    for name, text in (("damaged", "{"), ("empty", None), ("newer", '{"schema":[99,0]}')):
        (folder / name).mkdir()
        if text is None:
            (folder / name / "lock").touch()
        else:
            (folder / name / "session.json").write_text(text)
    shutil.copytree(folder / "new", folder / "torn")
    os.truncate(folder / "torn" / "events.jsonl", 1000)
    (folder / "somebody's").mkdir()
    async with browser(folder) as shown:
        text = shown.part("table")
        assert "somebody" not in text
        assert any("damaged" in row and "is damaged" in row for row in shown.rows)
        assert any("newer" in row and "99" in row for row in shown.rows)
        assert any(row.lstrip(" ▸").startswith("? empty") for row in shown.rows)
        assert any("▲ torn" in row for row in shown.rows)
        await shown.press("end")
        for key in ("enter", "a", "R"):
            await shown.press(key)
            assert shown.app.screen is shown.screen
            assert "cannot be read" in shown.part("heading")
        await shown.press("c")
        assert "cannot be read" in shown.part("heading")


async def test_a_session_that_cannot_be_opened_after_all_leads_back_with_the_reason(folder: Path) -> None:
    async with browser(folder) as shown:
        (folder / "new" / "events.jsonl").unlink()
        (folder / "new" / "events.jsonl").mkdir()
        await shown.press("enter")
        await shown.until(lambda: "cannot read" in shown.part("heading"))
        assert shown.app.screen is shown.screen
        await shown.press("down", "enter", "escape")  # left before it is open
        assert shown.app.screen is shown.screen


async def test_the_filter_holds_while_it_is_typed_and_escape_takes_it_away(folder: Path) -> None:
    store.set_notes(folder / "middle", Notes(tags=("Nightly",), note="after the driver's update"))
    async with browser(folder) as shown:
        await shown.press("slash")
        await shown.press(*"nightly upd")
        assert len(shown.screen.shown) == 1
        await shown.until(lambda: "middle" in shown.everything())
        assert "new-llava" not in shown.everything()
        await shown.press("enter")
        assert "1 of 3" in shown.part("heading")
        await shown.press("slash", "x", "x", "enter")
        assert "no session holds all of these words" in shown.part("table")
        await shown.press("escape")
        assert len(shown.rows) == 3
        await shown.press("slash", "o", "l", "d", "escape")  # escape while typing: as it was
        assert len(shown.rows) == 3
        assert "esc" not in shown.part("footer")


async def test_marked_sessions_are_compared_the_first_marked_being_the_baseline(folder: Path) -> None:
    async with browser(folder) as shown:
        await shown.press("end", "space", "home", "space")
        assert "✓ 2 marked" in shown.part("heading")
        assert [row[1] for row in shown.rows] == ["✓", " ", "✓"]
        await shown.press("c")
        await shown.until(lambda: isinstance(shown.app.screen, CompareScreen))
        screen = shown.app.screen
        assert isinstance(screen, CompareScreen)
        assert screen.references == [str(folder / "old"), str(folder / "new")]
        await shown.press("escape", "escape")
        assert "✓" not in shown.part("heading")
        await shown.press("c")
        assert isinstance(shown.app.screen, CompareScreen)
        assert shown.app.screen.references[-1] == str(folder / "middle")


async def test_enter_opens_the_session_and_escape_comes_back_to_it(folder: Path) -> None:
    async with browser(folder) as shown:
        await shown.press("down", "enter")
        await shown.until(lambda: isinstance(shown.app.screen, MonitorScreen))
        assert isinstance(shown.app.screen, MonitorScreen)
        assert shown.app.screen.path == folder / "middle"
        add(folder, "newest", 9)
        await shown.press("escape")
        await shown.until(lambda: len(shown.rows) == 4)
        assert shown.rows[2].startswith("▸ ■ middle")


async def test_a_click_chooses_and_two_open(folder: Path) -> None:
    async with browser(folder) as shown:
        await shown.pilot.click("#table", offset=(6, 2))
        await shown.until(lambda: shown.rows[2].startswith("▸ ■ old"))
        await shown.until(lambda: "old-llava" in shown.part("preview"))
        assert shown.app.screen is shown.screen
        await shown.pilot.click("#table", offset=(6, 1), times=2)
        await shown.until(lambda: isinstance(shown.app.screen, MonitorScreen))
        assert isinstance(shown.app.screen, MonitorScreen)
        assert shown.app.screen.path == folder / "middle"


async def test_names_tags_and_notes_are_kept_and_nobodys_are_lost(folder: Path) -> None:
    path = folder / "new"
    async with browser(folder) as shown:
        await shown.press("r")
        await shown.type("  a better name ")
        await shown.until(lambda: "a better name" in shown.rows[0])
        await shown.press("e")
        # Another viewer writes while this one is being asked.
        store.set_notes(path, msgspec.structs.replace(read_notes(path), tags=("theirs",)))
        await shown.type("a note⏎of two lines")
        await shown.until(lambda: "of two lines" in shown.part("preview"))
        assert "#theirs" in shown.part("preview")
        await shown.press("t")
        await shown.type("theirs  ours ours")
        await shown.until(lambda: "#theirs #ours" in shown.part("preview"))
        await shown.press("e", "escape")
    assert read_notes(path) == Notes(name="a better name", tags=("theirs", "ours"), note="a note\nof two lines")


async def test_notes_of_another_process_appear_by_themselves(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from llava_tui.events import DatasetFacts, Notes; from llava_tui.session import store\n"
        "store.set_notes(Path(sys.argv[1]), Notes(name='named there', note='a word'))"
    )
    async with browser(folder) as shown:
        subprocess.run([sys.executable, "-c", code, str(folder / "middle")], check=True, timeout=60)
        await shown.until(lambda: "named there" in shown.rows[1])
        await shown.press("down")
        await shown.until(lambda: "a word" in shown.part("preview"))
        shutil.rmtree(folder / "new")
        await shown.until(lambda: len(shown.rows) == 2)
        assert shown.rows[0].startswith("▸ ■ named there")


async def test_deleting_asks_first_and_never_takes_what_runs(folder: Path) -> None:
    recording = Recording(folder / "running", course(), wall0=T0)
    try:
        recording.write_until(LOADING + WALL)
        async with browser(folder) as shown:
            await shown.press("D")
            assert shown.app.screen is shown.screen
            assert "running is running: stop it first" in shown.part("heading")
            await shown.press("down", "D")
            assert isinstance(shown.app.screen, Question)
            assert "Delete new for good?" in shown.everything()
            await shown.press("escape")
            assert (folder / "new").exists()
            await shown.press("D", "y")
            await shown.until(lambda: "new" not in shown.part("table"))
            assert not (folder / "new").exists()
            await shown.press("home", "space", "space", "D", "y")
            await shown.until(lambda: "stop it first" in shown.part("heading"))
            assert "1 deleted" in shown.part("heading")
            assert sorted(path.name for path in folder.iterdir()) == ["old", "running"]
    finally:
        recording.close()


async def test_a_session_is_pinned_and_the_others_are_judged_by_it(folder: Path) -> None:
    record(folder / "slow", course(runs=40, ms=1_500_000), wall0=T0 + 10**15)
    record(folder / "quick", course(runs=40), wall0=T0 + 2 * 10**15)
    async with browser(folder) as shown:
        assert shown.rows[0].startswith("▸ ■ quick")
        await shown.press("B")
        await shown.until(lambda: "baseline" in shown.rows[0])
        await shown.until(lambda: "▲ +50.0 %" in shown.rows[1])
        await shown.press("down")
        await shown.until(lambda: "50 % slower" in " ".join(shown.part("preview").replace("│", " ").split()))
        assert read_notes(folder / "quick").baseline
        await shown.press("up", "B")
        await shown.until(lambda: "baseline" not in shown.rows[0])
        assert not read_notes(folder / "quick").baseline


async def test_a_sessions_plan_becomes_a_new_run(folder: Path) -> None:
    async with browser(folder) as shown:
        await shown.press("R")
        await shown.until(lambda: isinstance(shown.app.screen, NewRunScreen))
        assert isinstance(shown.app.screen, NewRunScreen)
        assert shown.app.screen.values == {"frames": [1, 4], "new_tokens": [16]}


async def test_the_list_can_be_ordered_otherwise(folder: Path) -> None:
    store.set_notes(folder / "new", Notes(name="zebra"))
    record(folder / "long", course(runs=20), wall0=T0, model="a/first")
    async with browser(folder) as shown:
        firsts: dict[str, list[str]] = {}
        for _ in range(4):
            firsts[shown.screen.choosing.order] = [info.id for info in shown.screen.shown]
            await shown.press("o")
        assert firsts["time"][0] == "new"
        assert firsts["name"] == ["long", "middle", "old", "new"]
        assert firsts["model"][0] == "long"
        assert firsts["length"][0] == "long"
        assert [info.id for info in shown.screen.shown] == firsts["time"]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand copies of a session."""
    folder = tmp_path_factory.mktemp("many") / "all"
    first = record(folder / "run-0000", course(runs=6), wall0=T0)
    header = (first / "session.json").read_bytes()
    for number in range(1, 1000):
        path = folder / f"run-{number:04}"
        path.mkdir()
        for name in ("events.jsonl", "telemetry.jsonl"):
            os.link(first / name, path / name)
        (path / "session.json").write_bytes(header.replace(str(T0).encode(), str(T0 + number * 10**9).encode()))
    return folder


async def test_a_thousand_sessions_scroll_and_only_what_is_in_sight_is_read(thousand: Path) -> None:
    async with browser(thousand, (100, 30)) as shown:
        drawn: list[int] = []
        draw = shown.screen._draw_row
        shown.screen._draw_row = lambda index, *more: drawn.append(index) or draw(index, *more)  # type: ignore[method-assign,func-returns-value]
        shown.screen.redraw()
        window = shown.screen.table.size.height
        began = time.monotonic()
        for _ in range(60):
            await shown.press("down")
        took = time.monotonic() - began
        assert shown.screen.current() is not None
        assert shown.rows[-1].startswith("▸ ■ run-0939")
        assert len(drawn) < 120 * window
        await shown.press("end")
        assert shown.rows[-1].startswith("▸ ■ run-0000")
        await shown.press("pageup", "home")
        await shown.until(lambda: "…" not in shown.part("table"))
        digests = shown.screen._digests
        assert digests is not None
        assert len(digests._known) < 10 * window
        assert took < 10


async def test_hostile_text_changes_nothing_but_its_cell(folder: Path) -> None:
    for number, text in enumerate(HOSTILE):
        plan = {"inputs": [text], "frames": text, "rounds": {"a": text}}
        path = add(folder, f"hostile-{number}", 5, model=text, plan=plan)
        store.set_notes(path, Notes(name=text, tags=(text,), note=text))
    async with browser(folder, (100, 36)) as shown:
        assert len(shown.rows) == 10
        when = shown.rows[-1].index("Jan 2026") - 2
        for _ in HOSTILE:
            await shown.pilot.pause(0.2)  # until the cursor rests, and the preview is drawn
            strips = shown.app.screen._compositor.render_strips()
            assert {strip.cell_length for strip in strips} == {100}
            assert shown.everything().replace("\n", "").isprintable()
            assert "\u202e" not in shown.everything()
            # What stands behind the hostile cells is where it is in every row.
            assert len({strip.crop(when, when + 11).text for strip in strips[2:12]}) == 1
            await shown.press("down")
        assert shown.rows[len(HOSTILE)].startswith("▸ ■ new")
        for key in "/terD":
            await shown.press("home", key)
            assert shown.everything().replace("\n", "").isprintable()
            await shown.press("escape")


@pytest.mark.parametrize("size", [(20, 5), (80, 24), (200, 60)])
async def test_any_size_can_be_drawn_and_comes_back(folder: Path, size: tuple[int, int]) -> None:
    async with browser(folder, size) as shown:
        strips = shown.app.screen._compositor.render_strips()
        assert {strip.cell_length for strip in strips} == {size[0]}
        assert "▸ ■ new" in shown.everything()
        if size[1] >= 18:
            await shown.until(lambda: "generate" in shown.part("preview"))
        await shown.pilot.resize_terminal(30, 8)
        await shown.pilot.resize_terminal(*size)
        await shown.until(lambda: "▸ ■ new" in shown.everything())


async def test_colour_is_not_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with browser(folder, low_bandwidth=True) as shown:
        await shown.press("space", "slash", "o", "enter", "question_mark")
        assert "Show only sessions" in shown.everything()


async def test_ascii_shows_only_ascii(folder: Path) -> None:
    store.set_notes(folder / "new", Notes(name="naïve 漢字", baseline=True))
    async with browser(folder, ascii=True) as shown:
        await shown.press("space")
        await shown.until(lambda: "generate" in shown.part("preview"))
        assert shown.everything().isascii()


async def test_of_a_data_set_the_preview_says_how_far_it_came(folder: Path) -> None:
    dataset = DatasetFacts(path="/data/all.jsonl", count=12, digest="0")
    add(
        folder,
        "newest",
        9,
        dataset=dataset,
        plan={"dataset": "/data/all.jsonl", "frames": [0], "quantization": "bnb-4bit"},
    )
    async with browser(folder) as shown:
        await shown.until(lambda: "items    3 of 12 of all.jsonl done" in shown.part("preview"))
        words = " ".join(shown.part("preview").replace("│", " ").split())
        assert "text only · quantization bnb-4bit · on all.jsonl" in words


async def test_a_data_set_that_was_stopped_is_gone_on_with_by_a_key(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("path\n" + "".join(f"{n}.mp4\n" for n in range(30)))
    plan = from_dict(
        {
            "pipeline": "simulated",
            "dataset": str(tmp_path / "all.csv"),
            "new_tokens": [16],
            "warmup": 0,
            "time_scale": 0.1,
        }
    )
    path, worker = starting.start(folder, preflight.prepare(plan), ["llava-tui", "run"])
    timeline = Timeline.open(path)
    while not (timeline.poll() and timeline.now().runs.where(kind="measured").sum() > 3):
        await asyncio.sleep(0.02)
    control.send(path, "stop-now")
    worker.wait(30)
    before = store.info(path).runs_done
    async with browser(folder) as shown:
        assert "G go on" in shown.part("footer")
        await shown.press("down")
        assert "G go on" not in shown.part("footer"), "it has no data set"
        await shown.press("up", "G")
        await shown.until(lambda: isinstance(shown.app.screen, MonitorScreen))
        await shown.until(lambda: store.status(path) == "finished")
    timeline.poll()
    done = items_done(timeline.now(), "f4-b1-n16")
    assert done is not None
    assert (done.done, done.of) == (30, 30)
    assert store.info(path).runs_done > before


async def test_who_may_only_look_cannot_change_anything(folder: Path) -> None:
    async with browser(folder, read_only=True) as shown:
        for key, title in {"r": "rename", "t": "tags", "D": "delete", "B": "baseline", "ctrl+n": "new run"}.items():
            await shown.press(key)
            assert shown.app.screen is shown.screen
            assert f"{title}: read-only, nothing can be changed from here" in shown.part("heading")
        await shown.press("down")
        assert "read-only" not in shown.part("heading")
        assert "rename" not in shown.part("footer")
    assert read_notes(folder / "new") == Notes()


async def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    async with browser(tmp_path / "absent", (80, 24)) as shown:
        await shown.until(lambda: "no sessions yet: ctrl+n plans a run" in shown.part("table"))
        await shown.press("enter", "space", "c", "D", "down", "end", "R")
        assert shown.app.screen is shown.screen


# --- on a real terminal ---------------------------------------------------------------------------------------------


@pytest.fixture
def program(folder: Path) -> Iterator[Callable[..., TerminalProgram]]:
    """Starts `llava-tui` on the folder in a pseudo-terminal; ends what is left of it."""
    started: list[TerminalProgram] = []

    def start(*arguments: str, **how: object) -> TerminalProgram:
        command = [sys.executable, "-m", "llava_tui", "--sessions", str(folder), *arguments]
        started.append(TerminalProgram(command, **how))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_without_a_verb_the_browser_opens_and_at_rest_it_writes_nothing(
    program: Callable[..., TerminalProgram],
) -> None:
    shown = program(cols=80, rows=24)
    shown.until("generate")
    shown.read(0.5)
    before = len(shown.output)
    shown.read(3)
    assert len(shown.output) == before
    shown.write("q")
    shown.ended_within(10)
    assert shown.code == 0


def test_screen_options_stand_before_the_verb_too(program: Callable[..., TerminalProgram]) -> None:
    for arguments in (("--ascii",), ("--ascii", "open", "new")):
        shown = program(*arguments)
        shown.until("generate")
        drawn = ESCAPES.sub(b"", shown.output).decode(errors="replace")
        assert drawn.isascii(), drawn
        shown.write("q")
        shown.ended_within(10)
        assert shown.code == 0


def test_where_there_is_no_terminal_the_list_is_printed(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llava_tui", "--sessions", str(folder), "--low-bandwidth"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    assert "middle" in done.stdout
