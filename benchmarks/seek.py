"""What a jump in time costs in a session of a million events: from the key's handler to the bytes for the terminal.

Run with ``python benchmarks/seek.py`` (about a minute; ``--events 100000`` for a quick look). Two sessions of the same
size: runs of two seconds with 64 tokens, as a large model's, and short ones of one case, as a small model's: more runs,
so more statistics. Each is shown at 120×40 by the whole screen, sought to 200 random places; every part is drawn before
the next one. One process on one core, CPU time, beside the wall's. Exits 1 if one seek among the long runs takes longer
than 50 ms of CPU; the short ones are told: there are eight times as many as in such a session of a real model.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import session

from llava_tui import events
from llava_tui.session import writer
from llava_tui.tui.app import LlavaTui
from llava_tui.tui.screens.monitor import MonitorScreen
from llava_tui.tui.terminal import sequences
from llava_tui.tui.widgets.canvas import LineCanvas

SEEKS = 200
BUDGET = 0.050
CONFIG = {
    "model_type": "llava",
    "text_config": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32064},
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "patch_size": 14},
}
MS = 1_000_000
GIB = 1 << 30


class Shown(LlavaTui):
    """Paints into the void what it would send to a terminal."""

    def paint(self, changes: object) -> None:
        pieces = [piece for canvas, regions in changes for piece in canvas.pieces(regions)]  # type: ignore[attr-defined]
        self.sent = len(sequences(pieces, self.console))


def model_and_gpu(path: Path) -> None:
    """The first lines, which make the monitor grade, and show a GPU."""
    path.mkdir(parents=True, exist_ok=True)
    worker, sampler = (writer.StreamWriter(path / f"{name}.jsonl") for name in ("events", "telemetry"))
    worker.write(
        events.ModelFacts(
            t=0, name="llava-1.5-7b", model_type="llava", parameters=7_063_427_072, dtype="float16", device="cuda:0",
            device_name="NVIDIA H100 80GB HBM3", attention="sdpa", weights_bytes=14 * 10**9, config=CONFIG,
        )
    )  # fmt: skip
    sampler.write(events.GpuDevice(t=0, gpu=0, name="NVIDIA H100 80GB HBM3", memory_total=80 * GIB))
    for stream in (worker, sampler):
        stream.close()


def record_short(path: Path, count: int) -> None:
    """Runs of 100 ms with 8 tokens, all of one case."""
    chance = random.Random(0)
    host = session.header(path)
    writer.write_atomically(path / "session.json", host)
    worker, sampler = (writer.StreamWriter(path / f"{name}.jsonl") for name in ("events", "telemetry"))
    written = 0

    def put(to: writer.StreamWriter, event: events.Event) -> None:
        nonlocal written
        to.write(event)
        written += 1

    for event in session.preamble():
        put(worker, event)
    run, t, case, times = 0, 1000, "f4-b1-n64", [60 * MS + 5 * MS * token for token in range(8)]
    while written < count:
        run += 1
        put(worker, events.RunStart(t=t, run=run, kind="measured", case=case, round=run, item="a.mp4"))
        for number, stage in enumerate(session.STAGES):
            put(worker, events.StageHint(t=t + number * MS, run=run, stage=stage))
        durations = [int(chance.lognormvariate(15, 0.1)) for _ in session.STAGES]
        put(
            worker,
            events.RunEnd(
                t=t + 100 * MS, run=run, outcome="ok", start=t, wall=(100 + chance.randrange(5)) * MS,
                stages=session.STAGES, starts=[number * MS for number in range(len(session.STAGES))],
                durations=[*durations], token_ids=[list(range(8))], token_times=times, text=["a cat"], frames=4,
            ),
        )  # fmt: skip
        for event in session.one_telemetry(t, chance):
            put(sampler, event)
        t += 110 * MS
    for stream in (worker, sampler):
        stream.close()


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of every seek, s, in order."""

    cpu: list[float]
    wall: list[float]
    runs: int

    def row(self, what: str) -> str:
        figures = ("  ".join(f"{values[int(part * (SEEKS - 1))] * 1e3:6.1f}" for part in (0.5, 0.95, 1))
                   for values in (self.cpu, self.wall))  # fmt: skip
        return f"{what:<12} {self.runs:>7,} runs   CPU {next(figures)} ms   wall {next(figures)} ms"


async def seek(path: Path) -> Costs:
    app = Shown(path, fps=0.01)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        while screen.transport is None or screen.timeline is None:
            await pilot.pause(0.05)
        await pilot.pause(1)  # what is worked out ahead is there
        chance = random.Random(1)
        start, end = screen.timeline.start, screen.timeline.end
        cpu, wall = [], []
        for _ in range(SEEKS):
            t = chance.randrange(start, end)
            before = time.process_time(), time.perf_counter()
            screen.seek(t)
            cpu.append(time.process_time() - before[0])
            wall.append(time.perf_counter() - before[1])
            await pilot.pause()
            assert screen.view is not None
            assert screen.view.t == t
            assert "".join(screen.query_one("#transport", LineCanvas).drawn).strip()
        return Costs(sorted(cpu), sorted(wall), screen.timeline.runs.n)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    count = parser.parse_args().events
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    met = True
    kinds: dict[str, Callable[[Path, int], object]] = {"long runs": session.record, "short runs": record_short}
    print(f"{count:,} events, {SEEKS} seeks at 120×40: median, 95 %, most; budget {BUDGET * 1e3:.0f} ms of CPU")
    for name, record in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "session"
            model_and_gpu(path)
            record(path, count)
            costs = asyncio.run(seek(path))
        good = costs.cpu[-1] <= BUDGET or name == "short runs"
        met &= good
        print(costs.row(name) + ("" if good else "  MISSED"))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
