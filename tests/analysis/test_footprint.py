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


MIB = 1 << 20


def on_cpu(path: Path, *, cache: tuple[int, int] | None = (900, 900)) -> Path:
    """Two cases of two runs without an allocator; the second case has run out of memory once before."""
    record(path, rounds=0)
    stream = StreamWriter(path / "events.jsonl")
    stream.write(
        events.ModelFacts(
            t=1,
            name="tiny",
            model_type="llava",
            parameters=3,
            dtype="float32",
            device="cpu",
            extra={
                "modules": [
                    {"name": "language\x1b[2J model", "bytes": 600 * MIB, "parameters": 2, "dtypes": {}},
                    {"name": "vision tower", "bytes": 100 * MIB, "parameters": 1, "dtypes": {}},
                    "nonsense",
                ]
            },
        )
    )
    told = {"stage": "generate.prefill", "rss": 3000 * MIB, "cache_predicted": 500 * MIB, "oops": "x"}
    for run, (case, outcome) in enumerate((("b", "out-of-memory"), ("a", "ok"), ("b", "ok"), ("a", "ok"), ("b", "ok"))):
        start = 1000 * MS * (run + 1)
        kept = {} if cache is None else {"kv_cache_bytes": cache[0] * MIB, "kv_cache_predicted": cache[1] * MIB}
        stream.write(events.RunStart(t=start, run=run + 1, kind="measured", case=case, round=run))
        stream.write(
            events.RunEnd(
                t=start + 500 * MS,
                run=run + 1,
                outcome=outcome,
                start=start,
                wall=500 * MS,
                stages=["frames", "encode", "generate"],
                starts=[0, 1, 2],
                durations=[1, 1, 1],
                rss_stages=[1000 * MIB, 1200 * MIB, 1100 * MIB],
                rss_peaks=[1000 * MIB, (2000 + run) * MIB, None],
                rss=1100 * MIB,
                facts=kept if outcome == "ok" else {"footprint": told},
            )
        )
    stream.close()
    return path


def test_on_a_cpu_the_resident_set_is_told_by_stage(tmp_path: Path) -> None:
    found = footprint(view(on_cpu(tmp_path / "s")), "a")
    rows = {row.path: row for row in found.rows}
    assert found.is_resident
    assert rows["frames"].peak == 1000 * MIB
    assert rows["encode"].peak == 2003 * MIB
    assert rows["generate"].peak == 1100 * MIB, "where no peak is told, what was held when it was left"
    assert found.peak == 2003 * MIB
    assert found.short == {}
    assert not footprint(view(powered(tmp_path / "gpu", 8)), "a").is_resident
    assert footprint(view(powered(tmp_path / "gpu2", 8)), "a").peak == 5 << 30


def test_a_page_says_the_cache_the_weights_and_what_ran_out(tmp_path: Path) -> None:
    from llava_tui.report import footprints

    session = view(on_cpu(tmp_path / "s", cache=(909, 900)))
    a, b = (footprint(session, case) for case in ("a", "b"))
    assert a.cache_difference == pytest.approx(0.01)
    assert footprints.cache(a) == "keys and values 909 MiB, predicted 900 MiB (+1.0 %)"
    assert footprints.cache(footprint(view(on_cpu(tmp_path / "t")), "a")).endswith("as the model's config predicts")
    assert footprints.cache(footprint(view(on_cpu(tmp_path / "u", cache=None)), "a")) == ""
    assert footprints.weights(a.weights) == "700 MiB: language model 600 MiB · vision tower 100 MiB"
    assert footprints.short(b) == "in generate.prefill, 2.93 GiB resident, about 500 MiB needed beside the weights"
    table = "\n".join(footprints.across([a, b]))
    assert "a         1.96 GiB" in table
    assert "out of memory: in generate.prefill" in table
    assert "resident" in table
    assert footprints.across([a]) == []
    document = footprints.as_json(b)
    assert document["out_of_memory"]["rss"] == 3000 * MIB
    assert "oops" not in document["out_of_memory"]
    assert document["kv_cache"]["measured"] == 909 * MIB


def test_the_analysis_screen_draws_resident_memory_where_there_is_no_allocator(tmp_path: Path) -> None:
    from llava_tui.tui.widgets.analysis_page import draw_footprint

    lines = [
        "".join(text for text, _ in line) for line in draw_footprint(footprint(view(on_cpu(tmp_path / "s")), "b"), 90)
    ]
    page = "\n".join(lines)
    assert "resident" in lines[0]
    assert "1.95 GiB" in page or "1.96 GiB" in page
    for words in ("as the model's config predicts", "vision tower 100 MiB", "of memory: in generate.prefill"):
        assert words in page
    assert "\x1b" not in page
    assert draw_footprint(None, 90) == []
