"""What ``analyze`` takes on a long session: 100,000 measured runs of four cases with all their stages and tokens.

Run with ``python benchmarks/analysis.py`` (under a minute). One process on one core, files in a temporary folder, CPU
time. Then the command as one types it, in processes of its own. Exits 1 if ``analyze`` on an open session, or the
command where the session was opened before, takes more than 1 s of CPU time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from commands import timed

from llava_tui import events
from llava_tui.analysis.whole import analyze
from llava_tui.pipelines.base import LLAVA_STAGES
from llava_tui.plan import Case
from llava_tui.report import analysis as report
from llava_tui.session.timeline import Timeline
from llava_tui.session.writer import write_atomically

LIMIT_S = 1.0
CASES = [Case(frames, batch, 2) for frames in (1, 4) for batch in (1, 2)]
PATHS = [info.path for info in LLAVA_STAGES]
BASE = dict(zip(PATHS, (5, 5, 12, 6, 0.1, 5.7, 0.2, 200, 60, 139.8, 0.2), strict=True))
TEXT = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 336, "patch_size": 14}


def write(folder: Path, runs: int) -> None:
    """A session of that many measured runs."""
    chance = random.Random(1)
    host = events.HostFacts(hostname="bench", os="Linux", cpu="cpu", cores=1, memory=1 << 34)
    header = events.Header(
        schema=events.SCHEMA, id=folder.name, created="2026-01-01T00:00:00+00:00", t0=0, wall0=0,
        provenance="simulated", pipeline="simulated", model="llava-1.5-7b", plan={}, host=host,
    )  # fmt: skip
    write_atomically(folder / "session.json", header)
    model = events.ModelFacts(
        t=2, name="llava-1.5-7b", model_type="llava", parameters=7_063_427_072, dtype="float16", device="simulated",
        device_name="NVIDIA A100-SXM4-80GB (simulated)", attention="simulated", weights_bytes=14_126_854_144,
        config={
            "model_type": "llava",
            "text_config": TEXT | {"model_type": "llama", "vocab_size": 32064},
            "vision_config": VISION | {"model_type": "clip_vision_model"},
        },
    )  # fmt: skip
    encode = msgspec.json.Encoder().encode
    t = 10
    with (folder / "events.jsonl").open("wb") as stream:
        cases = [events.Case(case.id, case.values()) for case in CASES]
        rounds = runs // len(CASES)
        for event in (
            events.StageTree(t=1, stages=list(LLAVA_STAGES)),
            model,
            events.Schedule(t=3, cases=cases, rounds=rounds, runs=runs),
        ):
            stream.write(encode(event) + b"\n")
        for run in range(rounds * len(CASES)):
            case = CASES[run % len(CASES)]
            factor = case.frames * case.batch * chance.lognormvariate(0, 0.01)
            took = [int(1e6 * ms * factor) for ms in BASE.values()]
            wall = took[0] + took[2] + took[7]
            start = events.RunStart(t=t, run=run, kind="measured", case=case.id, round=run // len(CASES))
            end = events.RunEnd(
                t=t + wall, run=run, outcome="ok", start=t, wall=wall, stages=PATHS, starts=[0] * len(PATHS),
                durations=list(took), token_ids=[[1, 2]], token_times=[wall // 2, wall // 3 * 2],
                frames=case.frames * case.batch, prompt_tokens=576 * case.frames + 64, image_tokens=576 * case.frames,
            )  # fmt: skip
            stream.write(encode(start) + b"\n" + encode(end) + b"\n")
            t += wall + 1000
        stream.write(encode(events.StateChange(t=t, state="closed")) + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=100_000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        session = Path(folder) / "long"
        session.mkdir()
        write(session, runs)
        started = time.process_time()
        view = Timeline.open(session, hints=False).now()
        opened = time.process_time()
        found = analyze(view)
        analysed = time.process_time()
        page = report.as_text(view, found)
        told = time.process_time()
        counts = found.insights.measured_runs, len(found.insights.cases), len(page)
        del view, found, page
        first, second = timed(Path(folder), "analyze", ["long"])
    print("{:,} measured runs, {} cases, {:,} characters".format(*counts))
    print(f"open     {opened - started:6.2f} s CPU")
    print(f"analyze  {analysed - opened:6.2f} s CPU  (limit {LIMIT_S:g} s)")
    print(f"as text  {told - analysed:6.3f} s CPU")
    print(f"`llava-tui analyze`, first opening   {first}")
    print(f"`llava-tui analyze`, second opening  {second}  (limit {LIMIT_S:g} s)")
    return 0 if max(analysed - opened, second.cpu) < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
