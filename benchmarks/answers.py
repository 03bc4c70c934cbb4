"""How soon a worker answers, from its first moment to its last: commands at random moments of real demo sessions.

    python benchmarks/answers.py [--sessions 6] [--frames 1,4] [--new-tokens 16] [--seed 0] [--json]

Each session is `llava-tui run --model demo --detach`: a real worker that loads torch. Pause, resume and extend are sent
to it, one after another, at random moments. An answer holds if it was to be read in the session's events within 200 ms
or, where that was longer, within the token that was being made, prefill or decode step, by the session's own record of
that moment. Printed are the figures by state; of what went on within a state, the run's kind;
and each answer that took longer than 200 ms. Exits 1 if one was late or never came.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from llava_tui import events
from llava_tui.session import control, store
from llava_tui.session.reader import StreamReader, stream_paths
from llava_tui.session.timeline import Timeline, View

PROMISED_NS = 200_000_000
LOOK_S = 0.001
LAG_NS = 20_000_000
"""By how much later than a token ends its answer may be seen where the machine is busy: who looks waits for a core."""
PATIENCE_S = 30.0
MEASURED_S = 4.0
"""How long commands are sent while rounds go on; then the session is stopped."""
ORDER = [
    *("starting", "loading", "preflight", "cold", "warming up", "self-test"),
    *("measuring", "profiling", "paused", "closing", ""),
]


@dataclass(slots=True)
class Asked:
    """A command and its answer; times are CLOCK_MONOTONIC ns."""

    id: str
    verb: str
    sent: int
    seen: int = 0
    """When the answer could be read; 0: never."""
    state: str = ""
    kind: str = ""
    """Of the run that went on."""
    stage: str = ""
    """The innermost stage that the run was in."""
    token: int = 0
    """The longest that a token took which was made meanwhile, ns; 0 where none was."""

    @property
    def took(self) -> int:
        return (self.seen or time.monotonic_ns()) - self.sent

    @property
    def held(self) -> bool:
        return self.seen > 0 and self.took <= max(PROMISED_NS, self.token + LAG_NS)


class Ear:
    """Reads a session's answers, and no more of it than that takes: the worker needs the processor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._readers: dict[Path, StreamReader] = {}

    def wait(self, id_: str, worker: int) -> int:
        """When the answer to that command could be read; 0 if the worker ended without one."""
        until = time.monotonic() + PATIENCE_S
        over = False
        while time.monotonic() < until:
            for path in stream_paths(self.path, "events"):
                reader = self._readers.setdefault(path, StreamReader(path, events.Answer))
                if any(answer.id == id_ for answer in reader.read()):
                    return time.monotonic_ns()
            if over:
                break
            over = not alive(worker)
            time.sleep(LOOK_S)
        return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def one_session(
    folder: Path, options: argparse.Namespace, chance: random.Random, to_its_end: bool
) -> tuple[Path, list[Asked]]:
    """A session, and what was asked of it until it had ended: after two rounds and a profiled run, or when stopped."""
    command = [sys.executable, "-m", "llava_tui", "run", "--model", "demo", "--device", "cpu", "--warmup", "2"]
    command += ["--frames", options.frames, "--new-tokens", options.new_tokens, "--detach"]
    command += ["--rounds", "2", "--profile"] if to_its_end else ["--rounds", "500"]
    id_ = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"LLAVA_TUI_SESSIONS": str(folder)}
    ).stdout.strip()
    path = store.find(folder, id_)
    worker = Timeline.open(path).header.pid
    ear, asked, states = Ear(path), [], StreamReader(path / "events.jsonl", events.StateChange)
    state, since, paused = "starting", time.monotonic(), False
    while alive(worker):
        for change in states.read():
            state, since = change.state, time.monotonic() if change.state == "measuring" != state else since
        verb = "resume" if paused else "pause" if to_its_end else chance.choice(("pause", "extend", "extend"))
        if state == "measuring" and not paused and not to_its_end and time.monotonic() - since > MEASURED_S:
            verb = "stop"
        begin = time.monotonic_ns()
        one = Asked(control.send(path, verb, rounds=1).id, verb, begin)
        one.seen = ear.wait(one.id, worker)
        if not one.seen and has_ended(path, one.sent):
            break
        asked.append(one)
        paused = verb == "pause"
        if verb == "stop":
            break
        time.sleep(chance.uniform(0, 0.2))
    deadline = time.monotonic() + PATIENCE_S
    while alive(worker):
        if time.monotonic() > deadline:
            raise SystemExit(f"{path.name} does not end")
        time.sleep(0.01)
    return path, asked


