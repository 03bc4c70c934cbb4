"""Results of earlier benchmarks as sessions: JSON files in the manner of AveragingProfiler.

Such a file has ``benchmark_info`` and ``step_statistics``: for each step either every duration in seconds, or only
their average, minimum, maximum and standard deviation. What it lacks is said in the session's log, and its provenance
is ``imported``: nothing in it was measured here.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava_tui import events
from llava_tui.session import store
from llava_tui.session.reader import HEADER, SessionError, safe_text
from llava_tui.session.writer import StreamWriter, lock, write_atomically
from llava_tui.units import counted

KNOWN_STEPS = {1: ("frames", "1 frames"), 2: ("encode", "2 encode"), 3: ("generate", "3 generate")}
"""Numbered steps of the three-step profilers, by our names, so that they compare with sessions of ours."""
LARGEST = 256 << 20


@dataclass(slots=True)
class Results:
    """What a file holds, in ns. ``durations`` has one list a step, all of one length."""

    model: str
    taken: datetime.datetime | None
    titles: list[str]
    paths: list[str]
    durations: list[list[int]]
    totals: list[int]
    """Of each run, as the file gives them; empty where it does not."""
    averaged: int | None
    """How many runs the only values are averages of; ``None`` where every run's own are there."""
    frames: int | None
    aggregates: dict[str, Any] = field(default_factory=dict)


def import_file(folder: Path, file: Path, name: str = "") -> Path:
    """Writes the results in ``file`` as a session in ``folder`` and returns its path.

    Raises :class:`SessionError` naming what the file lacks; nothing is left behind then.
    """
    results = read_results(file)
    path = store.create(folder, name or f"imported-{results.model or file.stem}", results.taken)
    try:
        _write(path, file, results, name)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def read_results(file: Path) -> Results:
    """The results in ``file``. Raises :class:`SessionError`."""
    shown = safe_text(str(file))
    try:
        if file.stat().st_size > LARGEST:
            raise SessionError(f"{shown}: larger than {LARGEST >> 20} MiB: no benchmark's result file")
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise SessionError(f"{shown}: {error.strerror or error}; give a benchmark's result file") from None
    except (ValueError, RecursionError):
        raise SessionError(f"{shown}: not a JSON file; give a benchmark's result file") from None
    steps = document.get("step_statistics") if isinstance(document, dict) else None
    if not isinstance(steps, dict) or not steps or not all(isinstance(step, dict) for step in steps.values()):
        raise SessionError(
            f"{shown}: has no step_statistics; results as AveragingProfiler writes them can be imported "
            "(benchmark_info, step_statistics with durations or average)"
        )
    info = document.get("benchmark_info")
    info = info if isinstance(info, dict) else {}
    titles = [safe_text(str(title), 80) for title in steps]
    durations, averaged = _durations(shown, steps, info)
    return Results(
        model=safe_text(str(info.get("model") or ""), 80),
        taken=_time(info.get("timestamp")),
        titles=titles,
        paths=_paths(titles),
        durations=durations,
        totals=_totals(document, len(durations[0]), averaged),
        averaged=averaged,
        frames=_frames(document),
        aggregates={
            path: {key: value for key, value in step.items() if key != "durations" and _is_number(value)}
            for path, step in zip(_paths(titles), steps.values(), strict=True)
        },
    )


def _durations(shown: str, steps: dict[str, Any], info: dict[str, Any]) -> tuple[list[list[int]], int | None]:
    """Of each step, in ns, and how many runs the values are averages of."""
    lists = [step.get("durations") for step in steps.values()]
    if all(isinstance(values, list) and values for values in lists):
        if len({len(values) for values in lists}) > 1:
            counts = ", ".join(f"{safe_text(title, 40)} {len(step['durations'])}" for title, step in steps.items())
            raise SessionError(
                f"{shown}: its steps have different numbers of runs ({counts}): they cannot be told apart"
            )
        return [[_ns(shown, value) for value in values] for values in lists], None
    averages = [step.get("average", step.get("mean")) for step in steps.values()]
    first = next(iter(steps.values()))
    count = first.get("count", first.get("num_runs", info.get("successful_runs", info.get("num_runs", 1))))
    return [[_ns(shown, value)] for value in averages], count if isinstance(count, int) and count > 0 else 1


def _totals(document: dict[str, Any], count: int, averaged: int | None) -> list[int]:
    totals = document.get("total_times")
    if averaged is not None:
        stats = document.get("total_execution_stats")
        totals = [stats.get("average")] if isinstance(stats, dict) else None
    if not isinstance(totals, list) or len(totals) != count or not all(map(_is_number, totals)):
        return []
    return [round(value * 1e9) for value in totals]


