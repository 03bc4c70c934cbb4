"""The steps table from a session on disk with known numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from headers import make_header

from llava_tui import events
from llava_tui.analysis.measures import ALL_CASES
from llava_tui.analysis.roofline import case_value
from llava_tui.analysis.steps import UNACCOUNTED, case_ids, current_case, step_table
from llava_tui.session.timeline import Timeline
from llava_tui.session.writer import StreamWriter, write_atomically

MS = 1_000_000
TREE = [
    events.StageInfo("load", "load"),
    events.StageInfo("frames", "1 frames"),
    events.StageInfo("frames.decode_frames", "decode frames"),
    events.StageInfo("encode", "2 encode"),
    events.StageInfo("encode.vision_tower", "vision tower", "device"),
    events.StageInfo("encode.projector", "projector", "device"),
    events.StageInfo("generate", "3 generate"),
    events.StageInfo("generate.decode", "decode", "device"),
]
CASE = events.Case("f2", {"frames": 2, "batch": 2})


class Recording:
    """A session written event by event, every run 100 ms long unless said otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        write_atomically(path / "session.json", make_header(path.name))
        self.stream = StreamWriter(path / "events.jsonl")
        self.t = 0
        self.run = 0
        self.stream.write(events.StageTree(t=self.t, stages=TREE))
        self.stream.write(events.Schedule(t=self.t, cases=[CASE], rounds=9, runs=9))

    def add(
        self,
        *,
        kind: str = "measured",
        outcome: str = "ok",
        encode: int | None = 20,
        scale: float = 1.0,
        case: str = CASE.id,
    ) -> None:
        self.t += MS
        self.run += 1
        self.stream.write(events.RunStart(t=self.t, run=self.run, kind=kind, case=case))
        start = self.t
        self.t += int(100 * MS * scale)
        took = {"frames": 10, "frames.decode_frames": 8, "encode": encode, "encode.vision_tower": 12}
        took |= {"encode.projector": None, "generate": 60, "generate.decode": 45}
        end = events.RunEnd(
            t=self.t, run=self.run, outcome=outcome, start=start, wall=int(100 * MS * scale),
            stages=list(took),
            starts=[0 if value is not None else None for value in took.values()],
            durations=[int(value * MS * scale) if value is not None else None for value in took.values()],
            token_ids=[[7, 8, 9], [7, 8, 9]],
            token_times=[int(value * MS * scale) for value in (50, 70, 92)],
            frames=4,
        )  # fmt: skip
        self.stream.write(end)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def test_medians_shares_and_what_is_left_over(recording: Recording) -> None:
    recording.add(kind="cold", scale=50)
    recording.add(kind="warm-up", scale=9)
    for scale in (1.0, 2.0, 1.0):
        recording.add(scale=scale)
    table = step_table(Timeline.open(recording.path).now(), CASE.id)
    assert table.n == 3
    medians = {row.path: row.summary.median for row in table.rows}
    assert medians == {
        "frames": 10 * MS,
        "frames.decode_frames": 8 * MS,
        "frames.rest": 2 * MS,
        "encode": 20 * MS,
        "encode.vision_tower": 12 * MS,
        "encode.projector": None,  # could not be told apart: never 0
        "encode.rest": 8 * MS,
        "generate": 60 * MS,
        "generate.decode": 45 * MS,
        "generate.rest": 15 * MS,
        UNACCOUNTED: 10 * MS,
    }
    shares = {row.path: row.share for row in table.rows}
    assert shares["generate"] == pytest.approx(0.6)
    assert shares["encode.projector"] is None
    assert sum(share for path, share in shares.items() if "." not in path and share) == pytest.approx(1)
    assert table.wall.summary.median == 100 * MS


def test_what_a_step_leaves_is_not_known_where_the_step_is_not(recording: Recording) -> None:
    recording.add()
    recording.add(encode=None)
    row = step_table(Timeline.open(recording.path).now(), CASE.id).row(UNACCOUNTED)
    assert row is not None
    assert (row.summary.n, row.summary.median, row.last) == (1, 10 * MS, None)


def test_metrics_follow_their_definitions(recording: Recording) -> None:
    for _ in range(6):
        recording.add()
    table = step_table(Timeline.open(recording.path).now(), CASE.id)
    assert table.ttft.median == 50 * MS
    assert table.tpot.median == 21 * MS  # (92 - 50) / 2
    assert (table.itl.n, table.itl.median) == (12, 21 * MS)
    assert table.tokens_per_second.median == pytest.approx(2 * 2 / 0.042)  # two sequences, two tokens after the first
    assert table.frames_per_second.median == pytest.approx(400)
    assert (table.ttft.low, table.ttft.high) == (50 * MS, 50 * MS)


def test_a_case_that_failed_part_way_keeps_its_batch(recording: Recording) -> None:
    recording.add()
    recording.stream.write(events.Schedule(t=recording.t, cases=[events.Case("f4", {"frames": 4})], rounds=9, runs=9))
    view = Timeline.open(recording.path).now()
    for case in (CASE.id, ALL_CASES):
        assert step_table(view, case).tokens_per_second.median == pytest.approx(2 * 2 / 0.042)
    assert case_value(view, CASE.id, "batch") == 2


def test_without_a_batch_tokens_a_second_are_not_known(recording: Recording) -> None:
    recording.add(case="unheard-of")
    table = step_table(Timeline.open(recording.path).now(), "unheard-of")
    assert (table.tpot.median, table.tokens_per_second.median) == (21 * MS, None)


def test_only_measured_runs_that_went_well_count(recording: Recording) -> None:
    recording.add(kind="cold", scale=50)
    recording.add(kind="cross-check", scale=50)
    recording.add(outcome="failed", scale=50)
    recording.add(kind="discarded", scale=50)
    view = Timeline.open(recording.path).now()
    table = step_table(view, CASE.id)
    assert (table.n, table.wall.summary.median) == (0, None)
    assert table.wall.last == 100 * MS * 50  # still shown as the newest, marked by n = 0
    recording.add()
    assert step_table(Timeline.open(recording.path).now(), CASE.id).wall.summary.median == 100 * MS


def test_a_moment_in_the_past_knows_nothing_of_what_came_later(recording: Recording) -> None:
    moments = []
    for scale in (1.0, 3.0, 5.0):
        recording.add(scale=scale)
        moments.append(recording.t)
    timeline = Timeline.open(recording.path)
    medians = [step_table(timeline.at(t), CASE.id).wall.summary.median for t in moments]
    assert medians == [100 * MS, 200 * MS, 300 * MS]
    before = timeline.at(moments[0] - 1)
    assert step_table(before, CASE.id).n == 0
    assert current_case(before) == CASE.id
    assert case_ids(before) == [CASE.id]


def test_an_empty_session_has_an_empty_table(tmp_path: Path) -> None:
    timeline = Timeline.open(Recording(tmp_path).path)
    view = timeline.at(-1)
    assert current_case(view) == ""
    assert step_table(view, "").wall.summary.median is None
