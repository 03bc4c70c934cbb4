"""Ranks side by side: what each took, what they come to together, and who waits for whom."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import headers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui import events
from llava_tui.analysis import fairness
from llava_tui.analysis.machine import Watched
from llava_tui.analysis.measures import measures
from llava_tui.analysis.ranks import RankTable, rank_table
from llava_tui.report import ranks as report
from llava_tui.session import writer
from llava_tui.session.timeline import Timeline
from llava_tui.session_files import DatasetFacts

S = 1_000_000_000
CASE = "f1-b2-n4"


def session(path: Path, walls: list[dict[int, int]], items: list[dict[int, list[int]]] | None = None) -> Timeline:
    """A session whose rank r ran the measured runs ``walls[r]`` (ns by number), of a data set those ``items``."""
    path.mkdir()
    dataset: dict[str, Any] = {"dataset": DatasetFacts(path="d.jsonl", count=9, digest="")} if items is not None else {}
    writer.write_atomically(path / "session.json", headers.make_header(path.name, wall0=0, plan={}, **dataset))
    for rank, own in enumerate(walls):
        stream = writer.StreamWriter(path / (f"events-{rank}.jsonl" if rank else "events.jsonl"))
        if not rank:
            case = events.Case(CASE, {"frames": 1, "batch": 2, "new_tokens": 4})
            stream.write(events.Schedule(t=0, cases=[case], rounds=1, runs=9))
            stream.write(events.StageTree(t=0, stages=[events.StageInfo("encode", "2 encode")]))
        for run, wall in own.items():
            t, taken = run * 100 * S, items[rank][run] if items is not None else []
            kind = "measured" if items is None or len(taken) == 2 else "partial"
            stream.write(events.RunStart(t=t, rank=rank, run=run, kind=kind, case=CASE, round=run, items=taken))
            stages: dict[str, Any] = {"stages": ["encode"], "starts": [0], "durations": [wall // 2]}
            stream.write(events.RunEnd(t=t + wall, rank=rank, run=run, outcome="ok", start=t, wall=wall, **stages))
        stream.close()
    return Timeline.open(path)


def table_of(timeline: Timeline) -> RankTable:
    table = rank_table(timeline.now(), CASE)
    assert table is not None
    return table


def test_one_rank_has_nobody_beside_it(tmp_path: Path) -> None:
    timeline = session(tmp_path / "one", [{1: S}])
    assert rank_table(timeline.now(), CASE) is None
    assert report.lines(timeline.now(), CASE) == report.head(timeline) == []
    assert report.as_json(timeline.now(), CASE) is None


def test_all_together_are_as_fast_as_the_slowest_lets_them_be(tmp_path: Path) -> None:
    timeline = session(tmp_path / "two", [dict.fromkeys(range(1, 8), S), dict.fromkeys(range(1, 8), 2 * S)])
    table = table_of(timeline)
    assert [(row.rank, row.n, row.items, row.wall.median) for row in table.rows] == [(0, 7, 14, S), (1, 7, 14, 2 * S)]
    assert [row.steps for row in table.rows] == [(S / 2,), (S,)]
    assert [row.items_per_second for row in table.rows] == [2.0, 1.0]
    assert [row.waits for row in table.rows] == [0.5, 0.0]
    assert (table.items_per_second, table.imbalance, table.together) == (2.0, 2.0, 7)
    assert (timeline.runs.n, table_of(timeline).rows[0].n) == (14, 7)


def test_a_run_that_a_rank_did_not_end_compares_nobody(tmp_path: Path) -> None:
    table = table_of(session(tmp_path / "two", [{1: S, 2: S, 3: S}, {1: S, 3: 3 * S}]))
    assert table.together == 2
    assert table.items_per_second == pytest.approx((4 / 1 + 4 / 3) / 2)
    nothing = table_of(session(tmp_path / "none", [{1: S}, {2: S}]))
    assert (nothing.together, nothing.items_per_second) == (0, None)
    assert [row.waits for row in nothing.rows] == [None, None]


def test_of_a_data_set_every_item_counts_and_who_has_none_left_waits(tmp_path: Path) -> None:
    items = [{1: [0, 1], 2: [4, 5]}, {1: [2]}]
    table = table_of(session(tmp_path / "set", [{1: S, 2: S}, {1: S}], items))
    assert [(row.n, row.items) for row in table.rows] == [(2, 4), (0, 1)]
    assert table.items_per_second == pytest.approx(5 / 2)
    assert [row.waits for row in table.rows] == [0.0, 0.5]
    assert (table.imbalance, table.together) == (2.0, 2)


def test_ranks_are_no_strangers_to_each_other(tmp_path: Path) -> None:
    timeline = session(tmp_path / "two", [{1: S, 2: S}, {1: S, 2: S}])
    model = {"name": "m", "model_type": "llava", "parameters": 1, "dtype": "float32"}
    with_pids = [(0, 11), (1, 12)]
    for rank, pid in with_pids:
        stream = writer.StreamWriter(timeline.path / (f"events-{rank}.jsonl" if rank else "events.jsonl"))
        stream.write(events.ModelFacts(t=250 * S, rank=rank, **model, device="cuda:0", extra={"pid": pid}))
        stream.close()
    stream = writer.StreamWriter(timeline.path / "telemetry.jsonl")
    processes = [events.GpuProcess(pid=pid) for pid in (11, 12, 13)]
    stream.write(events.GpuSample(t=100 * S + 1, gpu=0, memory_used=1, processes=processes))
    stream.write(events.HostSample(t=100 * S + 1, load=2.5, worker_cpu=100.0))
    stream.close()
    timeline.poll()
    watched = Watched(measures(timeline.now(), CASE))
    assert watched.foreign_load() == 0.5
    assert [process.pid for process in watched.foreign() if process.pid != 11] == [13]


def test_a_comparison_tells_that_other_ranks_ran_beside(tmp_path: Path) -> None:
    runs = dict.fromkeys(range(1, 8), S)
    alone, beside = (session(tmp_path / str(count), [runs] * count) for count in (1, 2))
    sides = [[measures(timeline.now(), CASE)] for timeline in (alone, beside)]
    reasons, notes = fairness.differences(("A", "B"), *sides, one_session=False)
    assert reasons == []
    assert "ranks: 1 against 2" in notes


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.dictionaries(st.integers(1, 6), st.integers(1, 9).map(lambda n: n * S), max_size=6), min_size=2, max_size=4
    )
)
def test_waiting_is_never_less_than_none_and_together_never_faster_than_each_for_itself(
    walls: list[dict[int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        timeline = session(Path(folder) / "any", walls)
        table = table_of(timeline)
        assert table.together == len(set.intersection(*map(set, walls)))
        assert [row.items for row in table.rows] == [2 * len(own) for own in walls]
        for row in table.rows:
            assert row.waits is None or 0 <= row.waits < 1
        slowest = [max(own[run] for own in walls) for run in set.intersection(*map(set, walls))]
        if table.items_per_second is not None:
            fastest = 2 * len(walls) / min(slowest) * S
            assert 0 < table.items_per_second <= fastest * (1 + 1e-9)
        assert (table.items_per_second is None) == (not slowest)
        assert table.imbalance is None or table.imbalance >= 1
        lines = report.lines(timeline.now(), CASE)
        assert len(lines) == len(table.rows) + 2
