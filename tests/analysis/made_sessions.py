"""Sessions of a LLaVA-1.5-7B whose every duration a test decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from headers import make_header
from llava_7b import CONFIG, PARAMETERS

from llava_tui import events
from llava_tui.pipelines.base import LLAVA_STAGES, LOAD_STAGES
from llava_tui.plan import Case, Plan
from llava_tui.session.timeline import Timeline, View
from llava_tui.session.writer import write_atomically

MS = 1_000_000
MODEL = events.ModelFacts(
    t=2,
    name="llava-1.5-7b",
    model_type="llava",
    parameters=PARAMETERS,
    dtype="float16",
    device="cuda:0",
    device_name="NVIDIA A100-SXM4-80GB",
    attention="sdpa (flash)",
    context_length=4096,
    weights_bytes=2 * PARAMETERS,
    config=CONFIG,
)
LEAVES = [info.path for info in LLAVA_STAGES if "." in info.path]
Times = Callable[[Case, int], dict[str, float]]
"""Leaf durations in ms of a case in a round."""


def a100(case: Case, round_: int) -> dict[str, float]:
    """Half of the peak in prefill and encode, 40 % of the bandwidth in decode, about 0.1 % of noise."""
    wobble = 1 + 0.001 * ((round_ * 7) % 5 - 2)
    frames, tokens = case.frames * case.batch, 576 * case.frames + 64
    prefill = case.batch * (2 * 6.476e9 * tokens + 2 * tokens**2 * 4096 * 32 + 2 * 0.131e9) / 312e12 * 1e3
    step = (13.21e9 + case.batch * 0.524e6 * (tokens + case.new_tokens / 2)) / 2039e9 * 1e3
    return {
        "frames.decode_frames": 5.0 * frames * wobble,
        "encode.preprocess": (2 + 6.0 * frames) * wobble,
        "encode.h2d": 0.1,
        "encode.vision_tower": (1.0 + 2 * 1.224 * frames) * wobble,
        "encode.projector": 0.16 * frames * wobble,
        "generate.prefill": 2 * prefill * wobble,
        "generate.decode": step / 0.4 * (case.new_tokens - 1) * wobble,
        "generate.detokenize": 0.1,
    }


def make(
    folder: Path,
    cases: Iterable[Case],
    rounds: int = 12,
    times: Times = a100,
    model: events.ModelFacts = MODEL,
    header: dict[str, Any] | None = None,
    allocated: int | None = None,
    reserved: int | None = None,
    extra: Iterable[Any] = (),
    throttle: int | None = None,
) -> View:
    """A finished session in ``folder``: every case once a round, with a GPU sample in each run."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = list(cases)
    plan = Plan(
        frames=tuple(dict.fromkeys(case.frames for case in cases)),
        batch=tuple(dict.fromkeys(case.batch for case in cases)),
        new_tokens=tuple(dict.fromkeys(case.new_tokens for case in cases)),
    )
    host = events.HostFacts(hostname="h", os="Linux", cpu="a CPU", cores=16, memory=1 << 37)
    fields: dict[str, Any] = {"model": "llava-1.5-7b", "plan": plan.to_dict(), "host": host}
    write_atomically(folder / "session.json", make_header(folder.name, **(fields | (header or {}))))
    lines: list[Any] = [
        events.StageTree(t=1, stages=[*LOAD_STAGES, *LLAVA_STAGES]),
        model,
        events.Schedule(t=3, cases=[events.Case(case.id, case.values()) for case in cases], rounds=rounds, runs=99),
    ]
    samples: list[Any] = [
        events.GpuDevice(t=4, gpu=0, name=model.device_name, memory_total=80 * 2**30),
        events.GpuSample(t=4, gpu=0, memory_used=15 * 2**30, throttle=0),
    ]
    t, run = 10, 0
    for round_ in range(rounds):
        for case in cases:
            run, t = run + 1, t + MS
            lines.append(events.RunStart(t=t, run=run, kind="measured", case=case.id, round=round_))
            end = _end(case, run, t, times(case, round_), allocated, reserved)
            middle = t + end.wall // 2
            samples.append(events.GpuSample(t=middle, gpu=0, memory_used=20 * 2**30, throttle=throttle))
            t = end.t
            lines.append(end)
    lines += [*extra, events.StateChange(t=t + 1, state="closed")]
    encode = msgspec.json.Encoder().encode
    (folder / "events.jsonl").write_bytes(b"".join(encode(line) + b"\n" for line in lines))
    (folder / "telemetry.jsonl").write_bytes(b"".join(encode(line) + b"\n" for line in samples))
    return Timeline.open(folder).now()


def _end(
    case: Case, run: int, start: int, took: dict[str, float], allocated: int | None, reserved: int | None
) -> events.RunEnd:
    """The end of a run whose leaves follow each other without a gap."""
    durations: dict[str, int] = {}
    starts: dict[str, int] = {}
    at = 0
    for path in LEAVES:
        step = path.split(".")[0]
        starts.setdefault(step, at)
        starts[path], durations[path] = at, round(took[path] * MS)
        at += durations[path]
        durations[step] = at - starts[step]
    paths = [info.path for info in LLAVA_STAGES]
    first = starts["generate.decode"]
    gap = durations["generate.decode"] / max(case.new_tokens - 1, 1)
    tokens = 576 * case.frames
    return events.RunEnd(
        t=start + at,
        run=run,
        outcome="ok",
        start=start,
        wall=at,
        stages=paths,
        starts=[starts[path] for path in paths],
        durations=[durations[path] for path in paths],
        allocated=[allocated] * len(paths),
        reserved=[reserved] * len(paths),
        token_ids=[[7] * case.new_tokens] * case.batch,
        token_times=[first + round(gap * index) for index in range(case.new_tokens)],
        frames=case.frames * case.batch,
        prompt_tokens=tokens + 64,
        image_tokens=tokens,
    )
