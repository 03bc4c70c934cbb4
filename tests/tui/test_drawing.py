"""What the panels say of a session at a moment."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from screen_sessions import GIB, LOADING, MS, WALL, Recording, S, course, record

from llava_tui import events
from llava_tui.analysis.steps import step_table
from llava_tui.session.timeline import Timeline, View
from llava_tui.tui.widgets import cells, runbar
from llava_tui.tui.widgets import course as runs_course
from llava_tui.tui.widgets.arrangement import PARTS, Wants, arrange
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.panels import PANELS


def lines_of(part: str, view: View, width: int = 120, height: int = 20, look: Look | None = None) -> list[str]:
    draw, _ = PANELS[part]
    return ["".join(text for text, _ in line) for line in draw(view, look or Look(), width, height)]


def row(lines: list[str], title: str) -> str:
    return next(line for line in lines if title in line)


# --- many inputs ----------------------------------------------------------------------------------------------------


def with_items(folder: Path, broken: int = 0) -> View:
    """A session over 12 items, of which the first case has measured three, one of them in a last, smaller batch."""

    def of_many(event: events.Event) -> events.Event:
        if isinstance(event, events.RunStart) and event.case:
            kind = "partial" if event.run == 8 else event.kind
            return msgspec.structs.replace(event, items=[event.run - 2], item=f"clip-{event.run}.mp4", kind=kind)
        return event

    happened = [(name, of_many(event)) for name, event in course(closed=False)]
    happened[-3:-3] = [
        (
            "events.jsonl",
            events.BrokenItem(t=happened[-3][1].t, item=9 + n, name=f"bad-{n}.mp4", reason="no video", run=7),
        )
        for n in range(broken)
    ]
    dataset = events.DatasetFacts(path="/data/all.jsonl", count=12, digest="0")
    return Timeline.open(record(folder / "many", happened, dataset=dataset, plan={"rounds": "auto"})).now()


def test_the_heading_says_how_far_a_data_set_is_and_what_is_broken(tmp_path: Path) -> None:
    look = Look(case="f1-b1-n16")
    (line,) = lines_of("heading", with_items(tmp_path / "a"), look=look)
    assert "items 3/12" in line
    assert "broken" not in line
    assert "round" not in line
    (line,) = lines_of("heading", with_items(tmp_path / "b", broken=2), look=look)
    assert "items 3/12  ✗ 2 broken" in line


def test_a_run_without_pictures_is_text_only(tmp_path: Path) -> None:
    view = Timeline.open(record(tmp_path / "text", course(cases=("f0-b1-n16",)))).now()
    assert "text only" in lines_of("heading", view)[0]
    assert "frames 0" not in lines_of("heading", view)[0]
    assert step_table(view, "f0-b1-n16").frames_per_second.median is None, "there is nothing to decode"


# --- the steps table ------------------------------------------------------------------------------------------------


def test_the_table_shows_steps_stages_and_what_is_unaccounted(timeline: Timeline) -> None:
    lines = lines_of("steps", timeline.now())
    assert [line[:26].rstrip() for line in lines[:12]] == [
        " step · f1-b1-n16 1/2",
        " 1 frames",
        "   ├ decode frames",
        "   └ rest",
        " 2 encode",
        "   ├ vision tower",
        "   ├ projector",
        "   └ rest",
        " 3 generate",
        "   ├ prefill  TTFT 788 ms",
        "   ├ decode  12.4 tok/s",
        "   └ rest",
    ]
    assert lines[12].startswith(" · unaccounted")
    assert "10.2 ms" in lines[12]
    encode = lines[4].split()
    assert encode[:5] == ["2", "encode", "408", "ms", "404"]
    assert "20.0 %" in lines[4]


def test_prefill_and_decode_say_their_figures_whatever_step_holds_them(tmp_path: Path) -> None:
    other = {"generate": "prefill", "generate.prefill": "prefill.prefill", "generate.decode": "decode.decode"}

    def moved(event: events.Event) -> events.Event:
        if isinstance(event, events.StageTree):
            stages = [events.StageInfo(other.get(info.path, info.path), info.title) for info in event.stages]
            return msgspec.structs.replace(event, stages=[*stages, events.StageInfo("decode", "5 decode")])
        if isinstance(event, events.RunEnd):
            return msgspec.structs.replace(event, stages=[other.get(path, path) for path in event.stages])
        return event

    view = Timeline.open(record(tmp_path / "5stage", [(name, moved(event)) for name, event in course()])).now()
    lines = lines_of("steps", view)
    assert "TTFT 788 ms" in row(lines, "├ prefill") or "TTFT 788 ms" in row(lines, "└ prefill")
    assert sum("TTFT" in line for line in lines[:-1]) == 1, "of the stage, not of the step too"
    assert "12.4 tok/s" in next(line for line in lines if "decode" in line and "tok/s" in line)


def test_a_stage_that_could_not_be_told_apart_is_never_0(tmp_path: Path) -> None:
    view = Timeline.open(record(tmp_path / "hole", course(hole=True))).now()
    line = row(lines_of("steps", view), "projector")
    assert line.split()[:6] == ["├", "projector", "—", "—", "—", "—"]


def test_too_few_runs_make_no_interval(timeline: Timeline) -> None:
    assert "too few" in row(lines_of("steps", timeline.now()), "2 encode")


def test_only_measured_runs_are_counted(timeline: Timeline) -> None:
    before = timeline.at(LOADING + 2 * WALL + 200 * MS)
    lines = lines_of("steps", before)
    assert "no measured run yet" in lines[-1]
    assert row(lines, "1 frames").split()[2:4] == ["102", "ms"]  # the last one, of the warm-up


@pytest.mark.parametrize("height", range(1, 20))
def test_a_lower_table_keeps_its_steps(timeline: Timeline, height: int) -> None:
    lines = lines_of("steps", timeline.now(), 80, height)
    assert len(lines) <= height
    if height >= 5:
        assert [line[1:].split()[0] for line in lines if line[1:2].strip() and line[1].isdigit()] == ["1", "2", "3"]
        assert any("unaccounted" in line for line in lines)


def test_the_stage_that_is_running_is_marked(timeline: Timeline) -> None:
    lines = lines_of("steps", timeline.at(LOADING + 300 * MS), look=Look(case="f4-b1-n16"))
    assert [line[:20].strip() for line in lines if line.startswith("▸")] == ["▸2 encode", "▸  ├ vision tower"]


def test_while_loading_the_stages_of_loading_are_shown_with_their_time(timeline: Timeline) -> None:
    lines = lines_of("steps", timeline.at(2 * S))
    assert lines[0].split() == ["loading", "2.0", "s"]
    assert lines[1].split() == ["▸", "weights", "2.0", "s"]


def test_the_case_that_was_chosen_is_shown(timeline: Timeline) -> None:
    assert "f4-b1-n16 2/2 (chosen)" in lines_of("steps", timeline.now(), look=Look(case="f4-b1-n16"))[0]


def test_where_runs_are_short_the_table_stays_with_a_case_for_a_while(tmp_path: Path) -> None:
    timeline = Timeline.open(record(tmp_path / "short", course(runs=200, ms=MS // 10)))
    look = Look()
    shown = [look.case_of(timeline.at(t)) for t in range(LOADING + S, timeline.end, 100 * MS)]
    turns = sum(a != b for a, b in pairwise(shown))
    assert turns <= (timeline.end - timeline.start) // (10 * S) + 1
    assert look.brisk(timeline.now())
    # Their bars are those of runs that ended: one that goes on would be gone before it is seen.
    assert not lines_of("run", timeline.at(LOADING + 10 * S), 80, 1, look)[0].startswith("▸")


def test_the_case_that_is_running_is_told_from_the_one_that_was_chosen(timeline: Timeline) -> None:
    """The newest run is of the first case; the second one's table was chosen: the heading says so, no row is marked as
    running, and the bar names the case that it is of."""
    view = timeline.at(LOADING + 300 * MS)  # run 1, of f4-b1-n16
    chosen, followed = Look(case="f1-b1-n16"), Look()
    lines = lines_of("steps", view, look=chosen)
    assert lines[0].startswith(" step · f1-b1-n16 1/2 (chosen)")
    assert not any(line.startswith("▸") for line in lines)
    assert lines_of("steps", view, 40, look=chosen)[0].startswith(" f1-b1-n16 1/2*")
    assert "frames 1" in lines_of("heading", view, look=chosen)[0]
    for width in (60, 80, 120):
        assert lines_of("run", view, width, 1, chosen)[0].startswith("▸run 1     f4-b1-n16 │")
    assert lines_of("run", view, 59, 1, chosen)[0].startswith("▸run 1     │")

    lines = lines_of("steps", view, look=followed)
    assert lines[0].startswith(" step · f4-b1-n16 2/2  ")
    assert any(line.startswith("▸") for line in lines)
    assert "frames 4" in lines_of("heading", view, look=followed)[0]
    bars = [lines_of("run", timeline.at(LOADING + at), 80, 1, followed)[0] for at in (300 * MS, WALL, WALL + 300 * MS)]
    assert not any("-b1-" in bar for bar in bars)
    assert len({bar.index("│") for bar in bars}) == 1, "bars begin in one column"


def test_choosing_another_case_draws_the_bar_again(timeline: Timeline) -> None:
    _, key = PANELS["run"]
    view = timeline.now()
    assert key(view, Look(case="f1-b1-n16")) != key(view, Look(case="f4-b1-n16"))


def test_a_run_that_ended_before_anything_ran_took_no_time_that_could_be_told(tmp_path: Path) -> None:
    nothing = events.RunEnd(t=2, run=0, outcome="failed", reason="no model", start=2, wall=0)
    view = Timeline.open(record(tmp_path / "none", [*course(runs=0)[:6], ("events.jsonl", nothing)])).now()
    assert lines_of("run", view, 80, 1)[0].split()[-1] == "—"


# --- gauges ---------------------------------------------------------------------------------------------------------


def test_a_gpu_is_a_line_of_figures(timeline: Timeline) -> None:
    line = lines_of("gauges", timeline.now(), 120, 2)[0]
    assert line.startswith(" GPU 0 H100 80GB HBM3  util  90 %  mem  ")
    assert "/80.0 GiB" in line
    assert "400/700 W  60 °C  1980 MHz  ▲peak 16.0" in line
    assert "kJ" in line


def test_without_a_gpu_the_reason_stands_in_its_place_and_the_host_is_shown(tmp_path: Path) -> None:
    view = Timeline.open(record(tmp_path / "cpu", course(gpu=False))).now()
    lines = lines_of("gauges", view, 80, 2)
    assert lines[0].split() == ["GPU", "—", "no", "NVIDIA", "driver"]
    assert lines[1].startswith(" host   CPU  50 %  mem   4.0/8.0 GiB  worker 120 % of a core")
    strips_ = lines_of("strips", view, 80, 4)
    assert strips_[0].split()[0] == "cpu"
    assert strips_[1].split()[0] == "rss"


def test_a_missing_figure_has_its_reason_and_a_lost_gpu_says_so(live: Callable[..., Recording]) -> None:
    happened = [("telemetry.jsonl", events.GpuDevice(t=0, gpu=0, name="A100", memory_total=40 * GIB))]
    recording = live(happened + [("telemetry.jsonl", e) for e in (
        events.GpuAbsent(t=1, gpu=0, reasons={"utilization": "not available under MIG", "pcie_tx_kbs": "too old"}),
        events.GpuSample(t=2, gpu=0, memory_used=GIB, power_mw=1000),
        events.GpuAbsent(t=10, gpu=0, reasons={"*": "GPU is lost"}),
    )])  # fmt: skip
    recording.write_until(20)
    timeline = Timeline.open(recording.path)
    line = lines_of("gauges", timeline.at(5), 120, 1)[0]
    assert line.startswith(" GPU 0 A100  — util: not available under MIG  mem   1.0/40.0 GiB")
    assert "too old" not in line
    narrow = lines_of("gauges", timeline.at(5), 60, 1)[0]
    assert "— util: not available under MIG" in narrow, "the reason is the last thing to go"
    assert lines_of("gauges", timeline.at(10), 120, 1)[0].rstrip() == " GPU 0 A100  ✗ GPU is lost"


def test_throttling_is_said_in_words(live: Callable[..., Recording]) -> None:
    recording = live([
        ("telemetry.jsonl", events.GpuDevice(t=0, gpu=0, name="A100", memory_total=40 * GIB)),
        ("telemetry.jsonl", events.GpuSample(t=2, gpu=0, throttle=0x40)),
    ])  # fmt: skip
    recording.write_until(20)
    assert "⚠ thermal throttling" in lines_of("gauges", Timeline.open(recording.path).now(), 80, 1)[0]


# --- this run, heading, texts ---------------------------------------------------------------------------------------


def test_a_run_that_ended_is_drawn_from_its_spans_with_a_tick_a_token() -> None:
    run = runs_course.RunCourse(
        1,
        "measured",
        "",
        0,
        100,
        True,
        "ok",
        (("frames.decode_frames", 0, 20), ("generate.decode", 20, 100)),
        (40, 60, 80),
    )
    drawn = cells.fit(runbar.bar(run, 100, 20, {"generate.decode": "decode"}, ["frames", "generate"]), 20)
    assert "".join(text for text, _ in drawn) == "│1──│decode─┆───┆───"
    assert drawn[0][1] == "step1"


def test_the_run_in_progress_grows_towards_what_a_run_takes(timeline: Timeline) -> None:
    start = LOADING + 4 * (WALL + 10 * MS)
    early, late = (lines_of("run", timeline.at(start + at * MS), 110, 1)[0] for at in (500, 1500))
    assert early.startswith("▸run ")
    assert "┆" not in early
    assert early[21:].startswith("│1─││2──")
    assert "┆" in late
    assert len(late[:90].rstrip("│ ")) > len(early[:90].rstrip("│ "))


def test_the_heading_says_what_runs_on_what(timeline: Timeline) -> None:
    line = lines_of("heading", timeline.at(LOADING + 3 * WALL), 120, 1)[0]
    assert line.startswith(" ● LIVE  llava  · cuda:0 · bfloat16 · sdpa  run 2/8  ETA 00:1")
    assert "clip.mp4" in line


def test_the_heading_says_what_is_only_the_most_there_can_be(tmp_path: Path) -> None:
    """Where a rule may end the rounds, the runs, rounds and time that are left are bounds."""
    happened = course()
    for place, (stream, event) in enumerate(happened):
        if isinstance(event, events.Schedule):
            told = msgspec.structs.replace(event, rounds=50, runs=60, open=True)
            happened[place] = (stream, told)
    view = Timeline.open(record(tmp_path / "open", happened)).at(LOADING + 6 * WALL)
    line = lines_of("heading", view, 160, 1)[0]
    for bound in ("/≤60", "ETA ≤", "/≤50"):
        assert bound in line


def test_a_wide_heading_grades_the_figures(timeline: Timeline) -> None:
    at = LOADING + 6 * (WALL + 10 * MS)
    assert "trust D" in lines_of("heading", timeline.at(at), 160, 1)[0], "two runs are too few"
    assert "trust" not in lines_of("heading", timeline.at(at), 110, 1)[0]
    assert "trust" not in lines_of("heading", timeline.at(LOADING + WALL // 2), 160, 1)[0], "nothing is measured yet"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize(("provenance", "word"), [("simulated", "SIMULATED"), ("random-weights", "RANDOM WEIGHTS")])
def test_what_is_no_measurement_says_so_at_any_width(tmp_path: Path, width: int, provenance: str, word: str) -> None:
    view = Timeline.open(record(tmp_path / "s", course(), provenance=provenance)).now()
    assert word in lines_of("heading", view, width, 1, Look(status="interrupted"))[0]


@pytest.mark.parametrize("status", ["running", "paused", "finished", "stopped", "failed", "interrupted"])
def test_every_status_has_a_glyph_and_a_word(timeline: Timeline, status: str) -> None:
    line = lines_of("heading", timeline.now(), 80, 1, Look(status=status))[0]
    assert line.split()[1] == {"running": "LIVE"}.get(status, status.upper())


def test_the_output_grows_with_the_hints_and_is_the_runs_own_at_its_end(timeline: Timeline) -> None:
    growing = lines_of("output", timeline.at(LOADING + 1000 * MS), 60, 2)
    assert growing[0].rstrip() == " output A stre▌"
    ended = lines_of("output", timeline.at(LOADING + 2 * WALL + 300 * MS), 60, 2)
    assert ended[0].rstrip() == " output A street, seen from above."


def test_foreign_text_is_neither_markup_nor_control(tmp_path: Path) -> None:
    nasty = "[red]bold[/red] \x1b[31mred\x1b]0;title\x07 \u202e漢字\n\n[link=http://x]"
    path = record(
        tmp_path / "nasty", [*course(text=nasty), ("events.jsonl", events.Log(t=9 * S, level="error", text=nasty))]
    )
    view = Timeline.open(path).now()
    drawn = "".join(lines_of("output", view, 80, 4) + lines_of("log", view, 80, 12))
    assert drawn.isprintable()
    assert "[red]bold[/red]" in drawn
    assert "\x1b" not in drawn


def test_the_log_has_states_answers_failed_runs_and_our_own_notices(live: Callable[..., Recording]) -> None:
    recording = live([])
    for event in (
        events.Log(t=1 * S, level="warning", text="clip.mp4 has 3 frames only"),
        events.Answer(t=2 * S, id="a", verb="pause", accepted=True, text="pauses after this run", author="me@here"),
        events.RunStart(t=3 * S, run=1, kind="measured", case="f1"),
        events.RunEnd(t=4 * S, run=1, outcome="out-of-memory", start=3 * S, wall=S, reason="2 GiB asked, 1 free"),
        events.StateChange(t=5 * S, state="failed", reason="no run went well"),
    ):
        recording.say(event)
    lines = [line[8:].rstrip() for line in lines_of("log", Timeline.open(recording.path).now(), 80, 6)]
    assert lines[:5] == [
        "00:01 ! clip.mp4 has 3 frames only",
        "00:02   pause: pauses after this run",
        "00:04 ✗ run 1 f1 out-of-memory: 2 GiB asked, 1 free",
        "00:05 ✗ failed: no run went well",
        "",
    ]


# --- every panel, every moment --------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(PANELS)),
    st.integers(-1, 25_000),
    st.integers(1, 200),
    st.integers(1, 30),
    st.sampled_from(["running", "finished", "failed"]),
)
def test_every_panel_fills_exactly_its_width_at_any_moment(
    timeline: Timeline, part: str, at: int, width: int, height: int, status: str
) -> None:
    draw, _ = PANELS[part]
    lines = draw(timeline.at(at * MS), Look(status=status), width, height)
    assert len(lines) <= height
    assert all(cells.width_of(line) == width for line in lines)


def test_an_empty_session_can_be_drawn(live: Callable[..., Recording]) -> None:
    view = Timeline.open(live([]).path).now()
    for part in PANELS:
        for width, height in ((20, 5), (80, 24), (120, 40)):
            assert lines_of(part, view, width, height) is not None


def test_what_was_drawn_live_is_what_a_reopened_session_shows_at_that_time(live: Callable[..., Recording]) -> None:
    recording = live()
    growing = Timeline.open(recording.path)
    look = Look()
    shown: dict[int, list[list[str]]] = {}
    for t in range(0, 20 * S, 700 * MS):
        recording.write_until(t)
        growing.poll()
        view = growing.at(t)
        shown[t] = [lines_of(part, view, 100, 16, look) for part in sorted(PANELS)]
    recording.write_until(1 << 62)
    recording.close()
    again, fresh = Timeline.open(recording.path), Look()
    for t, drawn in shown.items():
        assert [lines_of(part, again.at(t), 100, 16, fresh) for part in sorted(PANELS)] == drawn, f"at {t / S} s"


def test_equal_keys_give_equal_drawings(timeline: Timeline) -> None:
    look = Look()
    before: dict[str, tuple[object, list[str]]] = {}
    for t in range(0, timeline.end, 130 * MS):
        view = timeline.at(t)
        for part, (_, key) in PANELS.items():
            if part in ("run", "steps"):
                continue  # these follow the time in steps finer than can be seen
            now = (key(view, look), lines_of(part, view, 110, 12, look))
            if part in before and before[part][0] == now[0]:
                assert before[part][1] == now[1], f"{part} at {t / S} s"
            before[part] = now


# --- the arrangement ------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(0, 100), st.integers(1, 8), st.integers(0, 20), st.integers(0, 8))
def test_an_arrangement_uses_every_line_once(width: int, height: int, top: int, stages: int, gpus: int) -> None:
    wants = Wants(top, (top + stages + 3, 2 * top + stages + 3), (1, gpus + 1), (4, 4 * max(gpus, 1) + 2))
    lines = arrange(width, height, wants)
    assert set(lines) == set(PARTS)
    counted = sum(count for part, count in lines.items() if part != "output" or width < 100)
    assert counted == height
    assert min(lines.values()) >= 0


def test_80x24_shows_steps_stages_a_gpu_its_strips_the_ribbon_and_the_keys() -> None:
    lines = arrange(80, 24, Wants())
    assert lines == {
        "heading": 1, "steps": 13, "run": 1, "gauges": 1, "strips": 3,
        "output": 2, "log": 1, "transport": 1, "footer": 1,
    }  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_a_higher_screen_takes_nothing_away(width: int) -> None:
    before = arrange(width, 1, Wants())
    for height in range(2, 70):
        now = arrange(width, height, Wants())
        assert all(now[part] >= before[part] for part in PARTS), height
        before = now
