"""What the session boundary costs: opening a million events, looking at a moment, writing an event.

Run with ``python benchmarks/session.py`` (about a minute; ``--events 100000`` for a quick look). One process on one
core, files in a temporary folder, CPU time. The figures that travel between machines are the ratios. Exits 1 if one is
missed.
"""

from __future__ import annotations

import argparse
import array
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from llava_tui import events
from llava_tui.session import control, store, writer
from llava_tui.session.reader import CHUNK
from llava_tui.session.timeline import Timeline

STAGES = [
    *("frames", "frames.decode_frames", "encode", "encode.preprocess", "encode.h2d", "encode.vision_tower"),
    *("encode.projector", "generate", "generate.prefill", "generate.decode", "generate.detokenize"),
]
TOKENS = 64
MS = 1_000_000
WORDS = ("the", "a", "cat", "red", "ball", "moves", "left", "across", "the", "screen", "and", "then", "falls")


def header(path: Path) -> events.Header:
    return events.Header(
        schema=events.SCHEMA,
        id=path.name,
        created="2026-01-01T00:00:00+00:00",
        t0=0,
        wall0=1_767_225_600_000_000_000,
        provenance="simulated",
        pipeline="simulated",
        model="llava-1.5-7b",
        plan={},
        host=events.HostFacts(hostname="bench", os="Linux", cpu="cpu", cores=1, memory=1 << 34),
    )


def preamble() -> Iterator[events.Event]:
    """A session's first events."""
    yield events.StateChange(t=1, state="loading")
    yield events.StageTree(t=2, stages=[events.StageInfo(stage, stage) for stage in STAGES])
    yield events.Schedule(t=3, cases=[events.Case("f4-b1-n64", {"frames": 4})], rounds=1000, runs=1000)
    yield events.StateChange(t=4, state="measuring")


def one_run(run: int, start: int, chance: random.Random) -> Iterator[events.Event]:
    """What the worker writes of one run: a hint a stage, a hint a token, the spans."""
    yield events.RunStart(
        t=start, run=run, kind="measured", case=f"f{1 << run % 3}-b1-n64", round=run // 3, item="a.mp4"
    )
    durations: list[int | None] = [int(chance.lognormvariate(17, 1)) for _ in STAGES]
    for number, stage in enumerate(STAGES):
        yield events.StageHint(t=start + number * MS, run=run, stage=stage)
    t = start + 200 * MS
    times = []
    for token in range(1, TOKENS + 1):
        t += 30 * MS + chance.randrange(MS)
        times.append(t - start)
        yield events.TextHint(t=t, run=run, tokens=token, text=chance.choice(WORDS) + " ")
    yield events.RunEnd(
        t=t + MS,
        run=run,
        outcome="ok",
        start=start,
        wall=t - start,
        stages=STAGES,
        starts=[number * MS for number in range(len(STAGES))],
        durations=durations,
        allocated=[14 << 30] * len(STAGES),
        reserved=[15 << 30] * len(STAGES),
        rss=3 << 30,
        token_ids=[[chance.randrange(32_000) for _ in range(TOKENS)]],
        token_times=times,
        text=["a cat moves slowly across the field " * 8],
        frames=4,
        prompt_tokens=2400,
        image_tokens=2304,
    )


def one_telemetry(t: int, chance: random.Random) -> Iterator[events.Event]:
    """What the sampler writes every 100 ms."""
    yield events.GpuSample(
        t=t,
        gpu=0,
        memory_used=14 << 30,
        utilization=float(chance.randrange(100)),
        memory_utilization=float(chance.randrange(100)),
        power_mw=300_000 + chance.randrange(50_000),
        power_limit_mw=700_000,
        energy_mj=t // 3000,
        temperature_c=55,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        throttle=0,
        pcie_tx_kbs=1000,
        pcie_rx_kbs=20,
        worker_memory=13 << 30,
    )
    yield events.HostSample(
        t=t, cpu=12.5, memory_used=20 << 30, memory_total=64 << 30, load=1.25, worker_cpu=99.0, worker_rss=3 << 30
    )


def record(path: Path, count: int) -> float:
    """Writes a session of ``count`` events; returns the median time of one write, ns."""
    chance = random.Random(0)
    writer.write_atomically(path / "session.json", header(path))
    worker = writer.StreamWriter(path / "events.jsonl")
    sampler = writer.StreamWriter(path / "telemetry.jsonl")
    costs = array.array("q")
    clock = time.perf_counter_ns

    def put(to: writer.StreamWriter, event: events.Event) -> None:
        before = clock()
        to.write(event)
        costs.append(clock() - before)

    for event in preamble():
        put(worker, event)
    run, t, next_sample = 0, 1000, 1000
    while len(costs) < count:
        run += 1
        for event in one_run(run, t, chance):
            if len(costs) < count:
                put(worker, event)
            t = max(t, event.t)
        while next_sample < t and len(costs) < count - 1:
            for event in one_telemetry(next_sample, chance):
                put(sampler, event)
            next_sample += 100 * MS
        t += 50 * MS
    worker.close()
    sampler.close()
    return statistics.median(costs)


def cost(what: Callable[[], object], repeat: int = 5) -> float:
    """The median CPU time of a call, s: this process has one core, and others may share it."""
    times = []
    for _ in range(repeat):
        before = time.process_time()
        what()
        times.append(time.process_time() - before)
    return statistics.median(times)


