"""Sessions on disk with known times, for what compares them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from headers import make_header

from llava_tui import events
from llava_tui.session.timeline import Timeline, View
from llava_tui.session.writer import StreamWriter, write_atomically

MS = 1_000_000
STAGES: dict[str, tuple[float, str]] = {
    "frames": (10, "host"),
    "frames.decode_frames": (9, "host"),
    "encode": (30, "host"),
    "encode.preprocess": (8, "host"),
    "encode.vision_tower": (20, "device"),
    "generate": (60, "host"),
    "generate.prefill": (20, "device"),
    "generate.decode": (39, "device"),
}
"""Typical ms, and whose clock."""
PARENTS = ("frames", "encode", "generate")


def record(
    path: Path,
    *,
    cases: dict[str, dict[str, Any]] | None = None,
    rounds: int = 20,
    noise: float = 0.005,
    seed: int = 0,
    factor: dict[str, dict[str, float]] | None = None,
    session_factor: float = 1.0,
    tokens: int = 4,
    frames: int = 4,
    stages: dict[str, tuple[float, str]] | None = None,
    header: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    clock: int | None = None,
    utilization: float | None = None,
    said: dict[str, int] | None = None,
    apart: bool = False,
) -> Path:
    """A session of ``rounds`` rounds. ``factor`` multiplies stages by case; ``session_factor`` all times. ``said`` is
    the first token's id by case, 0 elsewhere. ``apart``: one case after the other, each in rounds of its own, as where
    memory holds one model."""
    chance = np.random.default_rng(seed)
    cases = cases or {"a": {"frames": 4, "batch": 1, "new_tokens": tokens}}
    stages = stages or STAGES
    path.mkdir(parents=True)
    write_atomically(path / "session.json", make_header(path.name, **(header or {})))
    stream, telemetry = StreamWriter(path / "events.jsonl"), StreamWriter(path / "telemetry.jsonl")
    loads = [{"load": name, "group": place, "cases": [name]} for place, name in enumerate(cases)] if apart else []
    loaded: dict[str, Any] = {
        "extra": {"loads": loads},
        "name": "m",
        "model_type": "llava",
        "parameters": 1,
        "dtype": "float16",
        "device": "cuda",
    }
    stream.write(events.ModelFacts(t=0, **(loaded | {"digest": "d" * 64} | (model or {}))))
    tree = [events.StageInfo("load", "load")]
    tree += [
        events.StageInfo(stage, stage.split(".")[-1].replace("_", " "), side) for stage, (_, side) in stages.items()
    ]  # type: ignore[arg-type]
    stream.write(events.StageTree(t=0, stages=tree))
    stream.write(
        events.Schedule(t=0, cases=[events.Case(name, values) for name, values in cases.items()], rounds=rounds, runs=9)
    )
    t = run = 0
    together = [[name] for name in cases] if apart else [list(cases)]
    for group, round_ in itertools.product(together, range(rounds)):
        for name in chance.permutation(group):
            run += 1
            t += MS
            stream.write(events.RunStart(t=t, run=run, kind="measured", case=str(name), round=round_))
            took = {
                stage: base * session_factor * (factor or {}).get(str(name), {}).get(stage, 1.0)
                * float(np.exp(chance.normal(0, noise)))
                for stage, (base, _) in stages.items()
            }  # fmt: skip
            for parent in PARENTS:
                children = [stage for stage in stages if stage.startswith(parent + ".")]
                took[parent] = sum(took[child] for child in children) + 1.0
            wall = int(sum(took[parent] for parent in PARENTS) * MS)
            first = int((took["frames"] + took["encode"] + took.get("generate.prefill", 0)) * MS)
            gap = int(took["generate.decode"] / max(tokens - 1, 1) * MS)
            start, t = t, t + wall
            stream.write(
                events.RunEnd(
                    t=t,
                    run=run,
                    outcome="ok",
                    start=start,
                    wall=wall,
                    stages=list(took),
                    starts=[0] * len(took),
                    durations=[int(value * MS) for value in took.values()],
                    token_ids=[[(said or {}).get(str(name), 0) + place for place in range(tokens)]],
                    token_times=[first + gap * index for index in range(tokens)],
                    frames=frames,
                    prompt_tokens=600,
                    image_tokens=576,
                )
            )
            if clock is not None or utilization is not None:
                telemetry.write(
                    events.GpuSample(t=start + wall // 2, gpu=0, sm_clock_mhz=clock, utilization=utilization)
                )
    stream.close()
    telemetry.close()
    return path


def view(path: Path) -> View:
    return Timeline.open(path).now()
