"""Several ranks on the monitor: a lane each, on one time axis."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from driven import Driven
from screen_sessions import LOADING, MS, WALL, Timed, course, record

from llava_tui import events
from llava_tui.session.timeline import Timeline
from llava_tui.tui import jumps
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.widgets import heading, strips, texts
from llava_tui.tui.widgets.arrangement import arrange
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.panels import wants


class DrivenMonitor(Driven[MonitorScreen]):
    KIND = MonitorScreen


def several(ranks: int, ms: int = MS, **options: bool) -> list[Timed]:
    """A course that every rank takes; rank r is slower by r tenths."""
    out = course(ms=ms, **options)
    told = (events.StateChange, events.RunStart, events.StageHint, events.TextHint, events.RunEnd, events.ModelFacts)
    for rank in range(1, ranks):
        for stream, event in course(ms=ms, **options):
            if stream != "events.jsonl" or not isinstance(event, told):
                continue
            changes: dict[str, object] = {"rank": rank}
            if isinstance(event, events.RunEnd) and event.run:
                changes |= {"wall": event.wall * (10 + rank) // 10}
            out.append((f"events-{rank}.jsonl", msgspec.structs.replace(event, **changes)))
    return sorted(out, key=lambda pair: pair[1].t)


def drawn(timeline: Timeline, t: int, width: int, height: int, status: str = "running") -> list[str]:
    lines = strips.draw_strips(timeline.at(t), Look(status=status), width, height)
    return ["".join(text for text, _ in line) for line in lines]


def lanes(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(("rank ", "  r "))]


@pytest.mark.parametrize("width", [80, 120])
def test_each_rank_has_a_lane_on_one_time_axis(tmp_path: Path, width: int) -> None:
    timeline = Timeline.open(record(tmp_path / "two", several(2)))
    # In the middle of a run, and between two.
    for t in (LOADING + 2 * WALL + 300 * MS, LOADING + 4 * WALL):
        found = lanes(drawn(timeline, t, width, 5))
        assert [line[:6] for line in found] == ["rank 0", "rank 1"]
        end = -strips.figure_width(width)
        assert found[0][6:end] == found[1][6:end], "both did the same at the same time"
        assert all(len(line) == width for line in found)


def test_beside_a_lane_stands_what_its_rank_does_and_what_its_runs_take(tmp_path: Path) -> None:
    timeline = Timeline.open(record(tmp_path / "two", several(2)))
    first, second = lanes(drawn(timeline, LOADING + 4 * WALL + 300 * MS, 120, 5))
    assert "vision" in first[-16:]
    assert first.endswith(" 2.020 s")
    assert second.endswith(" 2.222 s")
    narrow = lanes(drawn(timeline, LOADING + 4 * WALL + 300 * MS, 80, 5))
    assert all("vision" in line[-9:] for line in narrow)
    ended = lanes(drawn(timeline, timeline.end, 80, 5, status="finished"))
    assert [line.split()[-2:] for line in ended] == [["2.020", "s"], ["2.222", "s"]]


def test_ranks_that_have_no_room_are_counted(tmp_path: Path) -> None:
    timeline = Timeline.open(record(tmp_path / "many", several(12)))
    t = timeline.end
    assert len(lanes(drawn(timeline, t, 100, 15, "finished"))) == 12
    found = lanes(drawn(timeline, t, 100, 6, "finished"))
    assert [line[:6] for line in found] == ["rank 0", "rank 1", "rank 2", "rank 3", "rank 4"]
    assert found[-1].endswith("+7 more")
    (alone,) = lanes(drawn(timeline, t, 100, 2, "finished"))
    assert alone.endswith("+11 ranks")
    for height in range(1, 20):
        assert len(drawn(timeline, t, 80, height, "finished")) <= height


def test_two_lanes_fit_a_small_terminal_with_everything_else(tmp_path: Path) -> None:
    timeline = Timeline.open(record(tmp_path / "two", several(2)))
    view, look = timeline.now(), Look(status="finished")
    lines = arrange(80, 24, wants(view, look))
    found = drawn(timeline, timeline.end, 80, lines["strips"], "finished")
    assert len(lanes(found)) == 2
    assert len(found) == lines["strips"] <= 6


def test_a_drawing_changes_when_another_rank_goes_on(tmp_path: Path) -> None:
    timeline = Timeline.open(record(tmp_path / "two", several(2)))
    look = Look(status="running")
    before, after = (LOADING + 2 * WALL + ms * MS for ms in (105, 115))
    assert strips.strips_key(timeline.at(before), look) != strips.strips_key(timeline.at(after), look)


def test_a_jump_to_the_next_run_passes_over_what_other_ranks_do_within_it(tmp_path: Path) -> None:
    late = [
        (stream, msgspec.structs.replace(event, t=event.t + 5 * MS) if stream != "events.jsonl" else event)
        for stream, event in several(2)
    ]
    timeline = Timeline.open(record(tmp_path / "two", sorted(late, key=lambda pair: pair[1].t)))
    starts = jumps.run_starts(timeline).tolist()
    assert starts == timeline.of(0).started["t"].tolist() != timeline.started["t"].tolist()
    assert jumps.run_around(timeline, starts[3] + 7 * MS, timeline.end) == (starts[3], int(timeline.of(0).runs["t"][3]))


async def test_the_monitor_shows_two_ranks_beside_the_table_at_80x24(tmp_path: Path) -> None:
    app = LlavaTui(record(tmp_path / "two", several(2)))
    async with app.run_test(size=(80, 24)) as pilot:
        driven = DrivenMonitor(app, pilot)
        await driven.until(lambda: "rank 1" in driven.everything())
        shown = driven.everything().splitlines()
        assert [line[:6] for line in shown if line.startswith("rank ")] == ["rank 0", "rank 1"]
        assert any("3 generate" in line for line in shown), "the steps are still there"


def test_the_heading_says_how_many_ranks_and_the_log_whose_a_warning_is(tmp_path: Path) -> None:
    warned = events.Log(t=LOADING, rank=1, level="warning", text="two ranks share a GPU")
    timeline = Timeline.open(record(tmp_path / "two", [*several(2), ("events-1.jsonl", warned)]))
    view, look = timeline.now(), Look(status="finished")
    assert "2 ranks" in "".join(text for text, _ in heading.draw_heading(view, look, 120, 1)[0])
    assert "rank 1: two ranks share a GPU" in [text for _, _, text in texts.log_entries(view, look, 50)]
