"""The form of a new run driven by keys, in a terminal that is not there; the runs that it starts are real."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from driven import Driven

from llava_tui.models import PRESETS
from llava_tui.plan import Plan, from_dict, read_file
from llava_tui.session import store
from llava_tui.session.reader import read_header, read_notes
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.screens.new_run import NewRunScreen
from llava_tui.tui.widgets.fields import ChoiceField, Picker, TextField

SIMULATED = {"pipeline": "simulated", "new_tokens": [8], "rounds": 2, "warmup": 0, "time_scale": 0}


class Planning(Driven[NewRunScreen]):
    """The form, and what it shows."""

    KIND = NewRunScreen

    @property
    def words(self) -> str:
        """The plan's page in one line."""
        return " ".join(self.part("plan").replace("│", " ").split())

    async def type(self, field: str, text: str) -> None:
        """Instead of what is in a field."""
        self.screen._fields.focus_field(field)
        await self.pilot.pause()
        await self.press("end", "ctrl+u")
        widget = self.screen._fields.all[field]
        if len(text) > 9:
            widget.value = text
            await self.pilot.pause()
        else:
            await self.press(*text)

    async def checked(self) -> None:
        await self.until(lambda: self.screen.prepared is not None)


@asynccontextmanager
async def planning(
    folder: Path, values: dict[str, Any] | None = None, size: tuple[int, int] = (120, 40), **options: object
) -> AsyncIterator[Planning]:
    app = LlavaTui(folder=folder, **options)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        app.open_new_run(values)
        shown = Planning(app, pilot)
        await shown.until(lambda: isinstance(app.screen, NewRunScreen) and "New run" in shown.everything())
        await pilot.pause()
        yield shown


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "all"


def ended(path: Path) -> bool:
    return store.status(path) not in store.LIVE


async def test_what_is_typed_is_checked_at_once_and_said_of_its_field(folder: Path) -> None:
    async with planning(folder, SIMULATED) as shown:
        await shown.checked()
        assert "✓ can run" in shown.words
        await shown.type("frames", "1,2,x")
        assert "✗ cannot frames: '1,2,x' is no list of whole numbers" in shown.words
        assert "✗ frames" in shown.part("names")
        await shown.press("ctrl+s")
        assert "it cannot start" in shown.part("heading")
        await shown.press("backspace", "4")
        assert "✗" not in shown.part("names")
        assert "cases 3: f1-b1-n8 f2-b1-n8 f4-b1-n8" in shown.words
        await shown.checked()
        assert "simulated (by the peaks of H100 80GB HBM3)" in shown.words
        assert "runs 10 of all kinds" in shown.words
        assert "GiB (weights, cache and activations, by estimate)" in shown.words
    assert not folder.exists()


async def test_model_and_inputs_are_looked_at_when_the_typing_rests(folder: Path, tmp_path: Path) -> None:
    async with planning(folder) as shown:
        await shown.type("inputs", str(tmp_path / "absent.mp4"))
        await shown.until(lambda: "no such file" in shown.words)
        assert "✗ inputs" in shown.part("names")
        await shown.type("inputs", "demo")
        await shown.type("model", "./absent")
        await shown.until(lambda: "./absent: no such folder" in shown.words)
        assert "✗ model" not in shown.part("names") or "✗ inputs" not in shown.part("names")
        await shown.press("f5")
        await shown.until(lambda: "it did not start" in shown.part("heading"))
    assert not folder.exists() or not list(folder.iterdir())