def _write(path: Path, file: Path, results: Results, name: str) -> None:
    count = len(results.durations[0])
    taken = results.taken or datetime.datetime.fromtimestamp(file.stat().st_mtime)
    wall0 = int(taken.timestamp() * 1e9)
    unknown = "not known"
    case = events.Case("imported", {"frames": results.frames} if results.frames else {})
    with_lock = lock(path)
    stream = StreamWriter(path / "events.jsonl")
    try:
        t = 0
        ours = dict(KNOWN_STEPS.values())
        named = list(zip(results.paths, results.titles, strict=True))
        tree = [events.StageInfo(step, ours.get(step, title)) for step, title in named]
        stream.write(events.StageTree(t=t, stages=tree))
        stream.write(events.Schedule(t=t, cases=[case], rounds=count, runs=count, rule="imported"))
        for text in _lacks(results):
            stream.write(events.Log(t=t, level="warning", text=text, source="import"))
        renamed = [f"{ours[step]}: {title!r}" for step, title in named if step in ours]
        if renamed:
            stream.write(
                events.Log(
                    t=t, level="info", text="steps, as the file has them: " + "; ".join(renamed), source="import"
                )
            )
        stream.write(events.StateChange(t=t, state="measuring"))
        for run in range(count):
            spans = [durations[run] for durations in results.durations]
            # A total that is less than its steps is no wall time.
            wall = max(results.totals[run], sum(spans)) if results.totals else sum(spans)
            number = run + 1  # run 0 is loading, which such files do not have
            stream.write(events.RunStart(t=t, run=number, kind="measured", case=case.id, round=run, item=file.name))
            end = events.RunEnd(
                t=t + wall,
                run=number,
                outcome="ok",
                start=t,
                wall=wall,
                stages=results.paths,
                starts=[sum(spans[:index]) for index in range(len(spans))],
                durations=list(spans),
                frames=results.frames,
                facts={"averaged_runs": results.averaged, "aggregates": results.aggregates}
                if results.averaged is not None
                else {},
            )
            stream.write(end)
            t += wall
        stream.write(events.StateChange(t=t, state="closed"))
        stream.sync()
    finally:
        stream.close()
        with_lock.release()
    if name:
        store.set_notes(path, events.Notes(name=name))
    # Last: without a header there is no session.
    write_atomically(
        path / HEADER,
        events.Header(
            schema=events.SCHEMA,
            id=path.name,
            created=taken.astimezone().isoformat(timespec="seconds"),
            t0=0,
            wall0=wall0,
            provenance="imported",
            pipeline="imported",
            model=results.model or unknown,
            plan={"imported_from": file.name, "inputs": [file.name]},
            host=events.HostFacts(hostname=unknown, os=unknown, cpu=unknown, cores=0, memory=0),
        ),
    )


def _lacks(results: Results) -> list[str]:
    """What such a file cannot tell, a line each."""
    lines = ["imported: these times were not taken by llava-tui, and how they were taken is not known"]
    if results.averaged is not None:
        runs = counted(results.averaged, "run")
        lines.append(f"only averages of {runs} are there: no spread, no interval, no trend can be told")
    lines.append("no warm-up was kept apart: the first runs may be slower than the rest")
    if not results.totals:
        lines.append("no total times are there: a run is taken to be the sum of its steps")
    lines.append("no tokens, no memory, no GPU samples, no versions are there")
    return lines


def _paths(titles: list[str]) -> list[str]:
    """A path a step: ours for the numbered steps of three, else made from the title, each unique."""
    paths: list[str] = []
    numbers = [re.match(r"(?:step|stage)?\s*(\d+)", title, re.IGNORECASE) for title in titles]
    for place, (title, number) in enumerate(zip(titles, numbers, strict=True), 1):
        index = int(number[1]) if number else place
        slug = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")[:40]
        path = KNOWN_STEPS[index][0] if len(titles) == len(KNOWN_STEPS) and index in KNOWN_STEPS else slug
        path = path or f"step_{place}"
        paths.append(path if path not in paths else f"{path}_{place}")
    return paths


def _frames(document: dict[str, Any]) -> int | None:
    video = document.get("video_config")
    frames = video.get("total_frames") if isinstance(video, dict) else None
    return frames if isinstance(frames, int) and not isinstance(frames, bool) and frames > 0 else None


def _time(value: Any) -> datetime.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        taken = datetime.datetime.fromisoformat(value)
        return taken.astimezone().replace(tzinfo=None) if taken.tzinfo else taken
    except (ValueError, OverflowError, OSError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _ns(shown: str, value: Any) -> int:
    if not _is_number(value) or value > 1e6:
        raise SessionError(
            f"{shown}: {safe_text(repr(value), 40)} is no duration in seconds; every step needs durations or an average"
        )
    return round(float(value) * 1e9)
