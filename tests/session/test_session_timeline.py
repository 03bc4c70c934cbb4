"""A session as columns: the same whenever it was read, the past as it was, strange streams and all."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from any_session import contents, happenings, session_in, write
from hypothesis import given, settings
from hypothesis import strategies as st
from session_making import MakeSession, MountNamespace, append

from llava_tui import events
from llava_tui.session.items import read_items
from llava_tui.session.reader import NewerSchema, StreamReader
from llava_tui.session.timeline import TableView, Timeline

FIXTURES = Path(__file__).parent.parent / "fixtures"


# --- the released schema ------------------------------------------------------------------------------------------


def test_a_session_of_schema_1_0_opens_to_the_same_figures() -> None:
    timeline = Timeline.open(FIXTURES / "schema-1.0")
    assert (timeline.corrupt, timeline.unknown) == (0, 0)
    assert (timeline.start, timeline.end) == (1_000_000_000, 1_002_400_000)
    now = timeline.now()
    assert now.state == "closed"
    assert [stage.path for stage in now.tree][:3] == ["frames", "frames.decode_frames", "encode"]
    assert now.tree[3].side == "device"
    assert now.schedule is not None
    assert now.schedule.cases[0].values == {"frames": 4, "batch": 1, "new_tokens": 3}
    assert now.model is not None
    assert now.model.parameters == 7_063_427_072
    assert now.current is None
    assert now.devices[0].memory_total == 85_899_345_920
    assert now.absent(0) == {"pcie_tx_kbs": "not supported by this GPU"}

    assert now.runs.names("kind") == ["load", "measured"]
    run = now.runs.row(1)
    assert (run["kind"], run["case"], run["round"], run["item"]) == ("measured", "f4-b1-n3", 0, "clip.mp4")
    assert (run["start"], run["wall"], run["outcome"]) == (1_001_000_000, 850_000, "ok")
    assert (run["new_tokens"], run["text"], run["token_ids"]) == (3, ["a 猫 sleeps"], [[263, 5, 9]])
    assert (run["frames"], run["prompt_tokens"], run["image_tokens"], run["rss"]) == (4, 2336, 2304, 3_000_000_000)
    assert run["facts"] == {"sampling": "uniform"}
    failed = now.runs.row(2)
    assert (failed["outcome"], failed["reason"]) == ("out-of-memory", "out of memory: 2 GiB more than there is")

    measured = now.stages.where(run=1)
    assert [now.stages.names("stage")[code] for code in now.stages["stage"][measured]] == [
        *("frames", "frames.decode_frames", "encode", "encode.vision_tower", "generate", "generate.prefill")
    ]
    # What could not be told apart is not known, and never 0.
    np.testing.assert_array_equal(now.stages["duration"][measured], [99_000, 98_000, 290_000, 250_000, 440_000, np.nan])
    np.testing.assert_array_equal(
        now.stages["start"][measured] - 1_001_000_000, [100, 200, 100_000, 110_000, 400_000, 0]
    )
    assert now.stages.row(2)["allocated"] is None
    assert np.nanmax(now.stages["allocated"]) == 15_100_000_000
    np.testing.assert_array_equal(now.tokens["at"], [1_001_550_000, 1_001_650_000, 1_001_750_000])
    np.testing.assert_array_equal(now.tokens["id"], [263, 5, 9])
    np.testing.assert_array_equal(now.tokens["index"], [0, 1, 2])

    assert now.text_hints["text"].tolist() == ["a ", "猫 "]
    assert now.samples.row(1)["temperature_c"] is None
    np.testing.assert_array_equal(now.samples["utilization"], [0, 87.5])
    assert now.processes.row(0)["processes"] == [events.GpuProcess(pid=4242, memory=14_500_000_000)]
    assert now.host.row(0)["worker_cpu"] == 99
    told = {"level": "warning", "source": "worker", "text": "allocation failed"}
    assert now.log.row(0) == {"t": 1_002_100_000, **told, "rank": 0}
    assert now.answers.row(0)["accepted"] == 1


def test_a_session_of_schema_1_1_tells_its_facts() -> None:
    timeline = Timeline.open(FIXTURES / "schema-1.1")
    assert (timeline.corrupt, timeline.unknown) == (0, 0)
    now = timeline.now()
    assert now.schedule is not None
    assert now.schedule.open
    assert now.facts.names("name") == ["preflight", "warm-up", "self-test", "cool-down", "ended", "profile"]
    preflight = now.fact(events.Preflight)
    assert preflight is not None
    assert preflight.gpus[0].foreign == [events.GpuProcess(pid=77, memory=500_000_000)]
    test = now.fact(events.SelfTest)
    assert test is not None
    assert (test.overhead, test.verdict, len(test.bare)) == (0.0098, "within", 5)
    ended = now.fact(events.Ended)
    assert ended is not None
    assert (ended.rule, ended.rounds, ended.step, ended.width) == ("interval", 12, "generate", 0.008)
    profile = now.fact(events.Profile)
    assert profile is not None
    assert profile.stages[0].top == [events.Operator("aten::addmm", 200_000, 96)]
    assert profile.stages[1].recorded is None
    assert timeline.at(timeline.start).fact(events.Preflight) is None

    taken_back = now.runs.row(3)
    assert (taken_back["kind"], taken_back["outcome"], taken_back["reason"]) == (
        "discarded",
        "ok",
        "GPU 0 throttled: thermal (software)",
    )
    assert now.stages.row(-1)["kind"] == "discarded", "what is taken back is counted nowhere"


def test_a_session_of_schema_1_2_tells_of_its_items_its_ranks_and_its_memory() -> None:
    timeline = Timeline.open(FIXTURES / "schema-1.2")
    assert (timeline.corrupt, timeline.unknown) == (0, 0)
    dataset = timeline.header.dataset
    assert dataset is not None
    items = read_items(timeline.path, dataset.digest)
    assert [item.name for item in items] == ["a.mp4", "pair", "Katze 猫", "d.mp4", "e.mp4"]
    assert (items[1].paths, items[1].prompt) == (("/clips/b1.png", "/clips/b2.png"), "What differs?")
    now = timeline.now()
    assert now.state == "closed", "it was stopped and gone on with"
    assert [(row["kind"], row["items"]) for row in now.runs.rows()[1:]] == [
        ("measured", [0, 1]),
        ("measured", [3]),
        ("partial", [3]),
    ]
    broken, resumed = now.fact(events.BrokenItem), now.fact(events.Resumed)
    assert broken is not None
    assert (broken.item, broken.name, broken.run) == (4, "e.mp4", 2)
    assert resumed is not None
    assert (resumed.left, resumed.pid, resumed.host.boot_id) == (2, 4343, "b1")
    assert timeline.ranks == [0, 1]
    of_1 = timeline.of(1).now()
    assert (of_1.runs.row(0)["items"], of_1.stages.row(0)["rss"], of_1.stages.row(0)["rss_peak"]) == ([2], 1e9, None)
    assert now.runs.row(1)["facts"]["kv_cache_bytes"] == now.runs.row(1)["facts"]["kv_cache_predicted"] == 1_224_736_768
    assert now.runs.row(2)["facts"]["footprint"]["stage"] == "generate.prefill"
    assert now.model is not None
    assert [part["name"] for part in now.model.extra["modules"]] == ["language model", "vision tower"]
    assert [load["group"] for load in now.model.extra["loads"]] == [0, 1]


FACTS_OF_1_1 = {"Preflight", "WarmUp", "SelfTest", "CoolDown", "Ended", "Profile"}
EVENTS_OF = {
    "1.0": {"StateChange", "StageTree", "Schedule", "ModelFacts", "RunStart", "StageHint", "TextHint", "RunEnd", "Log",
            "Answer", "GpuDevice", "GpuSample", "GpuAbsent", "HostSample"},
}  # fmt: skip
EVENTS_OF["1.1"] = EVENTS_OF["1.0"] | FACTS_OF_1_1
EVENTS_OF["1.2"] = EVENTS_OF["1.1"] | {"BrokenItem", "Resumed"}


@pytest.mark.parametrize("schema", EVENTS_OF)
def test_each_fixture_has_every_event_that_its_schema_has(schema: str) -> None:
    found = {type(event).__name__ for name in ("events", "telemetry") for event in
             StreamReader(FIXTURES / f"schema-{schema}" / f"{name}.jsonl", events.AnyEvent).read()}  # fmt: skip
    assert found == EVENTS_OF[schema]


def test_the_newest_fixture_has_every_event_that_there_is() -> None:
    assert events.SCHEMA == (1, 2), "a new schema is released with a fixture of its own; the others stay"
    assert {kind.__name__ for kind in get_args(events.AnyEvent)} == EVENTS_OF["1.2"]


def test_a_moment_shows_what_was_there_and_nothing_later() -> None:
    timeline = Timeline.open(FIXTURES / "schema-1.0")
    before = timeline.at(0)
    assert (before.state, before.tree, before.schedule, before.model, before.current) == (
        "starting",
        [],
        None,
        None,
        None,
    )
    assert before.devices == {}
    assert before.runs.names("case") == []
    loading = timeline.at(1_000_500_000)
    assert loading.state == "loading"
    assert loading.current is not None
    assert loading.current["kind"] == "load"
    assert loading.started.names("kind") == ["load"]
    running = timeline.at(1_001_600_000)
    assert running.current is not None
    assert (running.current["run"], running.current["case"]) == (1, "f4-b1-n3")
    assert (running.runs.n, running.text_hints.n, running.tokens.n) == (1, 1, 0)
    assert timeline.at(1_001_900_000).current is None
    assert timeline.at(10**30).runs.n == timeline.at(timeline.end).runs.n == 3
    assert timeline.at(-(10**30)).states.n == 0


def test_nothing_is_opened_to_write() -> None:
    # An audit hook sees every open() of the process, however it is made.
    script = """