def has_ended(path: Path, t: int) -> bool:
    """Whether the session had said its last word at ``t``: nobody answers after it."""
    return Timeline.open(path).at(t).state in events.FINAL_STATES


def explain(path: Path, asked: list[Asked]) -> None:
    """What went on when each command was sent, from the session's record."""
    view = Timeline.open(path).now()
    for one in asked:
        states = view.timeline.at(one.sent).states
        one.state = str(states.row(-1)["state"]) if states.n else "starting"
        run = run_at(view, one.sent, one.seen or one.sent)
        if run is None:
            continue
        one.kind = str(run["kind"])
        one.stage, one.token = work_of(view, run, one)


def run_at(view: View, t: int, until: int) -> dict[str, object] | None:
    """The run that went on at ``t``, or the first that began before ``until``."""
    ends = {int(row["run"]): int(row["t"]) for row in view.runs.rows()}
    for row in view.started.rows():
        if row["t"] <= until and ends.get(int(row["run"]), sys.maxsize) >= t:
            return row
    return None


def work_of(view: View, run: dict[str, object], asked: Asked) -> tuple[str, int]:
    """The innermost stage of that run when the command was sent, and the longest time of a token that was made until
    its answer came: the prefill, where that was not over, and steps of decoding. A run that was not told apart (the
    bare ones of the self-test) has the longest token of the nearest run of its case."""
    stages = [row for row in view.stages.rows(view.stages.where(run=run["run"])) if row["duration"] is not None]
    within = [row for row in stages if row["start"] <= asked.sent <= row["start"] + row["duration"]]
    stage = max((str(row["stage"]) for row in within), key=lambda path: path.count("."), default="")
    with_tokens = {int(other) for other in view.tokens["run"][view.tokens.where(case=run["case"])]}
    if run["kind"] in ("load", "cross-check") or not with_tokens:
        return stage, 0
    number = int(str(run["run"]))
    nearest = min(with_tokens, key=lambda other: abs(other - number))
    at = view.tokens["at"][view.tokens.where(run=nearest)]
    prefill = view.stages["duration"][view.stages.where(run=nearest, stage="generate.prefill")]
    took = np.concatenate([prefill[:1], np.diff(at)])
    if nearest == number:
        last = int(np.searchsorted(at, asked.seen or asked.sent))
        took = took[int(np.searchsorted(at, asked.sent)) : last + 1]
    return stage, int(took.max(initial=0))


def table(asked: list[Asked]) -> Iterator[str]:
    yield f"{'state':<12} {'run':<12} {'n':>4} {'median':>9} {'max':>9} {'token':>9}  late"
    groups: dict[tuple[str, str], list[Asked]] = {}
    for one in asked:
        groups.setdefault((one.state, one.kind), []).append(one)
    for (state, kind), some in sorted(groups.items(), key=lambda group: (ORDER.index(group[0][0]), group[0][1])):
        took = [one.took / 1e6 for one in some]
        token = max(one.token for one in some) / 1e6
        late = sum(not one.held for one in some)
        yield (
            f"{state:<12} {kind or '–':<12} {len(some):>4} {statistics.median(took):>6.0f} ms {max(took):>6.0f} ms "
            + (f"{token:>6.0f} ms" if token else f"{'–':>9}")
            + f"  {late or '–'}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--frames", default="1,4")
    parser.add_argument("--new-tokens", default="16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="every command on a line of its own")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    found: list[Asked] = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        os.environ["LLAVA_TUI_CACHE"] = cache  # the model that is built is nobody's to keep
        for number in range(options.sessions):
            path, asked = one_session(Path(folder), options, chance, to_its_end=number % 2 == 1)
            explain(path, asked)
            found += asked
    if options.json:
        for one in found:
            print(json.dumps({**asdict(one), "took": one.took, "held": one.held}))
        return 0 if all(one.held for one in found) else 1
    print(*table(found), sep="\n")
    for one in found:
        if one.took > PROMISED_NS:
            what = f"{one.kind} run, {one.stage or 'no stage'}, token of {one.token / 1e6:.0f} ms"
            verdict = "within one token" if one.held else "LATE"
            print(f"{one.took / 1e6:.0f} ms: {one.verb} while {one.state} ({what}): {verdict}")
    late = sum(not one.held for one in found)
    print(f"{len(found)} commands in {options.sessions} sessions: {late} later than 200 ms or one token")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
