"""Whether the trust badge names what is wrong, and leaves alone what is not: simulated sessions with one fault each.

Run with ``python benchmarks/trust.py`` (two minutes on one core; ``--sessions 20`` for a quick look). Seeds are fixed,
so the table is the same everywhere. The GPUs take turns. Exits 1 if a fault is named in less than 95 % of the sessions
in which it happened, or a clean session gets less than B in more than 2 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from llava_tui.analysis.trust import Trust, badge
from llava_tui.pipelines.simulated_session import simulated_session
from llava_tui.plan import SIMULATED_GPUS, from_dict
from llava_tui.session.timeline import View

CASE = "f1-b1-n16"
LARGE = tuple(gpu for gpu in SIMULATED_GPUS if gpu != "t4")
"""Those that hold the model beside somebody else's 3 GiB."""


@dataclass(frozen=True)
class Trial:
    """One row of the table."""

    label: str
    named: str
    """The kind of the reason that has to be there; "" for sessions that have to get an A or a B."""
    faults: tuple[str, ...] = ()
    plan: dict[str, Any] = field(default_factory=dict)
    dies: bool = False
    """Whether the worker does not live to say its last word."""
    gpus: tuple[str, ...] = SIMULATED_GPUS
    """Which take turns."""


TRIALS = (
    Trial("clean, 10 rounds", "", plan={"rounds": 10}),
    Trial("clean, 20 rounds", ""),
    Trial("clean, 50 rounds", "", plan={"rounds": 50}),
    Trial("clean, 20 rounds of 3 cases", "", plan={"frames": [1, 2, 3]}),
    Trial("clean, all as by default", "", plan={"rounds": "auto", "warmup": "auto", "cool_down": True}),
    Trial("drift 2 % in all", "trend", ("drift=2%",)),
    Trial("spikes in 5 % of 50 runs", "outliers", ("spikes=5%",), {"rounds": 50}),
    Trial("AR(0.8) noise of 2 %", "autocorrelation", ("ar-noise=2%",), {"rounds": 50}),
    Trial("noise of 15 %", "spread", ("ar-noise=15%,correlation=0",)),
    Trial("noise of 4 %, 10 rounds", "interval", ("ar-noise=4%,correlation=0",), {"rounds": 10}),
    Trial("no warm-up, slow start", "warm-up", ("slow-start",), {"warmup": 0}),
    Trial("5 rounds", "few", plan={"rounds": 5}),
    Trial("thermal throttling", "throttled", ("throttle=20%",)),
    Trial("throttled in 4 runs of 20", "throttled", ("throttle=20%,first=10,runs=4",)),
    Trial("power limit halved", "power-cap", ("power-cap",)),
    Trial("SM clock wanders by 10 %", "clock-spread", ("clocks=10%",)),
    Trial("a foreign process", "foreign", ("foreign=20%",), gpus=LARGE),
    Trial("a foreign process, unlisted", "unclaimed-memory", ("foreign=20%,listed=no",), gpus=LARGE),
    Trial("a loaded host", "load", ("load=3",)),
    Trial("answers of unequal length", "tokens", ("tokens=30%",)),
    Trial("10 % in no step", "unaccounted", ("gap=10%",)),
    Trial("prefill's clock stops early", "faster-than-roofline", ("early-stop=5%",)),
    Trial("out of memory", "out-of-memory", ("out-of-memory,run=14",)),
    Trial("a run that stalls 5 s", "outliers", ("hang=14,seconds=5",)),
    Trial("a run that hangs for good", "hang", ("hang=14",), dies=True),
    Trial("the worker is killed", "interrupted", ("crash=14",), dies=True),
)


def session(trial: Trial, seed: int) -> tuple[View, Trust]:
    """One session of the trial and its badge."""
    values: dict[str, Any] = {"rounds": 20, "warmup": 3, "frames": [1], "new_tokens": [16]}
    values |= {"cool_down": False}  # else the throttled runs would be taken back
    values |= {"pipeline": "simulated", "simulated_gpu": trial.gpus[seed % len(trial.gpus)], "seed": seed}
    view = simulated_session(from_dict(values | trial.plan | {"faults": trial.faults})).now()
    return view, badge(view, CASE, "interrupted" if trial.dies else "")


def happened(view: View, trial: Trial) -> bool:
    """Whether the fault, which chance decides on, was there in a measured run at all, by the simulator's own word."""
    if not any(fault.startswith(("spikes", "tokens")) for fault in trial.faults):
        return True
    measured = view.runs.where(kind="measured")
    return any(facts.get("faults") for facts in view.runs["facts"][measured])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100, help="of each row")
    count = parser.parse_args().sessions
    begun, worst = time.perf_counter(), True
    print(f"{'injected':<30} {'to be named':<21} {'named':>9}   grades")
    for trial in TRIALS:
        right = of = 0
        grades: Counter[str] = Counter()
        for seed in range(count):
            view, trust = session(trial, seed)
            grades[trust.grade or "—"] += 1
            if happened(view, trial):
                of += 1
                right += trust.named(trial.named) is not None if trial.named else trust.grade in ("A", "B")
        fine = right >= (0.95 if trial.named else 0.98) * of
        worst &= fine
        spread = " ".join(f"{grade}:{number}" for grade, number in sorted(grades.items()))
        print(
            f"{trial.label:<30} {trial.named or 'A or B':<21} {right:>4}/{of:<4} {spread}{'' if fine else '   MISSED'}"
        )
    sessions = count * len(TRIALS)
    print(f"{sessions} sessions in {time.perf_counter() - begun:.0f} s")
    return 0 if worst else 1


if __name__ == "__main__":
    sys.exit(main())