def each(what: Callable[[int], object], n: int) -> float:
    """The mean CPU time of ``n`` calls, s."""
    before = time.process_time()
    for index in range(n):
        what(index)
    return (time.process_time() - before) / n


def bare_decode(path: Path) -> int:
    """The same bytes decoded by msgspec alone, a chunk at a time."""
    decoder = msgspec.json.Decoder(events.AnyEvent)
    found = 0
    for stream in sorted(path.glob("*.jsonl")):
        with open(stream, "rb") as file:
            rest = b""
            while block := file.read(CHUNK):
                end = block.rfind(b"\n") + 1
                found += len(decoder.decode_lines(rest + block[:end]))
                rest = block[end:]
    return found


def touch(timeline: Timeline, t: int) -> None:
    """Everything that a screen may ask of a moment."""
    view = timeline.at(t)
    for name in timeline.tables:
        getattr(view, name)
    _ = view.state, view.current, view.tree, view.schedule, view.model, view.absent(0)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


Row = tuple[str, str, str, bool]
"""What, how much, beside what, and whether that is as it should be."""


def opening(path: Path) -> Iterator[Row]:
    size = sum(stream.stat().st_size for stream in path.glob("*.jsonl"))
    before = peak()
    timeline = Timeline.open(path)
    memory = peak() - before
    lines = bare_decode(path)
    assert timeline.corrupt == 0 == timeline.unknown
    print(f"{lines:,} events, {size / 1e6:.0f} MB: {timeline.runs.n:,} runs, {timeline.stages.n:,} stages, "
          f"{timeline.tokens.n:,} tokens, {timeline.samples.n:,} GPU samples")  # fmt: skip
    del timeline
    decoding, opened = cost(lambda: bare_decode(path)), cost(lambda: Timeline.open(path))
    limit = 3.0 * lines / 1e6
    yield "bare msgspec decode of the same bytes", f"{decoding:.2f} s", "", True
    yield "Timeline.open", f"{opened:.2f} s", f"{opened / decoding:.2f} × bare; ≤ {limit:.2g} s", opened <= limit
    lean = cost(lambda: Timeline.open(path, hints=False))
    yield "the same without hints, as for compare", f"{lean:.2f} s", f"{lean / opened:.2f} × with them", lean < opened
    yield "memory that it took at its peak", f"{memory / 1e6:.0f} MB", f"{memory / size:.2f} × the file", True


def moments(path: Path) -> Iterator[Row]:
    timeline = Timeline.open(path)
    chance = random.Random(1)
    ts = [chance.randrange(timeline.end) for _ in range(500)]
    one, full = each(lambda i: timeline.at(ts[i]).runs, 500), each(lambda i: touch(timeline, ts[i]), 500)
    yield "at(t), one table", f"{one * 1e6:.0f} µs", "≤ 1 ms", one <= 1e-3
    yield "at(t), every table and property", f"{full * 1e6:.0f} µs", "≤ 1 ms", full <= 1e-3
    yield "poll(), nothing new", f"{each(lambda _: timeline.poll(), 500) * 1e6:.0f} µs", "", True
    to = writer.StreamWriter(path / "events.jsonl")
    costs = []
    for index in range(100):
        for event in one_run(10**6 + index, timeline.end, chance):
            to.write(event)
        before = time.process_time()
        timeline.poll()
        costs.append(time.process_time() - before)
    to.close()
    more = f"the first, which makes room: {costs[0] * 1e3:.0f} ms"
    yield "poll(), one run more (78 events)", f"{statistics.median(costs) * 1e6:.0f} µs", more, True


def writing(folder: Path, median: float) -> Iterator[Row]:
    yield "a flushed event, median of the mix", f"{median / 1e3:.1f} µs", "≤ 20 µs", median <= 20_000
    event = events.TextHint(t=10**15, run=1, tokens=3, text="ball ")
    line = msgspec.json.encode(event) + b"\n"
    fd = os.open(folder / "raw", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    raw = each(lambda _: os.write(fd, line), 20_000)
    os.close(fd)
    to = writer.StreamWriter(folder / "hints")
    hint = each(lambda _: to.write(event), 20_000)
    to.close()
    yield "a flushed token hint", f"{hint * 1e6:.1f} µs", f"{hint / raw:.2f} × a bare write() of the line", hint <= 2e-5
    commands = control.CommandReader(folder)
    yield "CommandReader.read(), nothing new", f"{each(lambda _: commands.read(), 20_000) * 1e6:.2f} µs", "", True
    commands.close()


def listing(folder: Path, large: Path) -> Iterator[Row]:
    for _ in range(200):
        record(store.create(folder, "session"), 1000)
    listed = cost(lambda: store.list_sessions(folder))
    yield "list_sessions(), 200 of them", f"{listed * 1e3:.0f} ms", f"{listed / 200 * 1e3:.2f} ms a session", True
    yield "info() of the large session", f"{each(lambda _: store.info(large), 20) * 1e3:.1f} ms", "", True
    yield "status() of the large session", f"{each(lambda _: store.status(large), 100) * 1e3:.2f} ms", "", True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    count = parser.parse_args().events
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = store.create(folder, "benchmark")
        median = record(path, count)
        rows = [*opening(path), *moments(path), *writing(folder, median), *listing(folder / "many", path)]
    for what, much, beside, met in rows:
        print(f"{what:<38} {much:>9}  {beside}" + ("" if met else "  MISSED"))
    return 0 if all(met for *_, met in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
