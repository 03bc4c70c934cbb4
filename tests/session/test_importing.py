"""Results of earlier benchmarks become sessions that say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui.analysis.steps import step_table
from llava_tui.report import overview
from llava_tui.session import store
from llava_tui.session.importing import import_file
from llava_tui.session.reader import SessionError
from llava_tui.session.timeline import Timeline

STEPS = (
    "step1: convert video frames to images",
    "step2: encode image tensors into features",
    "step3: generate the output",
)


def detailed() -> dict[str, Any]:
    times = ([0.0004, 0.0005, 0.0005, 0.0004, 0.0005, 0.0006], [0.16] * 6, [1.55, 1.54, 1.53, 1.6, 1.56, 1.55])
    return {
        "benchmark_info": {"model": "LLaVA-7B", "num_runs": 6, "timestamp": "2025-09-05 14:19:01"},
        "total_times": [6.8, 6.7, 7.1, 6.9, 6.8, 7.0],
        "step_statistics": {
            step: {"durations": values, "average": sum(values) / 6, "std_dev": 0.1}
            for step, values in zip(STEPS, times, strict=True)
        },
    }


def averaged(runs: int = 4) -> dict[str, Any]:
    return {
        "video_config": {"total_frames": 30},
        "benchmark_info": {"num_runs": runs},
        "step_statistics": {
            step: {"average": value, "minimum": value / 2, "maximum": value * 2, "std_dev": 0.1, "count": runs}
            for step, value in zip(STEPS, (0.002, 0.5, 1.5), strict=True)
        },
    }


def imported(tmp_path: Path, document: Any) -> Path:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document))
    folder = tmp_path / "sessions"
    return import_file(folder, file)


def test_every_runs_own_durations_are_kept(tmp_path: Path) -> None:
    path = imported(tmp_path, detailed())
    info = store.info(path)
    assert (info.status, info.runs_done, info.header and info.header.provenance) == ("finished", 6, "imported")
    assert path.name.startswith("20250905-141901-imported-LLaVA-7B")
    table = step_table(Timeline.open(path).now(), "imported")
    assert table.n == 6
    medians = {row.path: row.summary.median for row in table.rows}
    assert medians["encode"] == 160_000_000
    assert medians["generate"] == 1_550_000_000
    assert table.wall.summary.median == 6_850_000_000
    # What the totals hold beside the steps is shown, not forced away.
    assert medians["unaccounted"] == pytest.approx(5.14e9, rel=0.01)


def test_averages_alone_are_one_value_and_say_so(tmp_path: Path) -> None:
    path = imported(tmp_path, averaged(runs=4))
    timeline = Timeline.open(path)
    table = step_table(timeline.now(), "imported")
    assert (table.n, table.wall.summary.low) == (1, None)
    assert table.row("encode") is not None
    log = " ".join(timeline.log["text"])
    assert "only averages of 4 runs" in log
    assert "no warm-up" in log
    assert "no total times" in log


def test_other_steps_keep_their_names(tmp_path: Path) -> None:
    steps = {f"Stage {number}: {what}": {"durations": [0.1, 0.2]} for number, what in enumerate("abcde", 1)}
    timeline = Timeline.open(imported(tmp_path, {"step_statistics": steps}))
    assert [info.title for info in timeline.now().tree] == list(steps)
    assert len({info.path for info in timeline.now().tree}) == 5


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "step_statistics"),
        ({"step_statistics": {}}, "step_statistics"),
        ({"step_statistics": {"a": 3}}, "step_statistics"),
        ({"step_statistics": {"a": {"durations": [1.0, -2]}}}, "no duration"),
        ({"step_statistics": {"a": {"durations": ["x"]}}}, "no duration"),
        ({"step_statistics": {"a": {"durations": []}}}, "no duration"),
        ({"step_statistics": {"a": {"durations": [1.0]}, "b": {"durations": [1.0, 2.0]}}}, "different numbers of runs"),
    ],
)
def test_what_is_no_result_file_is_refused_and_leaves_nothing(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(SessionError, match=words) as caught:
        imported(tmp_path, document)
    assert "results.json" in str(caught.value)
    assert not (tmp_path / "sessions").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    with pytest.raises(SessionError, match="not a JSON file"):
        import_file(tmp_path / "sessions", file)
    with pytest.raises(SessionError, match="No such file"):
        import_file(tmp_path / "sessions", tmp_path / "absent.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(
    info=JSON,
    steps=st.dictionaries(
        st.text(max_size=12), st.dictionaries(st.sampled_from(["durations", "average", "count"]), JSON), max_size=3
    ),
    totals=JSON,
    video=JSON,
)
def test_no_file_does_worse_than_being_refused(
    tmp_path_factory: pytest.TempPathFactory, info: Any, steps: Any, totals: Any, video: Any
) -> None:
    document = {"benchmark_info": info, "step_statistics": steps, "total_times": totals, "video_config": video}
    try:
        path = imported(tmp_path_factory.mktemp("any"), document)
    except SessionError:
        return
    assert store.status(path) == "finished"
    assert step_table(Timeline.open(path).now(), "imported").n >= 1


def test_a_host_that_is_not_known_has_no_cores(tmp_path: Path) -> None:
    path = imported(tmp_path, detailed())
    text = overview.as_text(store.info(path), Timeline.open(path))
    assert "  host     not known\n" in text
    assert not any(line != line.rstrip() or "0 core" in line for line in text.splitlines() if "share" not in line)
