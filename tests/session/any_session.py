"""Any session at all: what several writers may have written, drawn by hypothesis, and all that was read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from session_making import append, make_header

from llava_tui import events
from llava_tui.session.timeline import Timeline, View

STAGES = ["encode", "encode.vision_tower", "generate"]
MAYBE = st.none() | st.integers(0, 50)
KINDS: dict[type, Any] = {
    events.StateChange: {"state": st.sampled_from(["cold", "measuring", "paused"])},
    events.StageTree: {"stages": st.just([events.StageInfo("encode", "2 encode")])},
    events.Schedule: {"cases": st.just([]), "rounds": st.integers(0, 3), "runs": st.integers(0, 9)},
    events.RunStart: {
        "run": st.integers(0, 3),
        "kind": st.sampled_from(["cold", "measured"]),
        "case": st.sampled_from(["a", "b", "c"]),
        "round": MAYBE,
    },
    events.StageHint: {"run": st.integers(0, 3), "stage": st.sampled_from(STAGES)},
    events.TextHint: {"run": st.integers(0, 3), "tokens": st.integers(0, 9), "text": st.text(max_size=3)},
    events.RunEnd: {
        "run": st.integers(0, 3),
        "outcome": st.sampled_from(["ok", "failed"]),
        "start": st.integers(0, 50),
        "wall": st.integers(0, 50),
        "stages": st.lists(st.sampled_from(STAGES), max_size=4),
        # As many as there are stages, or not: a reader takes what it gets.
        "starts": st.lists(MAYBE, max_size=4),
        "durations": st.lists(MAYBE, max_size=4),
        "token_ids": st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=2),
        "token_times": st.lists(st.integers(0, 50), max_size=4),
        "rss": MAYBE,
    },
    events.CoolDown: {"run": st.integers(0, 3), "why": st.just("hot"), "attempt": st.just(1), "waited": st.just(1)},
    events.WarmUp: {"case": st.just("a"), "runs": st.just(3), "rule": st.just("cap"), "spread": st.floats(0, 1)},
    events.Log: {"level": st.just("info"), "text": st.text(max_size=5)},
    events.GpuSample: {
        "gpu": st.integers(0, 1),
        "power_mw": MAYBE,
        "utilization": st.none() | st.floats(0, 100),
        "processes": st.none() | st.just([events.GpuProcess(pid=1)]),
    },
    events.GpuAbsent: {"gpu": st.integers(-1, 1), "reasons": st.just({"*": "lost"})},
    events.GpuDevice: {"gpu": st.integers(0, 1), "name": st.sampled_from(["x", "y"])},
    events.HostSample: {"cpu": st.none() | st.floats(0, 100)},
}
# Starts and ends of runs belong together: they come more often.
OFTEN = [*KINDS, *[events.RunStart, events.RunEnd] * 4]
EVENT = st.sampled_from(OFTEN).flatmap(lambda kind: st.builds(kind, t=st.just(0), **KINDS[kind]))
STREAM_NAMES = ("events-0.jsonl", "events-1.jsonl", "telemetry-a.jsonl")


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What several writers wrote, in the order in which it reached the disk: each one's events by its clock, the times
    of different ones in any order, equal times among them."""
    clocks = dict.fromkeys(STREAM_NAMES, 0)
    happened = []
    for event, name, step in draw(
        st.lists(st.tuples(EVENT, st.sampled_from(STREAM_NAMES), st.integers(0, 2)), max_size=25)
    ):
        clocks[name] += step
        happened.append((name, msgspec.structs.replace(event, t=clocks[name])))
    return happened


def write(path: Path, happened: list[tuple[str, Any]]) -> None:
    for name in STREAM_NAMES:
        if some := [event for stream, event in happened if stream == name]:
            append(path / name, some)


def session_in(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    (path / "session.json").write_bytes(msgspec.json.encode(make_header()))
    return path


def contents(tables: Timeline | View) -> dict[str, Any]:
    """All rows of all tables."""
    if isinstance(tables, Timeline):
        return {name: table.rows() for name, table in tables.tables.items()}
    return {name: table.prefix(tables.t).rows() for name, table in tables.timeline.tables.items()}