async def test_fields_are_reached_and_turned_by_keys_alone(folder: Path) -> None:
    async with planning(folder, size=(80, 24)) as shown:
        assert "demo, a folder, or a Hugging Face id" in shown.words
        await shown.press("up")
        assert isinstance(shown.app.focused, ChoiceField)
        assert "dtype" in shown.part("names")
        await shown.press("right", "right")  # past EventGPT
        assert shown.screen.form.pipeline == "simulated"
        assert "dtype" not in shown.part("names")
        assert "GPU" in shown.part("names")
        await shown.press("down", "left")
        assert shown.screen.form.plan().simulated_gpu == "a100"
        for _ in range(30):
            await shown.press("down")
        assert shown.screen._fields.focused_name() == "tags"
        assert "faults" in shown.everything()  # scrolled into sight
        await shown.press("shift+tab", "tab")
        assert shown.screen._fields.focused_name() == "tags"
        before = shown.part("plan")
        await shown.press("pagedown")
        assert shown.part("plan") != before
        await shown.press("pageup")
        assert shown.part("plan") == before


async def test_models_and_settings_can_be_picked_from_what_there_is(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}))
    async with planning(folder) as shown:
        await shown.until(lambda: shown.screen._models is not None)
        await shown.press("enter")
        await shown.until(lambda: isinstance(shown.app.screen, Picker))
        await shown.until(lambda: "owner/tiny" in shown.everything())
        assert "weights are missing" in shown.everything()
        await shown.press(*["down"] * len(PRESETS), "enter")
        assert shown.screen.form.texts["model"] == "owner/tiny"
        shown.screen._fields.focus_field("attention")
        await shown.pilot.pause()
        await shown.press("f4", "down", "space", "down", "space", "enter")
        assert shown.screen.form.texts["attention"] == "eager,sdpa"
        await shown.press("f4", "escape")
        assert shown.screen.form.texts["attention"] == "eager,sdpa"
        shown.screen._fields.focus_field("model")
        await shown.pilot.pause()
        await shown.press("ctrl+u", "o", "w")
        field = shown.app.focused
        assert isinstance(field, TextField)
        await shown.until(lambda: field._suggestion == "owner/tiny" or field.value == "ow")
        assert await field.known.get_suggestion("ow") is None  # its weights are missing
        assert await field.known.get_suggestion("de") == "demo"
        (tmp_path / "clips").mkdir()
        inputs = shown.screen._fields.all["inputs"]
        assert isinstance(inputs, TextField)
        assert await inputs.known.get_suggestion(f"demo {tmp_path}/cl") == f"demo {tmp_path}/clips/"


