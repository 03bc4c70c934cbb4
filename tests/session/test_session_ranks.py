"""A session that several ranks measured: each has a stream, and all are one timeline."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from any_session import contents, happenings, session_in, write
from hypothesis import given, settings
from hypothesis import strategies as st
from session_making import MakeSession, append

from llava_tui import events
from llava_tui.session import store
from llava_tui.session.reader import SessionError, rank_of, stream_paths
from llava_tui.session.rows import BY_RANK
from llava_tui.session.timeline import Timeline


def test_a_stream_belongs_to_the_rank_in_its_name_and_to_the_first_without_one() -> None:
    named = {"events-3.jsonl": 3, "events-012.jsonl": 12, "events.jsonl": 0, "events-0.jsonl": 0}
    strange = (
        "events.porter.jsonl",
        "events-x.jsonl",
        "events-1.old.jsonl",
        "telemetry-2.jsonl",
        "events-9999999.jsonl",
    )
    assert {name: rank_of(name) for name in (*named, *strange)} == named | dict.fromkeys(strange, 0)


@settings(deadline=None, max_examples=20)
@given(happened=happenings(), cut=st.integers(0, 25), t=st.integers(-1, 60))
def test_each_rank_tells_what_it_would_have_told_alone(happened: list[tuple[str, Any]], cut: int, t: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = session_in(folder, "all")
        write(path, happened[:cut])
        followed = Timeline.open(path)
        write(path, happened[cut:])
        followed.poll()
        opened = Timeline.open(path)
        for rank in opened.ranks:
            alone = session_in(folder, str(rank))
            write(alone, [(stream, event) for stream, event in happened if rank_of(stream) == rank])
            expected = contents(Timeline.open(alone).of(rank))
            for timeline in (opened, followed):
                told = contents(timeline.of(rank))
                assert {table: told[table] for table in BY_RANK} == {table: expected[table] for table in BY_RANK}
                assert told["samples"] == contents(timeline)["samples"]
                seen = timeline.of(rank).at(t).runs.rows()
                assert seen == [row for row in expected["runs"] if row["t"] <= t]
        merged = contents(opened)
        assert contents(followed) == merged
        for table in BY_RANK:
            rows = [row for rank in opened.ranks for row in contents(opened.of(rank))[table]]
            assert sorted(map(repr, rows)) == sorted(map(repr, merged[table]))
            assert [row["t"] for row in merged[table]] == sorted(row["t"] for row in rows)


def test_runs_of_several_ranks_have_the_same_numbers_and_are_never_taken_for_each_other(
    make_session: MakeSession,
) -> None:
    path = make_session(happened=[])
    for rank, wall in ((0, 10), (1, 30), (2, 50)):
        stream = path / (f"events-{rank}.jsonl" if rank else "events.jsonl")
        begun = events.RunStart(t=1, rank=rank, run=1, kind="measured", case="a", round=0)
        ended = events.RunEnd(
            t=60 + rank, rank=rank, run=1, outcome="ok", start=2, wall=wall, stages=["a"], durations=[wall]
        )
        append(stream, [begun, ended])
    timeline = Timeline.open(path)
    assert timeline.ranks == [0, 1, 2]
    assert timeline.runs["rank"].tolist() == [0, 1, 2]
    assert timeline.runs["wall"].tolist() == [10, 30, 50]
    for rank, wall in ((0, 10), (1, 30), (2, 50)):
        view = timeline.of(rank).now()
        assert view.runs["wall"].tolist() == view.stages["duration"].tolist() == [wall]
    assert timeline.now().runs["wall"].tolist() == [10], "a picture is of rank 0 unless another is asked for"
    assert timeline.of(2).at(61).current is not None
    with pytest.raises(SessionError, match=r"no rank 3; it has 0, 1, 2"):
        timeline.of(3)


def test_a_rank_that_comes_while_a_session_is_watched_joins_its_timeline(make_session: MakeSession) -> None:
    path = make_session(happened=[events.StateChange(t=1, state="loading")])
    timeline = Timeline.open(path)
    assert timeline.ranks == [0]
    before = timeline.now()
    append(path / "events-1.jsonl", [events.StateChange(t=2, rank=1, state="cold")])
    append(path / "events.jsonl", [events.StateChange(t=3, state="measuring")])
    assert timeline.poll()
    assert before.state == "loading"
    assert (timeline.ranks, timeline.now().state, timeline.of(1).now().state) == ([0, 1], "measuring", "cold")
    assert timeline.states["rank"].tolist() == [0, 1, 0]


def test_the_first_rank_tells_how_a_session_ended(make_session: MakeSession) -> None:
    path = make_session(happened=[events.StateChange(t=5, state="closed")])
    append(path / "events-1.jsonl", [events.StateChange(t=4, rank=1, state="failed", reason="later by name? no")])
    append(path / "events-10.jsonl", [events.StateChange(t=4, rank=10, state="failed")])
    assert [stream.name for stream in stream_paths(path, "events")] == [
        "events.jsonl",
        "events-1.jsonl",
        "events-10.jsonl",
    ]
    assert store.status(path) == "finished"
    assert store.info(path).reason == ""


def test_warnings_of_every_rank_are_in_every_ranks_log(make_session: MakeSession) -> None:
    path: Path = make_session(happened=[events.Log(t=1, level="info", text="zero")])
    append(path / "events-1.jsonl", [events.Log(t=2, rank=1, level="warning", text="one")])
    timeline = Timeline.open(path)
    for rank in (0, 1):
        assert [(row["text"], row["rank"]) for row in timeline.of(rank).now().log.rows()] == [("zero", 0), ("one", 1)]
