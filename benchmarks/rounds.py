"""``--rounds auto`` against 50 fixed rounds: are the verdicts the same, and how many runs does it take?

Run with ``python benchmarks/rounds.py`` (a minute or two). 100 simulated sessions with fixed seeds, each run twice, by
the worker's own course: once with 50 rounds, once until the stopping rule ends it. A session has two cases of the same
work, of which the second takes longer or shorter by an effect that is known; a third of the sessions drift by 2 %, a
third have 5 % spikes. Compared are the verdicts on the whole run and on each step, by the rules of ``compare``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter
from typing import Any

from llava_tui import events
from llava_tui.analysis.comparison import Side, compare
from llava_tui.pipelines.base import Probe, RunResult
from llava_tui.pipelines.simulated import SimulatedPipeline
from llava_tui.pipelines.simulated_session import simulated_session
from llava_tui.plan import Case, from_dict
from llava_tui.session.timeline import Timeline

EFFECTS = (0.0, 0.0, 0.003, -0.003, 0.02, -0.02, 0.03, 0.05, -0.05, 0.18)
FAULTS: tuple[list[str], ...] = ([], ["drift=2%"], ["spikes=5%"])
SAME = 0.98
SHARE = 0.5


def alike(effect: float) -> type[SimulatedPipeline]:
    """A pipeline whose two cases are the same work, but that the second takes 1 + ``effect`` times as long."""

    class Alike(SimulatedPipeline):
        factor = 1.0

        def run(self, case: Case, inputs: tuple[str, ...], seed: int, probe: Probe) -> RunResult:
            self.factor = 1 + effect if case.frames == 2 else 1.0
            return super().run(Case(1, case.batch, case.new_tokens), inputs, seed, probe)

        def _spend(self, ns: float, *rest: Any) -> None:
            super()._spend(ns * self.factor, *rest)

    return Alike


def session(seed: int, effect: float, faults: list[str], rounds: int | str) -> Timeline:
    values = {"frames": [1, 2], "new_tokens": [24], "rounds": rounds, "seed": seed, "faults": faults}
    plan = from_dict({"pipeline": "simulated", "model": "llava-1.5-7b", **values})
    return simulated_session(plan, pipeline=alike(effect))


def verdicts(timeline: Timeline) -> dict[str, str]:
    (found,) = compare([Side("session", (timeline.now(),))])
    return {row.key: row.verdict for row in found.rows if row.family in ("run", "step")}


def main() -> int:
    """Prints a table. Exit code 0: verdicts are the same in 98 % and half of the runs or fewer were needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100)
    options = parser.parse_args()

    chance = random.Random(20251122)
    shares: list[float] = []
    rounds: list[int] = []
    same: dict[str, list[bool]] = {"whole run": [], "steps": []}
    verdicts_seen: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for number in range(options.sessions):
        effect, faults, seed = EFFECTS[number % len(EFFECTS)], FAULTS[number % len(FAULTS)], chance.getrandbits(30)
        fixed, auto = (session(seed, effect, faults, rounds) for rounds in (50, "auto"))
        ended = auto.now().fact(events.Ended)
        assert ended is not None
        rules[ended.rule] += 1
        rounds.append(ended.rounds)
        shares.append((auto.runs.n - 1) / (fixed.runs.n - 1))  # Without loading, which is a run as well.
        expected, found = verdicts(fixed), verdicts(auto)
        for key, verdict in expected.items():
            same["whole run" if key == "wall" else "steps"].append(found[key] == verdict)
            verdicts_seen[verdict] += 1
            if found[key] != verdict:
                told = f"{key} {verdict} after 50 rounds, {found[key]} after {ended.rounds}"
                print(f"session {number}, effect {effect:+.1%}, {' '.join(faults) or 'no fault'}: {told}")

    share = statistics.median(shares)
    print(f"{options.sessions} simulated sessions of two cases, each with 50 rounds and with --rounds auto")
    print(f"rounds: median {statistics.median(rounds):g}, {min(rounds)} to {max(rounds)}; ended by {_told(rules)}")
    print(f"runs of every kind: median {share:.0%} of those with 50 rounds, at most {max(shares):.0%}")
    for name, equal in same.items():
        print(f"{name}: same verdict in {sum(equal)} of {len(equal)} ({sum(equal) / len(equal):.1%})")
    print(f"verdicts after 50 rounds: {_told(verdicts_seen)}")
    return 0 if all(sum(equal) >= SAME * len(equal) for equal in same.values()) and share <= SHARE else 1


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common())


if __name__ == "__main__":
    sys.exit(main())
