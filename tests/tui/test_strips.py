"""The strip: what the machine did and which step was running, on one time axis, at any zoom."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from screen_sessions import GIB, LOADING, MS, WALL, Recording, S, Timed, course, record

from llava_tui import events
from llava_tui.session.timeline import Timeline, View
from llava_tui.tui.widgets import axis, cells, lanes, ribbon, strips
from llava_tui.tui.widgets.look import Look

ANY_LOOK = (st.integers(-1 * S, 25 * S), st.integers(-12, 14), st.integers(1, 220), st.integers(1, 14))
bounded = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def drawn(view: View, width: int = 120, height: int = 9, **look: Any) -> list[str]:
    lines = strips.draw_strips(view, Look(**look), width, height)
    return ["".join(text for text, _ in line) for line in lines]


def line_of(lines: list[str], label: str) -> str:
    """The strip's cells of the line that has this label."""
    line = next(line for line in lines if line.split(" ")[0:1] == [label] or line.strip().startswith(label + " "))
    return line[strips.LABEL : -strips.figure_width(len(line))]


def styles_of(view: View, label: str, width: int = 120, height: int = 9, **look: Any) -> list[str]:
    """The style of each cell of the line that has this label."""
    lines = strips.draw_strips(view, Look(**look), width, height)
    line = next(line for line in lines if line[0][0].split()[:1] == [label])
    return [style for text, style in line for _ in text][strips.LABEL :]


def machine(*readings: tuple[int, dict[str, Any]], gpus: int = 1, total: int = 80 * GIB) -> list[Timed]:
    """The telemetry of some GPUs: a sample of each for every (t, fields)."""
    told: list[Timed] = [
        ("telemetry.jsonl", events.GpuDevice(t=0, gpu=gpu, name=f"GPU {gpu}", uuid=f"GPU-{gpu}", memory_total=total))
        for gpu in range(gpus)
    ]
    for t, fields in readings:
        told += [("telemetry.jsonl", events.GpuSample(t=t + gpu, **{"gpu": gpu} | fields)) for gpu in range(gpus)]
    return told


def runs_of(*wanted: tuple[str, str, int, int], tree: tuple[tuple[str, str], ...] = ()) -> list[Timed]:
    """Runs of (kind, outcome, start, wall), in milliseconds, with a step "work" that takes all of each."""
    tree = tree or (("work", "1 work"), ("work.part", "part"))
    told: list[events.Event] = [events.StageTree(t=0, stages=[events.StageInfo(*entry) for entry in tree])]
    for run, (kind, outcome, start, wall) in enumerate(wanted, 1):
        begins, ends = start * MS, (start + wall) * MS
        told += [
            events.RunStart(t=begins, run=run, kind="measured" if kind == "discarded" else kind, case="f1"),
            events.StageHint(t=begins, run=run, stage="work"),
        ]
        ok = outcome == "ok"
        told.append(
            events.RunEnd(
                t=ends, run=run, outcome=outcome, kind=kind, start=begins, wall=wall * MS,
                stages=["work"] if ok else [], starts=[0] if ok else [], durations=[wall * MS] if ok else [],
            )
        )  # fmt: skip
    return [("events.jsonl", event) for event in sorted(told, key=lambda event: event.t)]


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Timeline]:
    """A session of these events, written and read."""
    made = 0

    def make(*happened: list[Timed], **header: Any) -> Timeline:
        nonlocal made
        made += 1
        every = sorted((pair for some in happened for pair in some), key=lambda pair: pair[1].t)
        return Timeline.open(record(tmp_path / f"made-{made}", every, **header))

    return make


# --- which step was running -------------------------------------------------------------------------------------------


def test_the_ribbon_says_which_step_ran_beneath_the_samples(timeline: Timeline) -> None:
    ribbon_ = line_of(drawn(timeline.at(LOADING + 5), 80, 3), "step")
    assert ribbon_[:9] == "LLLLLL1".ljust(9)
    view = timeline.at(LOADING + 2 * WALL)
    look = Look()
    window = strips.axis_for(view, look, 120)
    ribbon_ = line_of(drawn(view), "step")
    assert ribbon_[window.place(LOADING + 250 * MS)] == "2"
    assert ribbon_[window.place(LOADING + 1500 * MS)] == "3"


