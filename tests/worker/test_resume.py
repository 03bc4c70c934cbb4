"""A data set whose worker was killed or stopped goes on where it was, in the same session, and every item is measured
once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_fakes import Death, MemoryStream, make_course

from llava_tui import events, starting
from llava_tui.analysis.trust import badge
from llava_tui.plan import from_dict
from llava_tui.report import overview
from llava_tui.session import store
from llava_tui.session.reader import SessionError, StreamReader, read_header
from llava_tui.session.timeline import Timeline
from llava_tui.session.writer import write_atomically
from llava_tui.session_files import Item
from llava_tui.worker.past import STEP_NS, Past, shift

ITEMS = 30
_OTHERS = ("lock", "worker.log", ".reserve")
"""What a worker that begins nothing may touch."""


@pytest.fixture
def many(tmp_path: Path) -> str:
    file = tmp_path / "set.jsonl"
    file.write_text("".join(f'{{"path": "{number}.mp4", "id": "item {number}"}}\n' for number in range(ITEMS)))
    return str(file)


@pytest.fixture
def resume(follow: Callable[..., Any]) -> Iterator[Callable[[Path], Any]]:
    begun = []

    def make(path: Path) -> Any:
        live = follow(path, starting.resume(path, ["llava-tui", "run", "--resume", path.name]))
        begun.append(live)
        return live

    yield make
    for live in begun:
        if live.process.poll() is None:
            os.kill(live.process.pid, signal.SIGKILL)
        live.process.wait()


def kill(live: Any) -> None:
    os.kill(live.process.pid, signal.SIGKILL)
    live.process.wait()


def measured(path: Path) -> Counter[tuple[str, int]]:
    """How often each item was measured in each case."""
    view = Timeline.open(path).now()
    rows = [row for row in view.runs.rows() if row["outcome"] == "ok" and row["kind"] in ("measured", "partial")]
    return Counter((row["case"], item) for row in rows for item in row["items"])


def check_whole(path: Path, cases: int, items: int = ITEMS) -> None:
    """Every item once in every case; numbers and times go on; nothing but a torn line is lost."""
    counts = measured(path)
    assert set(counts.values()) == {1}
    assert len(counts) == cases * items
    timeline = Timeline.open(path)
    started = np.asarray(timeline.started["run"])
    assert (np.diff(started) == 1).all(), "run numbers go on"
    assert len(set(np.asarray(timeline.runs["run"]).tolist())) == timeline.runs.n
    for stream in ("events.jsonl", "telemetry.jsonl"):
        times = [event.t for event in StreamReader(path / stream, events.AnyEvent).read()]
        assert times == sorted(times), f"{stream} does not go back"
    assert store.status(path) == "finished"


def test_a_killed_worker_is_gone_on_with_wherever_it_was(
    start: Callable[..., Any], resume: Callable[[Path], Any], many: str
) -> None:
    """Killed three times at moments that nobody chose; the last time the line being written is torn."""
    chance = random.Random(20261122)
    live = start(dataset=many, batch=[2], frames=[1, 2], time_scale=0.1, rounds="auto")
    for more in (5, 3, 4):
        done = live.view().runs.where(kind="measured").sum()
        live.until(lambda view, least=done + more: view.runs.where(kind="measured").sum() >= least, "some runs")
        time.sleep(chance.random() * 0.03)
        kill(live)
        assert store.status(live.path) == "interrupted"
        before = measured(live.path)
        with open(live.path / "events.jsonl", "ab") as stream:
            stream.write(b'{"type":"end","t":12')
        live = resume(live.path)
        assert store.status(live.path) in ("running", "finished")
        assert before.items() <= measured(live.path).items()
    assert live.end() == 0
    check_whole(live.path, cases=2)
    view = live.view()
    loads = view.runs.rows(view.runs.where(kind="load"))
    assert len(loads) == 4
    assert [fact.run + 1 for fact in view.facts["event"] if isinstance(fact, events.Resumed)] == [
        load["run"] for load in loads[1:]
    ]
    assert view.runs.where(kind="cross-check").sum() == 2, "what was checked is not checked again"
    assert view.runs.where(kind="cold", outcome="ok").sum() == 4
    assert view.schedule.runs == view.runs["run"][-1]
    case = view.schedule.cases[0].id
    assert badge(view, case).named("resumed") is not None
    info = store.info(live.path)
    assert "resumed" in overview.as_text(info, live.timeline)
    summary = json.loads((live.path / "summary.json").read_text())
    assert summary["cases"][case]["measured"] == ITEMS / 2, "the summary is of all workers"


def test_a_stopped_one_goes_on_and_does_not_obey_what_was_asked_of_the_other_worker(
    start: Callable[..., Any], resume: Callable[[Path], Any], many: str
) -> None:
    live = start(dataset=many, time_scale=0.02, rounds="auto")
    live.until(lambda view: view.runs.where(kind="measured").sum() >= 4, "some runs")
    live.ask("stop")
    assert live.end() == 0
    assert store.status(live.path) == "stopped"
    again = resume(live.path)
    accepted, _, _ = again.ask("pause")
    assert accepted
    again.until(lambda view: view.state == "paused", "paused")
    again.ask("resume")
    assert again.end() == 0
    check_whole(live.path, cases=1)


def test_a_resumed_one_can_be_stopped_while_it_loads_and_resumed_again(
    start: Callable[..., Any], resume: Callable[[Path], Any], many: str
) -> None:
    live = start(dataset=many, time_scale=0.05, rounds="auto")
    live.until(lambda view: view.runs.where(kind="measured").sum() >= 2, "some runs")
    kill(live)
    again = resume(live.path)
    again.until(lambda view: view.current is not None and view.current["kind"] == "load", "loading")
    again.ask("stop-now")
    assert again.end() == 0
    assert store.status(live.path) == "stopped"
    last = resume(live.path)
    assert last.end() == 0
    check_whole(live.path, cases=1)


# --- what cannot go on ------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.name not in _OTHERS}
    with pytest.raises(SessionError) as error:
        starting.resume(path, [])
    after = {file.name: file.read_bytes() for file in path.iterdir() if file.name not in _OTHERS}
    assert after == before, "it is as it was"
    return str(error.value)


def test_what_cannot_go_on_is_refused_and_left_alone(start: Callable[..., Any], many: str) -> None:
    plain = start(rounds=1)
    plain.end()
    assert "has no data set" in refusal(plain.path)
    assert f"--from {plain.path.name}" in refusal(plain.path)

    live = start(dataset=many, time_scale=0.02, rounds="auto")
    live.until(lambda view: view.runs.where(kind="measured").sum() >= 2, "some runs")
    with pytest.raises(SessionError, match="is running: watch it with llava-tui attach"):
        starting.resume(live.path, [])
    kill(live)

    header = json.loads((live.path / "session.json").read_text())
    write_atomically(live.path / "session.json", header | {"schema": [1, 99]})
    assert "written by a newer llava-tui" in refusal(live.path)
    write_atomically(live.path / "session.json", header)

    items = (live.path / "items.jsonl").read_bytes()
    (live.path / "items.jsonl").write_bytes(items.replace(b"item 3", b"item 4"))
    assert "is not what it was when the session began" in refusal(live.path)
    (live.path / "items.jsonl").write_bytes(items)

    (live.path / "events-1.jsonl").touch()
    assert "several ranks" in refusal(live.path)
    (live.path / "events-1.jsonl").unlink()

    done = start(dataset=many)
    done.end()
    assert "is finished" in refusal(done.path)


def test_the_command_line_says_what_cannot_be_in_one_line(start: Callable[..., Any], many: str) -> None:
    done = start(dataset=many)
    done.end()
    command = [sys.executable, "-P", "-m", "llava_tui", "--sessions", str(done.path.parent), "run", "--resume"]
    for rest, said in (([done.path.name], "is finished"), ([done.path.name, "--rounds", "3"], "leave the other")):
        answer = subprocess.run([*command, *rest], capture_output=True, text=True, timeout=60)
        assert answer.returncode == 2
        assert said in answer.stderr
        assert answer.stderr.count("\n") == 1


# --- time goes on -----------------------------------------------------------------------------------------------------


def header_of(boot: str, t0: int, wall0: int) -> events.Header:
    host = events.HostFacts(hostname="h", os="", cpu="", cores=1, memory=1, boot_id=boot)
    return events.Header(
        schema=events.SCHEMA,
        id="s",
        created="",
        t0=t0,
        wall0=wall0,
        provenance="",
        pipeline="",
        model="",
        plan={},
        host=host,
    )


@given(
    t0=st.integers(0, 10**15),
    lasted=st.integers(0, 10**13),
    gap=st.integers(-(10**13), 10**15),
    monotonic=st.integers(0, 10**16),
    same=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_time_goes_on_by_the_wall_clock_and_never_back(
    t0: int, lasted: int, gap: int, monotonic: int, same: bool
) -> None:
    wall0 = 1_800_000_000 * 10**9
    past = Past(t=t0 + lasted)
    found = shift(header_of("a", t0, wall0), past, monotonic, wall0 + lasted + gap, "a" if same else "b")
    now = monotonic + found
    assert now > past.t
    if same and monotonic > past.t:
        assert found == 0, "the same clock still runs"
    elif gap > STEP_NS:
        assert now == past.t + gap


# --- in one process: any end, any data set ----------------------------------------------------------------------------


@given(
    count=st.integers(1, 9),
    batches=st.sampled_from([[1], [2], [1, 3]]),
    bad=st.sets(st.integers(0, 8), max_size=3),
    stops=st.lists(st.integers(1, 12), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_wherever_a_session_ends_the_next_worker_does_what_is_left(
    tmp_path_factory: pytest.TempPathFactory, count: int, batches: list[int], bad: set[int], stops: list[int]
) -> None:
    plan = from_dict({"warmup": 1, "self_test": False, "cool_down": False, "new_tokens": [5], "batch": batches})
    cases = {case.id: case for case in plan.cases()}
    items = [Item(f"/{number}.mp4") for number in range(count)]
    counts: Counter[tuple[str, int]] = Counter()
    past: Past | None = None
    for stop in [*stops, 10**6]:
        stream = MemoryStream()
        course, pipeline, _ = make_course(tmp_path_factory.mktemp("s"), plan, stream, items=items, past=past)
        pipeline.broken = {f"{number}.mp4": "no such file" for number in bad}
        pipeline.dies_in = stop
        ended = False
        with contextlib.suppress(Death):
            course.run()
            ended = True
        past = past or Past()
        starts = {start.run: start for start in stream.of(events.RunStart)}
        assert all(run > past.run for run in starts)
        for end in stream.of(events.RunEnd):
            start = starts[end.run]
            if end.outcome == "ok" and start.kind in ("measured", "partial"):
                counts.update((start.case, item) for item in start.items)
                past.finished.setdefault((start.case, start.round), []).extend(start.items)
        past.run = max([past.run, *starts])
        for one in stream.of(events.BrokenItem):
            past.broken[one.item] = one.reason
        if ended:
            break
    assert counts == {(case, item): 1 for case in cases for item in range(count) if item not in bad}


@pytest.mark.models
def test_a_real_model_goes_on_after_the_machine_was_started_anew(
    start: Callable[..., Any], resume: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Another boot's id in the header is all that tells: t then goes on by the wall clock, telemetry's too."""
    from llava_tui.pipelines.checkpoints import build_tiny, synthesise_video

    clip = synthesise_video(tmp_path / "clip.mp4", seconds=1)
    lines = [{"path": str(clip), "prompt": f"What, {'x' * (number % 5)}?"} for number in range(24)]
    lines[20] = {"path": "none.mp4"}
    file = tmp_path / "set.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    live = start(
        pipeline="llava",
        model=str(build_tiny(tmp_path / "tiny")),
        device="cpu",
        dataset=str(file),
        batch=[2],
        frames=[1],
        new_tokens=[4],
        rounds="auto",
        time_scale=1.0,
    )
    live.until(lambda view: view.runs.where(kind="measured").sum() >= 3, "some runs")
    kill(live)
    header = read_header(live.path)
    host = msgspec.structs.replace(header.host, boot_id="another")
    write_atomically(live.path / "session.json", msgspec.structs.replace(header, host=host, t0=header.t0 + 10**15))
    shifted = Timeline.open(live.path).end + 10**15
    again = resume(live.path)
    assert again.end() == 0
    view = again.view()
    counts = measured(live.path)
    assert counts == {(view.schedule.cases[0].id, item): 1 for item in range(24) if item != 20}
    assert view.runs["t"][-1] > shifted - 10**9
    assert view.host["t"][-1] > shifted - 10**9
    assert (np.diff(np.asarray(view.host["t"])) >= 0).all()
