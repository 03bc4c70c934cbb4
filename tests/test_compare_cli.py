"""`compare`, `pin` and `calibrate` as a user meets them: real processes, exit codes, one line for a mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llava_tui.session import store

Cli = Callable[..., subprocess.CompletedProcess[str]]
PLAN = ("--pipeline", "simulated", "--model", "llava-1.5-7b", "--new-tokens", "8", "--time-scale", "0", "--seed", "1")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the spread is kept."""
    monkeypatch.setenv("LLAVA_TUI_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def record(cli: Cli, name: str, *options: str) -> None:
    done = cli("run", *PLAN, "--rounds", "10", "--warmup", "1", "--name", name, *options, "--headless")
    assert done.returncode == 0, done.stderr


def test_sessions_and_cases_are_compared(cli: Cli, data: Path) -> None:
    record(cli, "one", "--frames", "1,2")
    record(cli, "other", "--frames", "1,2", "--seed", "2")
    # The cases of a session, on one screen; two frames take longer than one.
    shown = cli("compare", "one", "--fail-on", "slower")
    assert (shown.returncode, shown.stderr) == (1, "")
    sentence, watermark = shown.stdout.splitlines()[:2]
    assert sentence.startswith("f2-b1-n8 is ")
    assert " slower than f1-b1-n8: step " in sentence
    assert watermark.startswith("SIMULATED")
    assert "▲ SLOWER" in shown.stdout
    # Two sessions: case by case, and nothing small is claimed of a single one.
    done = cli("compare", "one", "other", "--fail-on", "slower", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert [(one["case_a"], one["case_b"], one["method"]) for one in document["comparisons"]] == [
        ("f1-b1-n8", "f1-b1-n8", "single session"),
        ("f2-b1-n8", "f2-b1-n8", "single session"),
    ]
    assert {row["verdict"] for one in document["comparisons"] for row in one["rows"]} == {"inconclusive"}
    # Cases of two sessions that differ in frames are refused.
    refused = cli("compare", "one:f1-b1-n8", "other:f2-b1-n8", "--markdown")
    assert refused.returncode == 0
    assert "cannot be compared with" in refused.stdout
    assert "| whole run |" in refused.stdout
    assert "SIMULATED" in refused.stdout
    # Nobody should take a refusal for a pass.
    gate = cli("compare", "one:f1-b1-n8", "other:f2-b1-n8", "--fail-on", "slower")
    assert (gate.returncode, "not comparable" in gate.stderr) == (2, True)


def test_the_pinned_session_is_the_baseline(cli: Cli, data: Path) -> None:
    record(cli, "one", "--frames", "1")
    record(cli, "two", "--frames", "1", "--seed", "2")
    nothing = cli("compare", "--baseline", "@pinned", "two")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "no session is pinned" in nothing.stderr
    assert cli("pin", "two").returncode == 0
    assert cli("pin", "one").returncode == 0  # in the place of the other
    document = json.loads(cli("compare", "--baseline", "@pinned", "two", "--json").stdout)
    assert [(one["a"], one["b"]) for one in document["comparisons"]] == [("one", "two")]


def test_calibrating_keeps_the_spread_that_compare_goes_by(cli: Cli, data: Path) -> None:
    done = cli("calibrate", *PLAN, "--frames", "1", "--repeat", "3", "--rounds", "6", "--warmup", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    kept = json.loads(done.stdout)
    assert json.loads((data / "calibration.json").read_text()) == [kept]
    assert (len(kept["sessions"]), kept["runs"]) == (3, 18)
    assert 0 < kept["spread"]["wall"] < 0.01
    listed = json.loads(cli("list", "--json").stdout)
    assert [session["tags"] for session in listed] == [["calibration"]] * 3
    document = json.loads(cli("compare", *kept["sessions"][:2], "--json").stdout)
    assert document["comparisons"][0]["spread"] == kept["spread"]["wall"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_calibration_that_is_interrupted_leaves_no_worker(
    sessions: Path, data: Path, number: signal.Signals, code: int
) -> None:
    plan = (*PLAN, "--time-scale", "0.4", "--frames", "1", "--rounds", "6", "--warmup", "1", "--repeat", "3")
    command = [sys.executable, "-m", "llava_tui", "calibrate", *plan]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("session 2/3") for line in process.stdout)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert [store.status(path) for path in sorted(sessions.iterdir())] == ["finished", "stopped"]
    assert not data.exists(), "nothing is known of how far three sessions differ"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name what to compare"),
        (("nothing", "there"), "no session 'nothing'"),
        (("a", "b", "--threshold", "lots"), "write it like 1% or 0.01"),
        (("a", "b", "--threshold", "1"), "write it like 1% or 0.01"),
    ],
)
def test_a_mistake_is_one_clear_line(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli("compare", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_comparing_loads_neither_torch_nor_scipy() -> None:
    code = (
        "import sys; import llava_tui.report.comparison, llava_tui.report.sides, llava_tui.analysis.calibration; "
        "print(sorted({'torch', 'scipy', 'textual', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_cannot_be_read_is_no_baseline(cli: Cli, sessions: Path) -> None:
    newer = sessions / "newer"
    newer.mkdir()
    (newer / "session.json").write_text('{"schema": [99, 0]}')
    done = cli("pin", "newer")
    assert done.returncode == 2
    assert "update llava-tui" in done.stderr
    assert not (newer / "notes.json").exists()