async def test_a_started_run_is_the_one_that_the_copied_command_starts(folder: Path, tmp_path: Path) -> None:
    values = SIMULATED | {"frames": [1, 2], "name": "it's one", "tags": ["a b"], "prompt": "two\nlines\x1b[0m"}
    async with planning(folder, values) as shown:
        await shown.type("inputs", "'somewhere else.mp4'")
        await shown.checked()
        await shown.press("f6")
        assert "was copied" in shown.part("heading")
        command = shown.app.clipboard
        await shown.press("f7")
        (tmp_path / "plan.toml").write_text(shown.app.clipboard)
        await shown.press("ctrl+s")
        await shown.until(lambda: isinstance(shown.app.screen, MonitorScreen))
        screen = shown.app.screen
        assert isinstance(screen, MonitorScreen)
        started = screen.path
        await shown.until(lambda: ended(started))
        await shown.press("escape")
        assert shown.app.screen.NAME == "sessions"  # type: ignore[attr-defined]
    # As a shell would: whatever the quoting is, it has to be right.
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, text=True)
    program, *arguments = words.stdout.split("\0")[:-1]
    assert program == "llava-tui"
    done = subprocess.run(
        [sys.executable, "-m", "llava_tui", *arguments, "--headless"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (other,) = set(folder.iterdir()) - {started}
    mine, theirs = read_header(started), read_header(other)
    assert mine.plan == theirs.plan
    assert (mine.model, mine.pipeline, mine.provenance) == (theirs.model, theirs.pipeline, theirs.provenance)
    assert mine.argv == [program, *arguments]
    assert read_notes(started) == read_notes(other)
    assert read_notes(started).name == "it's one"
    assert from_dict(read_file(tmp_path / "plan.toml")) == from_dict(mine.plan)
    assert store.status(started) == "finished"


async def test_a_sessions_plan_runs_again_as_it_was(folder: Path) -> None:
    plan = Plan(pipeline="simulated", prompt="\x1b[2J\u202e\nx" * 3, time_scale=0, rounds=1, warmup=0)
    values = json.loads(plan.to_json())
    async with planning(folder, values) as shown:
        assert shown.everything().replace("\n", "").isprintable()
        await shown.checked()
        assert shown.screen.prepared is not None
        assert shown.screen.prepared.prompt == plan.prompt
        await shown.press("f5")
        await shown.until(lambda: isinstance(shown.app.screen, MonitorScreen))
        (path,) = folder.iterdir()
        await shown.until(lambda: ended(path))
    assert from_dict(read_header(path).plan).prompt == plan.prompt


async def test_a_damaged_plan_says_what_is_wrong_with_it(folder: Path) -> None:
    values = {"pipeline": "simulated", "frames": {"a": 1}, "rounds": "\x1b[31m", "no_such_field": 1, "seed": [1]}
    async with planning(folder, values) as shown:
        assert "✗ cannot" in shown.words
        assert "left out no_such_field: not known to this version" in shown.words
        await shown.type("frames", "1")
        await shown.type("rounds", "1")
        await shown.type("seed", "1")
        await shown.checked()


async def test_what_was_typed_is_there_again_until_the_program_ends(folder: Path) -> None:
    async with planning(folder) as shown:
        await shown.type("name", "kept")
        await shown.press("escape")
        assert not isinstance(shown.app.screen, NewRunScreen)
        await shown.press("ctrl+n")
        await shown.until(lambda: isinstance(shown.app.screen, NewRunScreen))
        await shown.pilot.pause()
        assert shown.screen.form.plan().name == "kept"
        assert "kept" in shown.everything()
        await shown.press("ctrl+q")
    assert shown.app.return_code == 0


async def test_leaving_while_a_run_starts_leaves_a_run_that_goes_on(folder: Path) -> None:
    async with planning(folder, SIMULATED | {"rounds": 3}) as shown:
        await shown.press("ctrl+s", "ctrl+s", "ctrl+q")
        await shown.until(lambda: bool(shown.app.last_words))
        assert shown.app.last_words.startswith("the run goes on; llava-tui attach ")
    (path,) = folder.iterdir()
    assert path.name in shown.app.last_words
    for _ in range(200):
        if ended(path):
            break
        await asyncio.sleep(0.05)
    assert store.status(path) == "finished"


async def test_a_folder_that_cannot_be_written_keeps_the_form(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with planning(tmp_path / "file", SIMULATED) as shown:
        await shown.press("ctrl+s")
        await shown.until(lambda: "cannot create a session" in shown.words)
        assert "it did not start" in shown.part("heading")


@pytest.mark.parametrize("size", [(20, 5), (80, 24), (200, 60)])
async def test_any_size_can_be_drawn_and_comes_back(folder: Path, size: tuple[int, int]) -> None:
    async with planning(folder, SIMULATED, size) as shown:
        strips = shown.app.screen._compositor.render_strips()
        assert {strip.cell_length for strip in strips} == {size[0]}
        assert "inputs" in shown.everything()
        await shown.pilot.resize_terminal(30, 8)
        await shown.pilot.resize_terminal(*size)
        await shown.pilot.pause()
        assert "inputs" in shown.everything()


async def test_colour_and_more_than_ascii_are_not_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with planning(folder, SIMULATED, ascii=True, low_bandwidth=True) as shown:
        await shown.checked()
        await shown.type("prompt", "naïve")
        assert shown.everything().isascii()
        await shown.press("f1")
        assert "Start the run." in shown.everything()


async def test_who_may_only_look_gets_no_form(folder: Path) -> None:
    app = LlavaTui(folder=folder, read_only=True)
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("ctrl+n")
        assert not isinstance(app.screen, NewRunScreen)
