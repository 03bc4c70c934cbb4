"""What a killed worker leaves: SIGKILL at random moments of a session, then every session is opened.

    python benchmarks/kills.py [--kills 50] [--seed 0] [--json]

About two minutes on two cores. Workers run the simulated pipeline at ten times its speed, so that loading, cold start,
warm-up and rounds are all met, and write as fast as a worker ever does. A session passes when it opens, its status is
``interrupted``, no whole line of it is damaged, every run but the last has its end, and everything that a viewer had
read before the kill is still there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from llava_tui.plan import from_dict
from llava_tui.session import store
from llava_tui.session.launch import launch
from llava_tui.session.reader import SessionError
from llava_tui.session.timeline import Timeline

LONGEST_S = 1.6


def lines(timeline: Timeline) -> int:
    return sum(table.n for name, table in timeline.tables.items() if name not in ("stages", "tokens"))


def kill_one(folder: Path, moment: float) -> dict[str, object]:
    """One session, killed ``moment`` seconds after its worker was ready; what was found."""
    values = {"pipeline": "simulated", "time_scale": 0.1, "frames": [1, 2], "rounds": 100_000, "sample_hz": 100}
    path = store.create(folder, "kill")
    worker = launch(path, from_dict(values).to_json(), [])
    until = time.monotonic() + moment
    watched = Timeline.open(path)
    while time.monotonic() < until:
        watched.poll()
        time.sleep(0.002)
    before = lines(watched)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()

    try:
        timeline = Timeline.open(path)
    except SessionError as error:
        return {
            "state": str(error),
            "status": "",
            "corrupt": 0,
            "torn": [],
            "lines": 0,
            "kept": False,
            "unbroken": False,
        }
    torn = [stream.name for stream in path.glob("*.jsonl") if stream.read_bytes()[-1:] not in (b"\n", b"")]
    begun = [row["run"] for row in timeline.started.rows()]
    ended = [row["run"] for row in timeline.runs.rows()]
    return {
        "state": timeline.now().state or "starting",
        "status": store.status(path),
        "corrupt": timeline.corrupt,
        "torn": torn,
        "lines": lines(timeline),
        "kept": lines(timeline) >= before,
        "unbroken": begun == list(range(len(begun))) and ended in (begun, begun[:-1]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.kills):
            found.append(kill_one(Path(folder), moments.uniform(0, LONGEST_S)))
            if sys.stderr.isatty():
                print(f"\r{number + 1}/{options.kills}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    result = {
        "kills": len(found),
        "opened": sum(one["status"] != "" for one in found),
        "interrupted": sum(one["status"] == "interrupted" for one in found),
        "damaged lines": sum(int(str(one["corrupt"])) for one in found),
        "torn last lines": sum(len(one["torn"]) for one in found if isinstance(one["torn"], list)),
        "kept all that was seen": sum(bool(one["kept"]) for one in found),
        "every run but the last has its end": sum(bool(one["unbroken"]) for one in found),
        "lines read back": sum(int(str(one["lines"])) for one in found),
        "killed while": dict(Counter(str(one["state"]) for one in found)),
    }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:36} {value}")
    whole = all(
        one["status"] == "interrupted" and not one["corrupt"] and one["kept"] and one["unbroken"] for one in found
    )
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
