"""Memory and energy by step, from a session on disk whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recorded import MS, record, view

from llava_tui import events
from llava_tui.analysis.fairness import clock, utilization
from llava_tui.analysis.footprint import footprint
from llava_tui.analysis.measures import measures
from llava_tui.session.writer import StreamWriter

STEPS = {"frames": (30.0, 60.0), "encode": (130.0, 300.0), "generate": (250.0, 500.0)}
"""Typical ms, watts."""
IDLE_W = 40.0
PERIOD = 100 * MS


def powered(path: Path, runs: int, *, noise: float = 0.2, counter: bool = True) -> Path:
    """Runs back to back, a gap of 10 ms between them; a counter that rises by each step's power, read at 10 Hz."""
    record(path, rounds=0)
    chance = np.random.default_rng(1)
    stream, telemetry = StreamWriter(path / "events.jsonl"), StreamWriter(path / "telemetry.jsonl")
    t, edges, joules = 10 * MS, [0.0], [0.0]

    def spend(ms: float, watts: float) -> None:
        nonlocal t
        t += int(ms * MS)
        edges.append(float(t))
        joules.append(joules[-1] + ms / 1e3 * watts)

    spend(0, 0)
    for run in range(1, runs + 1):
        start, starts, took = t, [], []
        stream.write(events.RunStart(t=t, run=run, kind="measured", case="a", round=run))
        for typical, watts in STEPS.values():
            starts.append(t - start)
            spend(typical * float(np.exp(chance.normal(0, noise))), watts)
            took.append(t - start - starts[-1])
        stream.write(
            events.RunEnd(
                t=t,
                run=run,
                outcome="ok",
                start=start,
                wall=t - start,
                stages=list(STEPS),
                starts=starts,
                durations=took,
                allocated=[3 << 30, None, 5 << 30],
                reserved=[4 << 30, None, (6 << 30) + run],
                rss=2 << 30,
            )
        )
        spend(10, IDLE_W)
    for at in range(0, t, PERIOD):
        energy = round(1000 * float(np.interp(at, edges, joules))) if counter else None
        telemetry.write(events.GpuSample(t=at, gpu=0, energy_mj=energy))
    stream.close()
    telemetry.close()
    return path


def test_steps_get_their_energy_over_many_runs(tmp_path: Path) -> None:
    session = view(powered(tmp_path / "s", 200))
    found = footprint(session, "a")
    rows = {row.path: row for row in found.rows}
    assert rows["frames"].energy is None  # 30 ms: its share of a reading would be its neighbours'
    for step, (_, watts) in list(STEPS.items())[1:]:
        seconds = float(np.median(measures(session, "a").stages[step])) / 1e9
        row = rows[step]
        assert row.energy == pytest.approx(watts * seconds, rel=0.1)
        assert row.energy_error is not None
        assert row.energy_error < 0.2 * row.energy  # type: ignore[operator]
    assert rows["encode.vision_tower"].energy is None  # steps only


def test_energy_that_cannot_be_told_is_not_told(tmp_path: Path) -> None:
    few = footprint(view(powered(tmp_path / "few", 5)), "a")
    without = footprint(view(powered(tmp_path / "without", 50, counter=False)), "a")
    for found in (few, without):
        assert [row.energy for row in found.rows if "." not in row.path] == [None] * 3
    assert without.energy is None


def test_a_long_runs_energy_is_the_counters_rise(tmp_path: Path) -> None:
    path = record(tmp_path / "s", rounds=0)
    stream, telemetry = StreamWriter(path / "events.jsonl"), StreamWriter(path / "telemetry.jsonl")
    for run in range(6):
        start = run * 3000 * MS
        stream.write(events.RunStart(t=start, run=run + 1, kind="measured", case="a", round=run))
        stream.write(events.RunEnd(t=start + 2000 * MS, run=run + 1, outcome="ok", start=start, wall=2000 * MS))
    for at in range(0, 20_000 * MS, PERIOD):
        telemetry.write(events.GpuSample(t=at, gpu=0, energy_mj=at // MS // 2))  # half a watt
    stream.close()
    telemetry.close()
    assert footprint(view(path), "a").energy == pytest.approx(1.0)


def test_other_boards_of_the_machine_do_not_count(tmp_path: Path) -> None:
    alone, among = powered(tmp_path / "alone", 60), powered(tmp_path / "among", 60)
    telemetry = StreamWriter(among / "telemetry.jsonl")
    last = int(view(among).samples["t"][-1])
    for gpu in (1, 2):
        for at in range(PERIOD // 2, last, PERIOD):
            energy = at // MS * 70
            telemetry.write(events.GpuSample(t=at, gpu=gpu, energy_mj=energy, utilization=0.0, sm_clock_mhz=300))
    telemetry.close()
    first, second = (footprint(view(path), "a") for path in (alone, among))
    assert first.energy is not None
    assert (second.energy, second.rows[-1].energy) == (first.energy, first.rows[-1].energy)
    of = measures(view(among), "a")
    assert (clock(of), utilization(of)) == (None, None)


def test_memory_peaks_by_stage_and_what_the_allocator_does_not_tell(tmp_path: Path) -> None:
    found = footprint(view(powered(tmp_path / "s", 8)), "a")
    rows = {row.path: row for row in found.rows}
    assert rows["generate"].allocated.median == 5 << 30
    assert rows["generate"].reserved.maximum == (6 << 30) + 8
    assert (rows["encode"].allocated.n, rows["encode"].allocated.median) == (0, None)
    assert found.rss.median == 2 << 30
