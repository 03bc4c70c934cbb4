"""What the session boundary costs: opening a million events, looking at a moment, writing an event.

Run with ``python benchmarks/session.py`` (about half a minute; ``--events 100000`` for a quick look). One process, one
core, files in a temporary folder. The figures that travel between machines are the ratios; times are of this machine.
"""

from __future__ import annotations

import argparse
import array
import os
import random
import resource
import statistics
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


def seconds(what: Callable[[], object], repeat: int = 3) -> float:
    """The median CPU time of a call, s: this process has one core, and others may share it."""
    times = []
    for _ in range(repeat):
        before = time.process_time()
        what()
        times.append(time.process_time() - before)
    return statistics.median(times)


def each(what: Callable[[int], object], n: int) -> float:
    """The mean time of one of ``n`` calls, s."""
    before = time.perf_counter()
    for index in range(n):
        what(index)
    return (time.perf_counter() - before) / n


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    count = parser.parse_args().events
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = store.create(Path(folder), "benchmark")
        write = record(path, count)
        size = sum(stream.stat().st_size for stream in path.glob("*.jsonl"))
        before = peak()
        timeline = Timeline.open(path)
        memory = peak() - before
        assert timeline.corrupt == 0 == timeline.unknown
        del timeline
        opening = seconds(lambda: Timeline.open(path))
        decoding = seconds(lambda: bare_decode(path))
        lines = bare_decode(path)
        timeline = Timeline.open(path)
        print(f"{lines:,} events, {size / 1e6:.0f} MB; {timeline.runs.n:,} runs, {timeline.stages.n:,} stage rows, "
              f"{timeline.tokens.n:,} token rows, {timeline.samples.n:,} samples")  # fmt: skip
        table += [
            ("bare msgspec decode of the same bytes", f"{decoding:.2f} s", "1.00"),
            ("Timeline.open", f"{opening:.2f} s", f"{opening / decoding:.2f} × bare decode; ≤ 3 s a million"),
            ("memory that it took", f"{memory / 1e6:.0f} MB", f"{memory / size:.2f} × the file"),
        ]
        chance = random.Random(1)
        moments = [chance.randrange(timeline.end) for _ in range(300)]
        at = each(lambda index: timeline.at(moments[index]).runs, 300)
        full = each(lambda index: touch(timeline, moments[index]), 300)
        table += [
            ("at(t), one table", f"{at * 1e6:.0f} µs", "≤ 1 ms"),
            ("at(t), every table and property", f"{full * 1e6:.0f} µs", "≤ 1 ms"),
            ("poll(), nothing new", f"{each(lambda _: timeline.poll(), 300) * 1e6:.0f} µs", ""),
        ]
        last = writer.StreamWriter(path / "events.jsonl")
        clock = [0.0]

        def follow(index: int) -> None:
            for event in one_run(10**6 + index, timeline.end, chance):
                last.write(event)
            since = time.perf_counter()
            assert timeline.poll()
            clock[0] += time.perf_counter() - since

        each(follow, 100)
        last.close()
        table += [("poll(), one run more (78 events)", f"{clock[0] / 100 * 1e6:.0f} µs", "")]

        event = events.TextHint(t=10**15, run=1, tokens=3, text="ball ")
        line = msgspec.json.encode(event) + b"\n"
        fd = os.open(Path(folder) / "raw", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        raw = each(lambda _: os.write(fd, line), 20_000)
        os.close(fd)
        hints = writer.StreamWriter(Path(folder) / "hints")
        hint = each(lambda _: hints.write(event), 20_000)
        table += [
            ("a flushed event, median of the mix", f"{write / 1e3:.1f} µs", "≤ 20 µs"),
            ("a flushed token hint", f"{hint * 1e6:.1f} µs", f"{hint / raw:.2f} × a bare write() of the line"),
        ]
        commands = control.CommandReader(path)
        table += [("CommandReader.read(), nothing new", f"{each(lambda _: commands.read(), 20_000) * 1e6:.2f} µs", "")]
        commands.close()

        many = Path(folder) / "many"
        for _ in range(200):
            record(store.create(many, "session"), 1000)
        listing = seconds(lambda: store.list_sessions(many))
        table += [
            ("list_sessions() of 200", f"{listing * 1e3:.0f} ms", f"{listing / 200 * 1e3:.2f} ms a session"),
            ("info() of the large session", f"{seconds(lambda: store.info(path), 9) * 1e3:.1f} ms", ""),
            ("status() of the large session", f"{seconds(lambda: store.status(path), 9) * 1e3:.1f} ms", ""),
        ]
    width = max(len(row[0]) for row in table)
    for what, cost, ratio in table:
        print(f"{what:<{width}}  {cost:>9}  {ratio}")


if __name__ == "__main__":
    main()
