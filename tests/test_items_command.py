"""What `show` says of many inputs, and what the command line does with a data set, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llava_tui.pipelines.simulated_session import simulated_session
from llava_tui.plan import from_dict
from llava_tui.report import overview
from llava_tui.session import store


def command(*words: str, sessions: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-P", "-m", "llava_tui", "--sessions", str(sessions), *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "set.csv"
    file.write_text("path,id,prompt\n" + "".join(f"{n}.mp4,item {n},{'why ' * n}\n" for n in range(7)))
    return file


def test_show_has_every_items_time_and_the_slowest(tmp_path: Path, many: Path) -> None:
    values = {"pipeline": "simulated", "dataset": str(many), "batch": [2], "warmup": 1, "new_tokens": [8]}
    timeline = simulated_session(from_dict(values), tmp_path / "s")
    info = store.info(tmp_path / "s")
    text = overview.as_text(info, timeline)
    assert f"items    7 items of {many}" in text
    assert "1 run of fewer items than the batch" in text
    (case,) = json.loads(overview.as_json(info, timeline))["cases"]
    items = case["items"]
    assert case["n"] == 3, "the last batch is not full, and in no statistic"
    assert items["done"] == 7
    assert [batch["items"] for batch in items["batches"]] == [[0, 1], [2, 3], [4, 5], [6]]
    assert [batch["partial"] for batch in items["batches"]] == [False, False, False, True]
    walls = sum(batch["wall"] for batch in items["batches"])
    assert items["per_second"] == pytest.approx(7 / walls * 1e9)
    assert items["each"]["median"] == sorted(batch["wall"] / 2 for batch in items["batches"][:3])[1]
    assert [item["name"] for item in items["items"]] == [f"item {n}" for n in range(7)]
    slowest = items["slowest"][0]
    assert slowest["time"] == max(item["time"] for item in items["items"])
    header = json.loads((tmp_path / "s" / "session.json").read_text())
    assert header["dataset"]["count"] == 7
    assert len(json.dumps(header)) < 5000, "the items are not in it"


def test_a_session_of_one_input_says_nothing_of_items(tmp_path: Path) -> None:
    timeline = simulated_session(from_dict({"pipeline": "simulated", "rounds": 2, "warmup": 1}), tmp_path / "s")
    info = store.info(tmp_path / "s")
    assert "items" not in overview.as_text(info, timeline)
    assert json.loads(overview.as_json(info, timeline))["cases"][0]["items"] is None


def test_a_data_set_is_run_from_the_command_line_and_what_is_wrong_with_one_is_said_first(
    tmp_path: Path, many: Path
) -> None:
    fast = ["run", "--pipeline", "simulated", "--time-scale", "0", "--warmup", "1", "--new-tokens", "4", "--json"]
    done = command(*fast, "--dataset", str(many), sessions=tmp_path / "sessions")
    assert done.returncode == 0
    assert json.loads(done.stdout)["cases"][0]["items"]["done"] == 7
    assert done.stderr == ""
    many.write_text(many.read_text() + "x.mp4,1,2,3\n")
    for words, said in (
        (["--dataset", str(many)], "line 9: 4 fields under 3 columns"),
        (["--dataset", str(tmp_path / "none.jsonl")], "no such file"),
        (["--dataset", str(many), "--input", "a.mp4"], "leave --input out"),
    ):
        refused = command(*fast, *words, sessions=tmp_path / "sessions")
        assert refused.returncode == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert len(list((tmp_path / "sessions").iterdir())) == 1, "no session was begun for it"


def test_a_batch_larger_than_the_data_set_is_refused(tmp_path: Path, many: Path) -> None:
    line = ["run", "--pipeline", "simulated", "--dataset", str(many), "--batch", "8", "--json"]
    refused = command(*line, sessions=tmp_path / "sessions")
    assert refused.returncode == 2
    assert "batch: 8 is more than the 7 items" in refused.stderr
