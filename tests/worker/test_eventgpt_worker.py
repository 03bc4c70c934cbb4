"""EventGPT through the real command and a real worker: a session like any other, and what is refused before one."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from llava_tui.session import store
from llava_tui.session.timeline import Timeline

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from llava_tui.pipelines.eventgpt_checkpoint import build_tiny

    return build_tiny(tmp_path_factory.mktemp("models") / "eventgpt")


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    from llava_tui.pipelines.event_streams import demo_stream

    made = demo_stream(4000, (64, 48))
    np.savez(tmp_path / "events.npz", **{name: getattr(made, name) for name in "xytp"})
    return tmp_path / "events.npz"


class Evil:
    """What a pickle may hold."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self):
        return open, (self.victim, "w")


def test_a_session_of_eventgpt_is_measured_and_checked(cli, sessions, model, stream, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = ("--model", model, "--input", stream, "--grouping", "5stage", "--new-tokens", "6", "--device", "cpu")
    counts = ("--rounds", "2", "--warmup", "1", "--no-self-test")
    done = cli("run", "--pipeline", "eventgpt", *map(str, given), *counts, "--headless")
    assert done.returncode == 0, done.stderr
    for title in ("1 load", "2 preprocess", "3 vision encoding", "4 prefill", "5 decode"):
        assert title in done.stdout
    (folder,) = sessions.iterdir()
    assert store.status(folder) == "finished"
    view = Timeline.open(folder).now()
    assert view.header.pipeline == "eventgpt"
    assert view.model.model_type == "EventChat_llama"
    runs = [row for row in view.runs.rows() if row["outcome"] == "ok"]
    assert {row["case"] for row in runs if row["case"]} == {"f5-b1-n6"}, "five slices unless said otherwise"
    (check,) = (row for row in runs if row["kind"] == "cross-check")
    assert check["facts"]["cross_check"] == "equal"
    for row in runs:
        if row["kind"] == "measured":
            spans = {each["stage"]: each["duration"] for each in view.stages.rows() if each["run"] == row["run"]}
            steps = [path for path in spans if "." not in path]
            assert len(steps) == 5
            assert all(duration > 0 for duration in spans.values())
            assert sum(spans[path] for path in steps) <= row["wall"]
            for step in steps:
                assert sum(d for path, d in spans.items() if path.startswith(step + ".")) <= spans[step]


def test_what_is_no_event_stream_ends_with_a_line_and_code_2(cli, sessions, model, stream, tmp_path):
    victim = tmp_path / "victim"
    evil = np.array({"x": Evil(victim)}, dtype=object)
    with (tmp_path / "evil.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(evil))
        pickle.dump(evil, file)
    (tmp_path / "clip.mp4").write_bytes(b"no events")
    (tmp_path / "damaged.npz").write_bytes(stream.read_bytes()[:200])
    cases = {
        "evil.npy": "nothing of it was run",
        "clip.mp4": "no event stream; give an .npy, .npz, .h5 or .csv",
        "damaged.npz": "not an event stream that can be read",
        "absent.npy": "no such file",
    }
    for name, said in cases.items():
        done = cli(
            "run", "--pipeline", "eventgpt", "--model", str(model), "--input", str(tmp_path / name), "--headless"
        )
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if name in line]
        assert said in line
        assert "Traceback" not in done.stderr
    assert not victim.exists()
    assert not any(sessions.iterdir())
