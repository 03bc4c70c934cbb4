"""``advise --verify`` on a genuine small model, as a user types it: a session, its advice, and the advice put to the
test by a worker of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llava_tui.session import store
from llava_tui.session.timeline import Timeline

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
CASE = "f1-b1-n24"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sessions")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Command:
    """The real command on one folder of sessions; of peaks that were measured on this machine it knows nothing."""
    environment = os.environ | {
        "LLAVA_TUI_SESSIONS": str(folder),
        "XDG_DATA_HOME": str(tmp_path_factory.mktemp("data")),
        "OMP_NUM_THREADS": "1",  # matrices are tiny, and other tests run beside
    }

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "llava_tui", *arguments]
        return subprocess.run(whole, capture_output=True, text=True, timeout=250, env=environment | extra)

    return run


@pytest.fixture(scope="module")
def session(command: Command, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One frame and 24 tokens: most of a run is decoding."""
    from llava_tui.pipelines.checkpoints import build_tiny, synthesise_video

    model = build_tiny(tmp_path_factory.mktemp("models") / "tiny")
    clip = synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1, size=(64, 48))
    ran = command(
        *("run", "--model", str(model), "--input", str(clip), "--device", "cpu", "--frames", "1"),
        *("--new-tokens", "24", "--rounds", "10", "--warmup", "2", "--no-self-test", "--json"),
    )
    assert ran.returncode == 0, ran.stderr
    return str(json.loads(ran.stdout)["id"])


def test_advice_is_put_to_the_test_and_told_beside_its_prediction(command: Command, session: str, folder: Path) -> None:
    """Whatever the machine is like meanwhile: on doubtful figures what is named is tried even so."""
    listed = json.loads(command("advise", session, "--json").stdout)
    every = {each["id"]: each for each in (*listed["advice"], *listed["withheld"])}
    predicted = every["fewer-tokens"]
    assert predicted["case"] == CASE
    assert 0 < predicted["gain"] < predicted["bound"] < 1

    done = command("advise", session, "--verify", "--only", "fewer-tokens", "--rounds", "6")
    assert done.returncode == 0, done.stderr
    trial = store.list_sessions(folder)[0].path
    # Both cases once a round, side by side: what a drift of the machine touches, it touches in both.
    view = Timeline.open(trial).now()
    rows = [row for row in view.runs.rows() if row["kind"] == "measured" and row["outcome"] == "ok"]
    assert [row["round"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    pairs = [{rows[place]["case"], rows[place + 1]["case"]} for place in range(0, 12, 2)]
    assert pairs == [{CASE, "f1-b1-n12"}] * 6
    assert view.header.plan["tags"] == ["advice"]

    walls = {case: np.array([row["wall"] for row in rows if row["case"] == case]) for case in (CASE, "f1-b1-n12")}
    saved = 1 - float(np.exp(np.median(np.log(walls["f1-b1-n12"] / walls[CASE]))))
    said = dict(line.strip().split(None, 1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert said["tried"].startswith("new_tokens 24 against 12, interleaved, 6 rounds")
    assert said["predicted"].startswith(f"saves {predicted['gain']:.1%}".replace("%", " %"))
    assert said["measured"].startswith(f"saves {saved:.1%} (95 % interval ".replace("%)", " %)").replace("% (", " % ("))
    assert said["verdict"].split(":")[0].split(";")[0] in ("FASTER", "SLOWER", "SAME", "INCONCLUSIVE")
    assert ("doubt" in said) == bool(listed["withheld"])


def test_a_compiled_step_is_put_to_the_test_in_one_session(command: Command, session: str, folder: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler on this machine")
    done = command("advise", session, "--verify", "--only", "compile", "--rounds", "6", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    proof = document["proof"]
    assert (proof["axis"], proof["before"], proof["after"], proof["rounds"]) == ("compile", "off", "on", 6)
    assert proof["predicted"] is None, "on a CPU nothing is predicted"
    assert 0 < proof["bound"] < 1
    assert proof["low"] <= proof["measured"] <= proof["high"]
    runs = list(Timeline.open(folder / document["trial"]).now().runs.rows())
    checks = {run["case"]: run["facts"]["cross_check"] for run in runs if run["kind"] == "cross-check"}
    assert checks == {f"{CASE}-dynamic-uncompiled": "equal", f"{CASE}-static-compiled": "equal"}
    compiling = {run["kind"] for run in runs if (run["facts"] or {}).get("compiled_graphs")}
    assert compiling <= {"warm-up", "discarded", "cross-check"}
    assert compiling


def test_without_a_compiler_the_trial_says_why_nothing_came_of_it(command: Command, session: str) -> None:
    done = command("advise", session, "--verify", "--only", "compile", "--rounds", "6", CXX="/nowhere/c++")
    assert done.returncode == 3
    assert f"{CASE}-static-compiled is left out: compile: needs a C++ compiler" in done.stdout
    assert "no round ran both cases: nothing can be said (1 of 2 cases failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