import os, sys
from pathlib import Path
from llava_tui.session import store
from llava_tui.session.timeline import Timeline
path, seen = Path(sys.argv[1]), []
def hook(event, args):
    if event == "open" and str(path) in str(args[0]):
        seen.append(args)
    assert event not in ("os.remove", "os.rename", "os.mkdir", "os.truncate", "os.utime", "os.chmod"), event
sys.addaudithook(hook)
timeline = Timeline.open(path)
timeline.poll()
timeline.now().runs.rows()
store.info(path)
assert len(seen) >= 5, seen
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
assert not [args for args in seen if args[2] & writing], seen
"""
    subprocess.run([sys.executable, "-c", script, FIXTURES / "schema-1.0"], check=True)


def test_a_session_on_read_only_media_opens_and_takes_nothing(in_mount_namespace: MountNamespace) -> None:
    script = """
from pathlib import Path
from llava_tui import events
from llava_tui.session import control, store
from llava_tui.session.reader import SessionError
from llava_tui.session.timeline import Timeline
folder = Path("/mnt")
path = store.find(folder, "schema-1.0")
found = {one.path: one for one in store.list_sessions(folder)}[path]
assert not found.problem, found.problem
assert found.status == "finished", found
timeline = Timeline.open(path)
assert timeline.runs.n == 3
assert not timeline.poll()
for attempt in (
    lambda: control.send(path, "pause"),
    lambda: store.set_notes(path, events.Notes(name="x")),
    lambda: store.delete(path),
    lambda: store.create(folder, "new"),
):
    try:
        attempt()
    except SessionError as error:
        assert "Read-only file system" in str(error), error
    else:
        raise AssertionError("written to read-only media")
