from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from llava_tui.session.reader import SessionError
from llava_tui.tui import actions, keymap
from llava_tui.tui.actions import Actions
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.analysis import AnalysisScreen
from llava_tui.tui.screens.compare import CompareScreen
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.screens.new_run import NewRunScreen
from llava_tui.tui.screens.sessions import SessionsScreen

KEYS = Path("keys.toml")


def test_every_key_means_one_thing_on_a_screen() -> None:
    assert keymap.clashes(Actions()) == ""
    for action in actions.ACTIONS:
        assert actions.by_id(action.id) is action


def test_keys_can_be_overridden_by_id() -> None:
    for screen in actions.SCREENS:
        named = {binding.id for binding in actions.bindings(screen)} - {None}
        assert named == {entry.id for entry in actions.ACTIONS if screen in entry.screens and not entry.key_matters}


def test_the_users_keys_are_shown_and_hold() -> None:
    table = Actions(keymap.parse('[keys]\npause = "P"\nquit = ["X", "ctrl+q"]\nmore = "*"\n', KEYS))
    keys = {action.id: action.keys for action in table.of("monitor", {"live"})}
    assert (keys["pause"], keys["quit"], keys["more"]) == (("P",), ("X", "ctrl+q"), ("asterisk",))
    assert table.textual_keymap() == {"pause": "P", "quit": "X,ctrl+q", "more": "asterisk"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[keys\n", "keys.toml"),
        ("keys = 3\n", "a table"),
        ('[keys]\nfly = "f"\n', "no action 'fly'"),
        ("[keys]\npause = 3\n", "pause: a key or a list of keys"),
        ('[keys]\npause = "s"\n', "'s' would mean both pause and stop on the screen monitor"),
        ('[keys]\ntenth = "s"\n', "tenth: its keys cannot be changed"),
    ],
)
def test_a_wrong_keymap_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(SessionError, match=why) as refused:
        keymap.parse(text, KEYS)
    assert "keys.toml" in str(refused.value)


def test_a_keymap_that_is_not_there_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keymap.VARIABLE, str(tmp_path / "none.toml"))
    assert keymap.read() == {}


def test_control_is_not_offered_where_no_worker_is() -> None:
    control = {"pause", "stop", "skip", "more", "repeat"}
    assert control & {action.id for action in Actions().of("monitor")} == set()
    assert {*control, "quit"} <= {action.id for action in Actions().of("monitor", {"live"})}


def test_a_narrow_footer_keeps_what_matters_most() -> None:
    live = Actions().of("monitor", {"live"})
    for width in range(120):
        keys = actions.footer_keys(live, width)
        assert sum(len(key) + 1 + len(title) + 2 for key, title in keys) - 2 <= max(width, -2)
    assert actions.footer_keys(live, 20) == [("q", "quit"), ("?", "help")]
    assert actions.footer_keys(live, 30, {"stop": "halt"}) == [("s", "halt"), ("q", "quit"), ("?", "help")]


def test_the_page_of_keys_is_of_this_table() -> None:
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("make_keys", docs / "make_keys.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (docs / "keys.md").read_text(encoding="utf-8") == made.text(), "run python docs/make_keys.py"


def test_whoever_may_only_look_is_offered_nothing_that_changes_anything() -> None:
    may = {entry.id for screen in actions.SCREENS for entry in Actions(read_only=True).of(screen, actions.NEEDS)}
    assert not may & actions.WRITES
    assert {"open", "play", "compare", "quit", "filter", "mark"} <= may


def test_every_action_can_be_done_on_every_screen_that_offers_it() -> None:
    rooms = {
        "sessions": SessionsScreen, "new-run": NewRunScreen, "monitor": MonitorScreen, "compare": CompareScreen,
        "analysis": AnalysisScreen,
    }  # fmt: skip
    missing = [
        (screen, entry.id)
        for screen, room in rooms.items()
        for entry in actions.ACTIONS
        if screen in entry.screens
        and not any(callable(getattr(one, "do_" + entry.id, None)) for one in (room, LlavaTui))
    ]
    assert missing == []