def test_the_run_in_progress_is_on_the_ribbon_by_its_hints(timeline: Timeline) -> None:
    view = timeline.at(LOADING + 1200 * MS)
    spans = ribbon.spans_since(view, 0, stages=False)
    order = np.argsort(spans.starts, kind="stable")
    ran = [spans.paths[code // 2] for code in spans.codes[order].tolist()]
    assert list(dict.fromkeys(ran)) == ["load", "frames", "encode", "generate"]
    assert spans.ends[spans.codes == 2 * spans.paths.index("generate") + 1].max() == view.t


@bounded
@given(*ANY_LOOK[:3])
def test_the_ribbon_is_what_ran_for_most_of_each_cell(timeline: Timeline, t: int, zoom: int, width: int) -> None:
    """Against a reference that adds up every overlap of every span with every cell, one by one."""
    view = timeline.at(t)
    window = axis.axis_of(view, width, 2 * S, zoom=zoom)
    for stages in (False, True):
        spans = ribbon.spans_since(view, window.start, stages=stages)
        codes = ribbon.codes_on(spans, window)
        assert len(codes) == window.filled
        own = slow_ribbon(view, window, stages)
        for cell, code in enumerate(codes):
            start, end = cell_bounds(window, cell)
            most = max((took[cell] for took in own.values()), default=0)
            if code is None:
                assert most <= (end - start) * ribbon.LEAST_SHARE
            else:
                assert own[spans.paths[code // 2], code % 2 == 0][cell] == most


def slow_ribbon(view: View, window: axis.Axis, stages: bool) -> dict[tuple[str, bool], list[int]]:
    """ns of each cell that each path has to itself, by whether its runs are measured ones."""
    kinds = {row["run"]: row["kind"] for row in view.started.rows()} | {
        row["run"]: row["kind"] for row in view.runs.rows()
    }
    pieces = [
        (row["stage"], row["run"], row["start"], row["start"] + int(row["duration"]))
        for row in view.stages.rows()
        if row["duration"] is not None and (stages or "." not in row["stage"])
    ]
    if (current := view.current) is not None:
        hints = [row for row in view.stage_hints.rows() if row["run"] == current["run"]]
        for index, row in enumerate(hints):
            end = hints[index + 1]["t"] if index + 1 < len(hints) else view.t
            step = row["stage"].split(".")[0]
            pieces += [(path, row["run"], row["t"], end) for path in ({row["stage"], step} if stages else {step})]
    own: dict[tuple[str, bool], list[int]] = {}
    for path, run, start, end in pieces:
        counted = kinds[run] == "measured"
        for at, sign in ((path, 1), (path.rpartition(".")[0], -1)):
            took = own.setdefault((at, counted), [0] * window.filled)
            for cell in range(max(window.place(start), 0), min(window.place(end) + 1, window.filled)):
                low, high = cell_bounds(window, cell)
                took[cell] += sign * max(min(end, high) - max(start, low), 0)
    return {key: took for key, took in own.items() if key[0]}


def cell_bounds(window: axis.Axis, cell: int) -> tuple[int, int]:
    """From when to when; the newest cell goes on until now."""
    start = window.start + cell * window.cell
    end = start + window.cell
    return start, max(min(end, window.now), start + 1) if cell == window.filled - 1 else end


def test_deep_in_time_the_ribbon_names_stages(timeline: Timeline) -> None:
    view = timeline.at(LOADING + 2 * WALL + 1300 * MS)
    assert line_of(drawn(view, zoom=0), "step").strip("·│ L123") == "", "steps alone, while runs are narrow"
    deep = line_of(drawn(view, zoom=3), "step")
    for named in ("ffff", "vvvvvvvvvvvvvvv", "pp", "d decode d"):
        assert named in deep
    assert "┆" in deep, "and where tokens came"


def test_every_stage_has_a_letter_of_its_own(session: Callable[..., Timeline]) -> None:
    """Without colours two stages of one letter could not be told apart."""
    llava = ("decode frames", "preprocess", "to device", "vision tower", "projector", "prefill", "decode", "detokenize")
    steps = ("frames", "encode", "encode", "encode", "encode", "generate", "generate", "generate")
    tree = [(step, step) for step in dict.fromkeys(steps)]
    tree += [(f"{step}.{title.replace(' ', '_')}", title) for step, title in zip(steps, llava, strict=True)]
    marks = ribbon.letters(session(runs_of(tree=tuple(tree))).now())
    assert len(set(marks.values())) == len(llava)
    wanted = {"generate.prefill": "p", "generate.decode": "d", "encode.vision_tower": "v"}
    assert {path: marks[path] for path in wanted} == wanted


@pytest.mark.parametrize("steps", [0, 5, 9, 12, 40])
def test_any_number_of_steps_has_marks(session: Callable[..., Timeline], steps: int) -> None:
    """EventGPT has five, an imported table may have any number; the tenth is not a second first."""
    tree = tuple((f"s{index}", f"{index + 1} step") for index in range(steps)) + (("work", "work"),) * (steps == 0)
    told = [event for _, event in runs_of(tree=tree)]
    for index in range(steps):
        start = index * 300 * MS
        told.append(events.RunStart(t=start, run=index + 1, kind="measured"))
        told.append(
            events.RunEnd(t=start + 300 * MS, run=index + 1, outcome="ok", start=start, wall=300 * MS,
                          stages=[f"s{index}"], starts=[0], durations=[300 * MS])
        )  # fmt: skip
    view = session([("events.jsonl", event) for event in told]).now()
    shown = list(dict.fromkeys(line_of(drawn(view, 200, 4), "step").replace("│", "").strip(" ·")))
    assert shown == list("123456789abcdefghijklmnopqrstuvwxyz+")[:steps]


# --- any moment, any zoom, any size -----------------------------------------------------------------------------------


@bounded
@given(*ANY_LOOK, st.sampled_from([None, 0, 1]))
def test_nothing_is_drawn_after_now_and_every_line_is_full(
    timeline: Timeline, t: int, zoom: int, width: int, height: int, gpu: int | None
) -> None:
    view, look = timeline.at(t), Look(zoom=zoom, gpu=gpu)
    lines = strips.draw_strips(view, look, width, height)
    assert 0 < len(lines) <= height
    assert all(cells.width_of(line) == width for line in lines)
    window = strips.axis_for(view, look, width)
    assert window.start <= max(t, 0) < window.end
    for line in lines:
        text = "".join(text for text, _ in line)
        if "╵" not in text and width >= 40:
            assert text[strips.LABEL + window.filled : width - strips.figure_width(width)].strip() == ""


@bounded
@given(*ANY_LOOK, st.lists(st.tuples(st.integers(-1 * S, 25 * S), st.integers(-12, 14)), max_size=4))
def test_the_same_moment_is_the_same_picture_however_it_was_reached(
    timeline: Timeline, t: int, zoom: int, width: int, height: int, before: list[tuple[int, int]]
) -> None:
    look = Look()
    for earlier, other in before:
        look.zoom = other
        strips.draw_strips(timeline.at(earlier), look, width, height)
    look.zoom = zoom
    again = strips.draw_strips(timeline.at(t), look, width, height)
    assert again == strips.draw_strips(timeline.at(t), Look(zoom=zoom), width, height)


def test_equal_keys_give_equal_drawings(live: Callable[..., Recording]) -> None:
    recording = live()
    timeline = Timeline.open(recording.path)
    look = Look()
    shown: dict[object, list[cells.Line]] = {}
    for t in range(0, 12 * S, 170 * MS):
        recording.write_until(t)
        timeline.poll()
        for look.zoom in (0, 3):
            for at in (t - 90 * MS, t):
                view = timeline.at(at)
                lines = strips.draw_strips(view, look, 90, 8)
                assert shown.setdefault(strips.strips_key(view, look), lines) == lines
    assert len(shown) > 100


def test_the_window_moves_by_pages(timeline: Timeline) -> None:
    """Between two moves only the newest cells change: a slow line can take no more."""
    for zoom in (-1, 0, 3):
        starts = set()
        for t in range(0, timeline.end, 200 * MS):
            window = axis.axis_of(timeline.at(t), 20, 2 * S, zoom=zoom)
            assert window.start <= t < window.end
            starts.add(window.start)
        assert all((start - timeline.start) % (window.cell * 5) == 0 for start in starts)


def test_zooming_goes_from_a_part_of_a_stage_to_the_whole_session(timeline: Timeline) -> None:
    view = timeline.now()
    furthest, nearest = strips.zoom_range(view, Look(), 100)
    assert furthest < 0 < nearest
    windows = [strips.axis_for(view, Look(zoom=zoom), 100) for zoom in range(furthest, nearest + 1)]
    lengths = [window.cell * window.width for window in windows]
    assert all(a > b for a, b in pairwise(lengths)), "every step makes a difference"
    assert windows[0].start == timeline.start
    assert windows[0].end > view.t
    assert lengths[-1] < 5 * MS
    for beyond in (furthest - 3, nearest + 3):
        nearby = windows[0] if beyond < 0 else windows[-1]
        assert strips.axis_for(view, Look(zoom=beyond), 100) == nearby


def test_times_under_the_axis_are_as_fine_as_its_cells() -> None:
    wide = axis.Axis(start=0, cell=S, width=60, now=0)
    assert axis.ruler(wide, 0) == "╵00:00              ╵00:20              ╵00:40              "
    fine = axis.Axis(start=16 * S, cell=2 * MS, width=60, now=0)
    assert axis.ruler(fine, 0) == "╵00:16.00                ╵00:16.05                ╵00:16.10 "
    assert axis.ruler(wide, 0, {3, 24})[:45] == " " * 40 + "╵00:4"
    hours = axis.Axis(start=0, cell=300 * S, width=60, now=0)
    assert axis.ruler(hours, 0).split() == ["╵00:00", "╵2:00:00", "╵4:00:00"]


@given(st.integers(0, 10**14), st.integers(1, 10**12), st.integers(1, 200))
def test_a_ruler_is_as_wide_as_its_axis_and_its_times_are_true(start: int, cell: int, width: int) -> None:
    window = axis.Axis(start, cell, width, start)
    text = axis.ruler(window, 0)
    assert len(text) == width
    for at, char in enumerate(text):
        if char == "╵":
            label = text[at + 1 :].split(" ")[0].split("╵")[0]
            whole, _, part = label.partition(".")
            seconds = 0
            for field in whole.split(":"):
                seconds = seconds * 60 + int(field)
            moment = seconds * S + int(part.ljust(9, "0") if part else 0)
            assert window.place(moment) == at


# --- quantities -------------------------------------------------------------------------------------------------------


def test_a_gpu_shows_utilization_memory_and_power(timeline: Timeline) -> None:
    view = timeline.at(LOADING + 5 * S)
    assert [line[:7].strip() for line in drawn(view, height=9)] == [
        "util",
        "",
        "mem",
        "",
        "power",
        "",
        "step",
        "runs",
        "",
    ]
    assert [line[:7].strip() for line in drawn(view, height=5)] == ["util", "mem", "power", "step", ""]
    assert [line[:7].strip() for line in drawn(view, 80, 3)] == ["util", "mem", "step"], "at 80 × 24"
    assert [line[:7].strip() for line in drawn(view, 80, 1)] == ["step"]
    assert drawn(view, height=5)[2].endswith(" 700 W")


def test_the_peak_of_memory_is_marked_with_its_value(session: Callable[..., Timeline]) -> None:
    readings = [(at * 100 * MS, {"memory_used": (20 + 40 * (at == 30)) * GIB}) for at in range(60)]
    view = session(runs_of(("measured", "ok", 0, 5900)), machine(*readings)).now()
    window = strips.axis_for(view, Look(), 120)
    memory = next(line for line in drawn(view, height=5) if line.startswith("   mem"))
    assert memory.index("▲") == strips.LABEL + window.place(3 * S)
    assert memory.endswith("▲60.0/80.0 GiB")
    tall = drawn(view, height=9)
    assert "▲" in tall[2][: -strips.figure_width(120)], "on the upper of two lines: 60 of 80"


def test_what_is_held_between_readings_is_not_drawn_as_if_it_was_read(timeline: Timeline) -> None:
    """Ten readings a second, a window of two thirds of a second: between them the last one is held."""
    view = timeline.at(LOADING + 3 * WALL)
    lines = drawn(view, zoom=5)
    util = line_of(lines, "util").rstrip()
    assert len(util) > 60
    readings = [at for at, char in enumerate(util) if char in "⡏⢹⡖⢲"]
    window = strips.axis_for(view, Look(zoom=5), 120)
    t = np.asarray(view.samples["t"])
    assert readings == [window.place(at) for at in t[t >= window.start].tolist()]
    assert lines[-1].endswith("⡇reading") or any(line.endswith("⡇reading") for line in lines)
    assert "≤1 s mean" in lines[0], "what the driver means by utilization"


def test_a_gap_in_the_readings_stays_a_gap(session: Callable[..., Timeline]) -> None:
    readings = [(at * 100 * MS, {"utilization": 80.0}) for at in (*range(10), *range(70, 90))]
    view = session(runs_of(("measured", "ok", 0, 9000)), machine(*readings)).now()
    util = line_of(drawn(view, 120, 4), "util")
    window = strips.axis_for(view, Look(), 120)
    assert util[window.place(4 * S)] == " "
    assert util[window.place(2 * S)] != " ", "a reading holds for two seconds"


@pytest.mark.parametrize(("field", "reason", "label"), [
    ("utilization", "not available under MIG", "util"),
    ("power_mw", "no permission", "power"),
    ("*", "GPU is lost", "mem"),
])  # fmt: skip
def test_where_there_is_no_figure_there_is_the_reason(
    session: Callable[..., Timeline], field: str, reason: str, label: str
) -> None:
    absent = ("telemetry.jsonl", events.GpuAbsent(t=1, gpu=0, reasons={field: reason}))
    fields = {"utilization": 50.0, "power_mw": 1000, "memory_used": GIB}
    readings = [] if field == "*" else [(S, {name: value for name, value in fields.items() if name != field})]
    view = session(machine(*readings), [absent]).now()
    assert line_of(drawn(view, height=6), label).startswith(reason)


def test_without_a_gpu_the_host_is_shown(tmp_path: Path) -> None:
    view = Timeline.open(record(tmp_path / "cpu", course(gpu=False))).now()
    assert [line[:7].strip() for line in drawn(view, 80, 6)] == ["cpu", "rss", "mem", "step", "runs", ""]
    assert [line.split()[0] for line in drawn(view, 80, 3)] == ["cpu", "rss", "step"]


# --- several GPUs -----------------------------------------------------------------------------------------------------


def eight(session: Callable[..., Timeline]) -> View:
    """Eight GPUs; the model is on the sixth."""
    runs = runs_of(("cold", "ok", 0, 900), ("measured", "ok", 1000, 900), ("measured", "ok", 2000, 900))
    model = events.ModelFacts(
        t=1, name="m", model_type="llava", parameters=1, dtype="float16", device="cuda:0", extra={"gpu_uuid": "GPU-5"}
    )
    readings = [(at * 100 * MS, {"utilization": 50.0, "memory_used": 10 * GIB, "power_mw": 1000}) for at in range(30)]
    return session(runs, [("events.jsonl", model)], machine(*readings, gpus=8)).now()


def test_all_gpus_are_shown_with_a_line_each_as_far_as_there_is_room(session: Callable[..., Timeline]) -> None:
    view = eight(session)
    labels = [line[:7].strip() for line in drawn(view, height=10)]
    assert labels == [*(f"util{gpu}" for gpu in range(8)), "step", ""]
    assert drawn(view, height=10)[0].endswith("10.0/80 G"), "its memory beside it"
    labels = [line[:7].strip() for line in drawn(view, height=18)]
    assert labels[:4] == ["util0", "mem0", "util1", "mem1"]


def test_where_there_is_no_room_for_all_the_models_own_gpu_is_shown(session: Callable[..., Timeline]) -> None:
    lines = drawn(eight(session), 80, 3)
    assert [line[:7].strip() for line in lines] == ["util0", "util5", "step"]
    assert lines[-1].endswith("+6 GPU")


def test_one_gpu_can_be_chosen_and_is_shown_in_full(session: Callable[..., Timeline]) -> None:
    lines = drawn(eight(session), height=6, gpu=3)
    assert [line[:7].strip() for line in lines] == ["util3", "mem3", "pow3", "step", "runs", ""]
    assert not any("+" in line for line in lines)
    assert [line[:7].strip() for line in drawn(eight(session), 80, 3, gpu=77)] == ["util0", "util5", "step"]


def test_no_line_is_asked_for_that_stays_blank(session: Callable[..., Timeline], timeline: Timeline) -> None:
    readings = [(at * 100 * MS, {"utilization": 50.0, "memory_used": GIB}) for at in range(30)]
    silent = session(runs_of(("measured", "ok", 0, 2900)), machine(*readings, gpus=2)).now()
    for view, look in (
        (timeline.now(), Look()),
        (silent, Look()),
        (silent, Look(gpu=1)),
        (eight(session), Look(gpu=1)),
    ):
        _, most = strips.rows_wanted(view, look)
        assert len(strips.draw_strips(view, look, 120, most)) == most
        assert len(strips.draw_strips(view, look, 120, most + 1)) == most


# --- runs and incidents -----------------------------------------------------------------------------------------------


def test_runs_that_do_not_count_are_dim_and_named(session: Callable[..., Timeline]) -> None:
    kinds = ("cold", "warm-up", "discarded", "measured")
    view = session(runs_of(*((kind, "ok", 2000 * at, 1900) for at, kind in enumerate(kinds)))).now()
    window = strips.axis_for(view, Look(), 120)
    styles = styles_of(view, "step")
    lane = line_of(drawn(view), "runs")
    for at, kind in enumerate(kinds):
        cell = window.place((2000 * at + 950) * MS)
        assert styles[cell] == ("step1" if kind == "measured" else "dim"), kind
        number = f"│{at + 1}" if kind == "measured" else f"│{at + 1} {kind[:5]}"
        assert lane[window.place(2000 * at * MS) :].startswith(number)


def test_where_runs_are_narrower_than_a_cell_their_kinds_are_told(session: Callable[..., Timeline]) -> None:
    """Of a session of ten thousand runs the strip still says what was going on when."""
    wanted = [("warm-up" if at < 100 else "measured", "ok", 20 * at, 19) for at in range(1000)]
    view = session(runs_of(*wanted)).now()
    small = drawn(view, 80, 3, zoom=-9)
    assert line_of(small, "runs").split() == ["│warm-…│measured"] or "│measured" in line_of(small, "runs")
    assert "step" not in [line[:7].strip() for line in small]
    assert "│" not in line_of(drawn(view, 120, 9, zoom=-9), "step"), "a mark a run would be nothing but marks"


def test_a_run_that_failed_is_drawn_as_far_as_it_came(session: Callable[..., Timeline]) -> None:
    runs = runs_of(
        ("measured", "ok", 0, 1900), ("measured", "out-of-memory", 2000, 1000), ("measured", "ok", 4000, 1900)
    )
    view = session(runs).now()
    window = strips.axis_for(view, Look(), 120)
    step = line_of(drawn(view), "step")
    assert step[window.place(2500 * MS)] == "1"
    assert step[window.place(3500 * MS)] == "·"
    assert styles_of(view, "step")[window.place(2500 * MS)] == "dim"
    assert "│✗" in line_of(drawn(view), "runs")


def troubled(session: Callable[..., Timeline]) -> View:
    """Two GPUs of which one throttles from the third second on, and runs out of memory in the sixth."""
    runs = runs_of(*(("measured", "out-of-memory" if at == 5 else "ok", 1000 * at, 950) for at in range(9)))
    readings = [
        (at * 100 * MS, {"throttle": 0x40 if 30 <= at < 40 else 0, "memory_used": (79 if at in (57, 58) else 30) * GIB})
        for at in range(90)
    ]
    return session(runs, machine(*readings, gpus=2)).now()


@pytest.mark.parametrize(("width", "height"), [(120, 9), (80, 3)])
def test_incidents_are_marked_by_letter_and_colour(session: Callable[..., Timeline], width: int, height: int) -> None:
    view = troubled(session)
    window = strips.axis_for(view, Look(), width)
    lines = strips.draw_strips(view, Look(), width, height)
    marked = [(char, style) for text, style in lines[-1] for char in text][strips.LABEL :]
    assert marked[window.place(3 * S)] == ("T", "warn")
    assert marked[window.place(5700 * MS)] == ("M", "bad")
    assert marked[window.place(5950 * MS)] == ("E", "bad")
    if width >= strips.WIDE:
        assert "".join(text for text, _ in lines[-1]).endswith("E error"), "the gravest is told in words"
    before = strips.draw_strips(view.timeline.at(int(2.9 * S)), Look(), width, height)
    assert not any(style in ("warn", "bad") for text, style in before[-1]), "nothing of what is to come"


def test_a_pause_is_told_between_runs(session: Callable[..., Timeline]) -> None:
    states: list[Timed] = [
        ("events.jsonl", events.StateChange(t=1000 * MS, state="paused")),
        ("events.jsonl", events.StateChange(t=4000 * MS, state="measuring")),
    ]
    view = session(runs_of(("measured", "ok", 0, 950), ("measured", "ok", 4000, 950)), states).now()
    assert "│1" in line_of(drawn(view), "runs")
    assert "paused" in line_of(drawn(view), "runs")


def test_foreign_names_do_not_break_the_lane(session: Callable[..., Timeline]) -> None:
    told = [
        ("events.jsonl", events.RunStart(t=0, run=1, kind="measured", case="漢字 [red]\x1b[31m")),
        ("events.jsonl", events.RunEnd(t=3 * S, run=1, outcome="ok", start=0, wall=3 * S)),
    ]
    view = session(told).now()
    window = strips.axis_for(view, Look(zoom=2), 120)
    assert len(lanes.runs_lane(view, window, numbered=True)) == window.filled
    assert all(cells.width_of(line) == 120 for line in strips.draw_strips(view, Look(zoom=2), 120, 9))


def test_an_empty_session_has_an_axis(live: Callable[..., Recording]) -> None:
    view = Timeline.open(live([]).path).now()
    for zoom in (-5, 0, 5):
        assert drawn(view, 80, 4, zoom=zoom)[-1].strip().startswith("╵00:00")


def test_the_heart_of_the_screen_is_drawn_at_once_however_long_the_session_is(session: Callable[..., Timeline]) -> None:
    """A live screen draws it twice a second: what it takes must not grow with what lies behind."""
    import time

    runs = [("measured", "ok", 20 * at, 19) for at in range(20_000)]
    readings = [(at * 10 * MS, {"utilization": 50.0, "memory_used": GIB, "throttle": 0}) for at in range(40_000)]
    timeline = session(runs_of(*runs), machine(*readings))
    look = Look()
    for zoom in (-20, 0, 6):
        look.zoom = zoom
        took = math.inf
        for again in range(5):
            view = timeline.at(timeline.end + again)
            began = time.thread_time()
            strips.draw_strips(view, look, 120, 9)
            took = min(took, time.thread_time() - began)
        # 15 ms are the budget of a session of a million events; several times that is a scan of all of it.
        assert took < 0.05
