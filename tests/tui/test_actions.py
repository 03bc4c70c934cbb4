from __future__ import annotations

from llava_tui.tui import actions
from llava_tui.tui.screens.monitor import MonitorScreen


def test_every_action_can_be_done_and_every_key_means_one_thing() -> None:
    keys = [key for action in actions.ACTIONS for key in action.keys]
    assert len(keys) == len(set(keys))
    for action in actions.ACTIONS:
        assert callable(getattr(MonitorScreen, "do_" + action.id))
        assert actions.by_id(action.id) is action


def test_keys_can_be_overridden_by_id() -> None:
    assert {binding.id for binding in actions.bindings()} == {action.id for action in actions.ACTIONS}


def test_control_is_not_offered_where_no_worker_is() -> None:
    assert {"pause", "stop", "skip", "more"} & {action.id for action in actions.offered(False)} == set()
    assert {"pause", "stop", "skip", "more", "quit"} <= {action.id for action in actions.offered(True)}


def test_a_narrow_footer_keeps_what_matters_most() -> None:
    live = actions.offered(True)
    for width in range(120):
        keys = actions.footer_keys(live, width)
        assert sum(len(key) + 1 + len(title) + 2 for key, title in keys) - 2 <= max(width, -2)
    assert actions.footer_keys(live, 20) == [("q", "quit"), ("?", "help")]
    assert actions.footer_keys(live, 30, {"stop": "halt"}) == [("s", "halt"), ("q", "quit"), ("?", "help")]
