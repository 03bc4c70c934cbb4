"""The two sessions that come with the repository open, and are what their README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from llava_tui.analysis.steps import case_ids, step_table
from llava_tui.report import overview
from llava_tui.session import store
from llava_tui.session.timeline import Timeline

SESSIONS = Path(__file__).resolve().parent.parent / "sessions"


@pytest.mark.parametrize(
    ("name", "provenance"), [("example-demo-cpu", "random-weights"), ("example-simulated-h100", "simulated")]
)
def test_an_example_opens_and_holds_what_it_promises(name: str, provenance: str) -> None:
    info = store.info(SESSIONS / name)
    assert (info.status, info.problem, info.header and info.header.provenance) == ("finished", "", provenance)
    timeline = Timeline.open(SESSIONS / name)
    assert timeline.corrupt == 0
    view = timeline.now()
    assert len(case_ids(view)) == 3
    for case in case_ids(view):
        table = step_table(view, case)
        assert table.n >= 6
        assert table.wall.summary.low is not None
        assert [row.path for row in table.rows if row.depth == 0] == ["frames", "encode", "generate", "unaccounted"]
    assert view.host.n or view.samples.n
    text = overview.as_text(info, timeline)
    assert ("SIMULATED" in text) == (provenance == "simulated")


@pytest.mark.parametrize("name", ["example-demo-cpu", "example-simulated-h100"])
def test_an_example_names_no_machine(name: str) -> None:
    for file in (SESSIONS / name).iterdir():
        text = file.read_text(encoding="utf-8")
        assert not any(folder in text for folder in ("/home/", "/root", "/tmp/", "/Users/")), file


def test_both_are_found_by_name() -> None:
    assert store.find(SESSIONS, "demo-cpu").name == "example-demo-cpu"
    assert {info.id for info in store.list_sessions(SESSIONS)} >= {"example-demo-cpu", "example-simulated-h100"}
