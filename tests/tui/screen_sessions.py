"""Sessions for the screens' tests: events of a made-up course, to be written whole or piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import headers

from llava_tui import events
from llava_tui.session import writer

MS = 1_000_000
S = 1_000_000_000
GIB = 1 << 30

TREE = (
    ("load", "load"),
    ("load.weights", "weights"),
    ("frames", "1 frames"),
    ("frames.decode_frames", "decode frames"),
    ("encode", "2 encode"),
    ("encode.vision_tower", "vision tower"),
    ("encode.projector", "projector"),
    ("generate", "3 generate"),
    ("generate.prefill", "prefill"),
    ("generate.decode", "decode"),
)
# What each stage of a run takes, ms, from where; steps include theirs.
SPANS = (
    ("frames", 0, 100),
    ("frames.decode_frames", 0, 90),
    ("encode", 100, 400),
    ("encode.vision_tower", 110, 300),
    ("encode.projector", 410, 80),
    ("generate", 500, 1490),
    ("generate.prefill", 500, 200),
    ("generate.decode", 700, 1280),
)
WALL = 2000 * MS
TOKENS = 16
LOADING = 3 * S

Timed = tuple[str, events.Event]
"""A stream's name and an event."""


def course(
    *,
    runs: int = 8,
    cases: tuple[str, ...] = ("f1-b1-n16", "f4-b1-n16"),
    gpu: bool = True,
    closed: bool = True,
    text: str = "A street, seen from above.",
    hole: bool = False,
    ms: int = MS,
) -> list[Timed]:
    """All events in the order of their times: loading, then ``runs`` runs of 2 s, the first two not measured.

    ``hole``: the projector could not be told apart. ``ms``: what a millisecond of a run takes, for longer or shorter
    ones.
    """
    out: list[Timed] = []

    def say(event: events.Event) -> None:
        out.append(("events.jsonl", event))

    known = [events.Case(id=case, values={"frames": int(case[1]), "batch": 1, "new_tokens": 16}) for case in cases]
    say(events.StateChange(t=0, state="starting"))
    say(events.StageTree(t=0, stages=[events.StageInfo(path, title) for path, title in TREE]))
    say(events.Schedule(t=0, cases=known, rounds=4, runs=runs, rule="4 rounds"))
    say(events.StateChange(t=1, state="loading"))
    say(events.RunStart(t=1, run=0, kind="load"))
    say(events.StageHint(t=1, run=0, stage="load"))
    say(events.StageHint(t=2, run=0, stage="load.weights"))
    spent = [LOADING - 2, LOADING - 3]
    say(
        events.RunEnd(
            t=LOADING, run=0, outcome="ok", start=1, wall=LOADING - 1, stages=["load", "load.weights"],
            starts=[0, 1], durations=[*spent],
        )
    )  # fmt: skip
    say(
        events.ModelFacts(
            t=LOADING, name="tiny/llava", model_type="llava", parameters=7, dtype="bfloat16", device="cuda:0",
            attention="sdpa",
        )
    )  # fmt: skip
    t = LOADING + 1
    say(events.StateChange(t=t, state="measuring"))
    for run in range(1, runs + 1):
        case = cases[run % len(cases)]
        kind = "cold" if run == 1 else "warm-up" if run == 2 else "measured"
        scale = 1.0 + 0.01 * (run % 3)
        say(events.RunStart(t=t, run=run, kind=kind, case=case, round=max(run - 3, 0) // 2, item="clip.mp4"))
        hints: list[events.Event] = [
            events.StageHint(t=t + int(at * ms * scale), run=run, stage=path) for path, at, _ in SPANS
        ]
        times = [int((700 + 80 * (i + 1)) * ms * scale) for i in range(TOKENS)]
        hints += [
            events.TextHint(t=t + at, run=run, tokens=i + 1, text=text[i * 2 : i * 2 + 2]) for i, at in enumerate(times)
        ]
        for hint in sorted(hints, key=lambda event: event.t):
            say(hint)
        wall = int(2000 * ms * scale)
        paths = [path for path, _, _ in SPANS]
        durations: list[int | None] = [int(took * ms * scale) for _, _, took in SPANS]
        if hole:
            durations[paths.index("encode.projector")] = None
        say(
            events.RunEnd(
                t=t + wall, run=run, outcome="ok", start=t, wall=wall, stages=paths,
                starts=[int(at * ms * scale) for _, at, _ in SPANS], durations=durations,
                token_ids=[list(range(TOKENS))], token_times=times, text=[text], frames=int(case[1]), rss=2 * GIB,
            )
        )  # fmt: skip
        t += wall + 10 * MS
    if closed:
        say(events.StateChange(t=t, state="closed"))
    if gpu:
        out.append(
            ("telemetry.jsonl", events.GpuDevice(t=0, gpu=0, name="NVIDIA H100 80GB HBM3", memory_total=80 * GIB))
        )
    for index, at in enumerate(range(10, t, 100 * MS)):
        if gpu:
            busy = at > LOADING
            out.append(
                (
                    "telemetry.jsonl",
                    events.GpuSample(
                        t=at, gpu=0, memory_used=(10 + index % 7) * GIB if busy else GIB,
                        utilization=90.0 if busy else 0.0, power_mw=400_000, power_limit_mw=700_000,
                        temperature_c=60, sm_clock_mhz=1980, energy_mj=index * 40_000,
                    ),
                )
            )  # fmt: skip
        else:
            out.append(("telemetry.jsonl", events.GpuAbsent(t=at, gpu=-1, reasons={"*": "no NVIDIA driver"})))
        out.append(
            (
                "telemetry.jsonl",
                events.HostSample(
                    t=at, cpu=50.0, memory_used=4 * GIB, memory_total=8 * GIB, load=1.0, worker_cpu=120.0,
                    worker_rss=2 * GIB,
                ),
            )
        )  # fmt: skip
    return sorted(out, key=lambda pair: pair[1].t)


def make_header(id_: str, **changes: Any) -> events.Header:
    """Of a session of the tiny model on a clip."""
    values: dict[str, Any] = {
        "wall0": 1_767_225_600_000_000_000,
        "model": "tiny/llava",
        "plan": {"inputs": ["clip.mp4"]},
    }
    return headers.make_header(id_, **(values | changes))


class Recording:
    """A session that is being written, as the worker would: the lock is held until :meth:`close`."""

    def __init__(self, path: Path, happened: list[Timed], **header: Any) -> None:
        self.path = path
        path.mkdir(parents=True, mode=0o700)
        writer.write_atomically(path / "session.json", make_header(path.name, **header))
        self._lock = writer.lock(path)
        names = {"events.jsonl", "telemetry.jsonl"} | {name for name, _ in happened}
        self._streams = {name: writer.StreamWriter(path / name) for name in names}
        self._left = happened

    def write_until(self, t: int) -> None:
        """Writes what happened up to and including ``t``."""
        count = sum(event.t <= t for _, event in self._left)
        for stream, event in self._left[:count]:
            self._streams[stream].write(event)
        self._left = self._left[count:]

    def say(self, event: events.Event) -> None:
        """Writes one more event."""
        self._streams["events.jsonl"].write(event)

    def close(self) -> None:
        """The worker is gone."""
        self._lock.release()
        for stream in self._streams.values():
            stream.close()


def record(path: Path, happened: list[Timed], **header: Any) -> Path:
    """A session that was written whole, by a worker that is gone."""
    recording = Recording(path, happened, **header)
    recording.write_until(1 << 62)
    recording.close()
    return path