"""
    result = in_mount_namespace(f'mount --bind "{FIXTURES}" /mnt && mount -o remount,ro,bind /mnt', script)
    assert result.returncode == 0, result.stderr


def test_a_newer_major_is_refused(make_session: MakeSession) -> None:
    with pytest.raises(NewerSchema):
        Timeline.open(make_session(schema=(2, 0)))


# --- any stream, read any way -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(happened=happenings(), cuts=st.lists(st.integers(0, 25), max_size=4))
def test_following_a_session_gives_what_opening_it_at_its_end_gives(
    happened: list[tuple[str, Any]], cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = session_in(folder, "followed")
        following = Timeline.open(path)
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(happened)], strict=True):
            write(path, happened[start:end])
            assert following.poll() == bool(happened[start:end])
        assert not following.poll()
        opened = Timeline.open(path)
        assert contents(following) == contents(opened)
        assert following.end == opened.end
        for table in following.tables.values():
            assert (np.diff(table["t"]) >= 0).all()


@settings(deadline=None, max_examples=60)
@given(happened=happenings(), t=st.integers(-1, 30))
def test_a_moment_is_the_session_rebuilt_from_what_had_happened_by_then(
    happened: list[tuple[str, Any]], t: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, part = session_in(folder, "whole"), session_in(folder, "part")
        write(whole, happened)
        write(part, [(name, event) for name, event in happened if event.t <= t])
        view, rebuilt = Timeline.open(whole).at(t), Timeline.open(part).at(t)
        assert contents(view) == contents(rebuilt)
        for attribute in ("state", "tree", "schedule", "model", "current", "devices"):
            assert getattr(view, attribute) == getattr(rebuilt, attribute)
        assert [view.absent(gpu) for gpu in (0, 1)] == [rebuilt.absent(gpu) for gpu in (0, 1)]


HINTS = ("stage_hints", "text_hints")


@settings(deadline=None, max_examples=60)
@given(happened=happenings(), foreign=st.booleans(), cut=st.integers(0, 25))
def test_without_hints_all_else_is_as_with_them(happened: list[tuple[str, Any]], foreign: bool, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = session_in(folder, "followed")
        write(path, happened[:cut])
        following = Timeline.open(path, hints=False)
        write(path, happened[cut:])
        following.poll()
        if foreign:  # other writers' lines: blanks, and the type not in front
            for stream in path.glob("*.jsonl"):
                lines = [msgspec.json.decode(line) for line in stream.read_bytes().splitlines()]
                texts = [json.dumps(dict(reversed(line.items())) if line["t"] % 2 else line) for line in lines]
                stream.write_text("".join(f"{text}\n" for text in texts))
        whole, lean = Timeline.open(path), Timeline.open(path, hints=False)
        expected = contents(whole) | {name: [] for name in HINTS}
        assert contents(lean) == contents(following) == expected
        assert lean.end == following.end == whole.end


def test_hints_are_not_even_decoded_where_they_are_not_wanted(make_session: MakeSession) -> None:
    path = make_session()
    lines = ['{"type":"stage","t":1,"run":1,"stage":"a"}', '{"type":"text","t":2,"run":"damaged"}']
    other = '{"type":"log","t":3,"level":"info","text":"kept"}\n{"type":"text","type":"log","t":4}\n{"type":"tex'
    (path / "events.jsonl").write_text("\n".join([*lines * 2, '{"type":"text","t":3,"run":1,"tokens":1}', other]))
    whole, lean = Timeline.open(path), Timeline.open(path, hints=False)
    assert (whole.corrupt, whole.stage_hints.n, whole.text_hints.n) == (3, 2, 1)
    assert (lean.corrupt, lean.stage_hints.n, lean.text_hints.n) == (1, 0, 0)
    assert lean.log["text"].tolist() == ["kept"]


def test_a_picture_holds_while_the_session_goes_on(make_session: MakeSession) -> None:
    path = make_session(happened=[events.Log(t=t, level="info", text=str(t)) for t in range(0, 100, 2)])
    timeline = Timeline.open(path)
    view = timeline.at(50)
    seen = view.log
    before = contents(view)["log"]
    # A rank that was late: its events belong between those that were seen.
    append(path / "events-1.jsonl", [events.Log(t=t, level="error", text=str(t)) for t in range(1, 2000, 2)])
    assert timeline.poll()
    assert seen.rows() == before
    assert view.log is seen
    assert timeline.at(50).log["text"].tolist() == [str(t) for t in range(51)]
    with pytest.raises(ValueError, match="read-only"):
        seen["t"][0] = 7


def test_equal_times_come_in_the_order_of_the_streams_whichever_was_read_first(make_session: MakeSession) -> None:
    path = make_session()
    (path / "events.jsonl").unlink()
    following = Timeline.open(path)
    for name in ("events-1", "events-0", "events-2", "events-1", "events-0"):
        number = following.log.n
        append(path / f"{name}.jsonl", [events.Log(t=5, level="info", text=f"{name} {number}")])
        assert following.poll()
    expected = ["events-0 1", "events-0 4", "events-1 0", "events-1 3", "events-2 2"]
    assert following.log["text"].tolist() == Timeline.open(path).log["text"].tolist() == expected


def test_numbers_that_fit_nowhere_cost_their_own_event_alone(make_session: MakeSession) -> None:
    huge = 10**30
    path = make_session(
        happened=[
            events.Log(t=1, level="info", text="kept"),
            events.Log(t=huge, level="info", text="not kept"),
            events.RunStart(t=2, run=1, kind="measured"),
            events.RunEnd(t=3, run=1, outcome="ok", start=2, wall=1, stages=["a"], durations=[huge]),
            events.RunEnd(t=3, run=1, outcome="ok", start=2, wall=1, token_times=[1, -huge]),
            events.RunEnd(t=3, run=1, outcome="ok", start=2, wall=1, token_ids=[[huge]], token_times=[1]),
            events.RunEnd(t=4, run=1, outcome="ok", start=2, wall=2, stages=["a"], starts=[0], durations=[2]),
        ]
    )
    timeline = Timeline.open(path)
    assert timeline.corrupt == 4
    assert timeline.end == 4
    assert timeline.log["text"].tolist() == ["kept"]
    assert timeline.runs["wall"].tolist() == [2]
    assert timeline.stages["duration"].tolist() == [2]
    assert timeline.tokens.n == 0


def test_an_end_whose_start_was_lost_is_kept_and_belongs_to_no_case(make_session: MakeSession) -> None:
    timeline = Timeline.open(make_session(happened=[events.RunEnd(t=3, run=9, outcome="ok", start=2, wall=1)]))
    row = timeline.runs.row(0)
    assert (row["run"], row["kind"], row["case"], row["round"]) == (9, "", "", None)


def test_all_text_in_a_timeline_is_safe(make_session: MakeSession) -> None:
    evil = "\x1b]0;x\x07\x1b[31mevil\u202e"
    path = make_session(
        happened=[
            events.StateChange(t=1, state=evil, reason=evil),
            events.StageTree(t=1, stages=[events.StageInfo(evil, evil)]),
            events.Schedule(t=1, cases=[events.Case(evil, {evil: evil})], rounds=1, runs=1, rule=evil),
            events.ModelFacts(
                t=1, name=evil, model_type=evil, parameters=1, dtype=evil, device=evil, config={evil: [evil]}
            ),
            events.RunStart(t=1, run=1, kind=evil, case=evil, item=evil),
            events.StageHint(t=1, run=1, stage=evil),
            events.TextHint(t=1, run=1, tokens=1, text=evil),
            events.RunEnd(
                t=2, run=1, outcome=evil, start=1, wall=1, reason=evil, stages=[evil], text=[evil], facts={evil: [evil]}
            ),
            events.Log(t=1, level="info", text=evil, source=evil),
            events.Answer(t=1, id=evil, verb=evil, accepted=True, text=evil, author=evil),
            events.GpuDevice(t=1, gpu=0, name=evil),
            events.GpuSample(t=1, gpu=0, processes=[events.GpuProcess(pid=1, kind=evil)]),
            events.GpuAbsent(t=1, gpu=0, reasons={evil: evil}),
            events.Ended(t=1, rule="cap", text=evil, rounds=1, case=evil),
        ]
    )
    found = contents(Timeline.open(path))
    assert {name for name, rows in found.items() if not rows} == {"tokens", "host"}
    shown = repr(found)
    assert "evil" in shown
    for sign in ("x1b", "u202e", "x07"):
        assert sign not in shown


def test_text_that_only_differs_in_what_is_unsafe_is_one_category(make_session: MakeSession) -> None:
    path = make_session(happened=[events.StageHint(t=1, run=1, stage=stage) for stage in ("a", "\x1b[1ma", "b")])
    hints = Timeline.open(path).stage_hints
    assert hints.names("stage") == ["a", "b"]
    assert hints.where(stage="a").tolist() == [True, True, False]


# --- tables -------------------------------------------------------------------------------------------------------


@pytest.fixture
def starts(make_session: MakeSession) -> TableView:
    happened = [
        events.RunStart(t=n, run=n, kind=kind, case=case, round=n or None)
        for n, (kind, case) in enumerate([("cold", "a"), ("measured", "a"), ("measured", "b"), ("warm-up", "b")])
    ]
    return Timeline.open(make_session(happened=happened)).now().started


def test_rows_are_chosen_by_what_they_say(starts: TableView) -> None:
    assert starts.where(case="a", kind="measured").tolist() == [False, True, False, False]
    assert starts.where(kind=("cold", "warm-up")).tolist() == [True, False, False, True]
    assert starts.where(run=2).tolist() == starts.where(round=2).tolist() == [False, False, True, False]
    assert not starts.where(case="never").any()
    assert not starts.where(case=[]).any()
    assert starts.where().all()
    assert [row["run"] for row in starts.rows(starts.where(case="b"))] == [2, 3]
    with pytest.raises(KeyError):
        starts.where(colour="red")


def test_a_row_is_python_values(starts: TableView) -> None:
    first = {"t": 0, "run": 0, "kind": "cold", "case": "a", "round": None, "seed": 0, "item": ""}
    assert {name: value for name, value in starts.row(0).items() if name in first} == first
    assert starts.row(-1)["run"] == 3
    assert type(starts.row(1)["run"]) is int
    for index in (4, -5):
        with pytest.raises(IndexError):
            starts.row(index)


def test_one_value_is_what_its_column_says_whether_or_not_it_was_asked_for(make_session: MakeSession) -> None:
    runs = 1200  # several chunks of the stream
    happened = [
        events.RunEnd(
            t=run, run=run, outcome="ok", start=run, wall=1, text=[f"{run} " + "word " * 50], token_ids=[[run], [7]],
            facts={"run": run} if run != 700 else {"beyond": 10**30},
        )
        for run in range(runs)
    ]  # fmt: skip
    first, last = make_session("first", happened[:-1]), make_session("second", happened)
    whole, growing = Timeline.open(last).runs, Timeline.open(first)
    append(first / "events.jsonl", happened[-1:])
    growing.poll()
    for table in (whole, growing.runs):
        for column in ("run", "text", "token_ids", "facts", "outcome"):
            asked = [table.value(column, run) for run in (0, 699, 700, runs - 1, -1)]
            rows = [table.row(run)[column] for run in (0, 699, 700, runs - 1, -1)]
            values = table[column] if column != "outcome" else ["ok"] * runs
            assert asked == rows == [values[run] for run in (0, 699, 700, runs - 1, -1)]
            assert table.value(column, 3) == values[3]
    with pytest.raises(IndexError):
        whole.value("run", runs)


def test_a_table_goes_to_pandas(starts: TableView) -> None:
    pytest.importorskip("pandas")
    frame = starts.to_pandas()
    assert frame["kind"].tolist() == ["cold", "measured", "measured", "warm-up"]
    assert frame["round"].isna().tolist() == [True, False, False, False]


def test_opening_holds_no_file_open(make_session: MakeSession) -> None:
    path = make_session(happened=[events.StateChange(t=1, state="closed")])
    timelines = [Timeline.open(path) for _ in range(3)]
    held = [fd.resolve() for fd in Path("/proc/self/fd").iterdir()]
    assert not [target for target in held if target.is_relative_to(path)]
    assert len(timelines) == 3


def test_the_page_on_the_format_names_every_event_and_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs/session-format.md").read_text()
    structs = [*get_args(events.AnyEvent), events.Command, events.Header, events.HostFacts, events.Notes,
               events.StageInfo, events.Case, events.GpuProcess]  # fmt: skip
    named = {name for struct in structs for name in (*struct.__struct_fields__, struct.__struct_config__.tag) if name}
    assert not {name for name in named if f"`{name}`" not in page}
