"""``analyze`` and ``advise`` as a user types them, on a simulated session whose truth is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
QUICK = (
    "--pipeline",
    "simulated",
    "--time-scale",
    "0",
    "--warmup",
    "1",
    "--no-self-test",
    "--no-cool-down",
    "--headless",
)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The real command on one folder of sessions that this module's tests share."""
    environment = os.environ | {"LLAVA_TUI_SESSIONS": str(tmp_path_factory.mktemp("sessions"))}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llava_tui", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)

    return run


@pytest.fixture(scope="module")
def session(cli: Cli) -> str:
    """Four new tokens at two and four frames on an H100: prefill is mostly pictures."""
    ran = cli("run", *QUICK, "--frames", "2,4", "--new-tokens", "4", "--rounds", "12", "--name", "shared", "--json")
    assert ran.returncode == 0, ran.stderr
    return str(json.loads(ran.stdout)["id"])


def test_analyze_tells_everything_and_marks_it_simulated(cli: Cli, session: str) -> None:
    page = cli("analyze", session)
    assert page.returncode == 0, page.stderr
    for said in (
        "SIMULATED", "24 measured", "trust A", "slowest 3 generate", "lightest 1 frames", "most stable",
        "roofline of f4-b1-n4", "MFU", "what a frame costs", "generate.prefill (b1 n4; 2, 4)",
        "advice on f4-b1-n4", "EventGPT (simulated, unverified",
        f"llava-tui advise {session} --verify --only fewer-frames --case f4-b1-n4",
    ):  # fmt: skip
        assert said in page.stdout, said
    markdown = cli("analyze", session, "--markdown").stdout
    assert "| step | median |" in markdown
    assert "SIMULATED" in markdown

    document = json.loads(cli("analyze", session, "--json").stdout)
    assert document["provenance"] == "simulated"
    case = next(case for case in document["cases"] if case["case"] == "f4-b1-n4")
    prefill = next(stage for stage in case["roofline"]["stages"] if stage["path"] == "generate.prefill")
    assert prefill["mfu"] == pytest.approx(0.52, rel=0.02)  # what the simulator was told to reach
    step = next(stage for stage in case["roofline"]["stages"] if stage["path"] == "decode_step")
    assert step["mbu"] == pytest.approx(0.56, rel=0.02)
    assert not prefill["impossible"]
    assert case["trust"]["grade"] == "A"

    one = cli("analyze", session, "--case", "f2-b1-n4", "--json")
    assert [case["case"] for case in json.loads(one.stdout)["cases"]] == ["f2-b1-n4"]


def test_a_timing_bug_is_faster_than_physics(cli: Cli) -> None:
    plan = ("--frames", "4", "--new-tokens", "4", "--rounds", "10", "--name", "hasty", "--json")
    ran = cli("run", *QUICK, *plan, "--fault", "early-stop=5%")
    assert ran.returncode == 0, ran.stderr
    page = cli("analyze", "hasty")
    assert "faster than physics: prefill" in page.stdout
    # And nothing is advised on such figures but to measure again.
    advice = json.loads(cli("advise", "hasty", "--json").stdout)["advice"]
    assert [each["id"] for each in advice] == ["measure-again"]


def test_advice_proves_itself(cli: Cli, session: str) -> None:
    listed = json.loads(cli("advise", session, "--json").stdout)
    assert listed["advice"][0]["id"] == "fewer-frames"
    proved = cli("advise", session, "--verify", "--json")
    assert proved.returncode == 0, proved.stderr
    proof = json.loads(proved.stdout)["proof"]
    assert (proof["axis"], proof["before"], proof["after"], proof["rounds"]) == ("frames", 4, 2, 12)
    assert proof["verdict"] == "faster"
    assert proof["low"] <= proof["measured"] <= proof["high"]
    assert abs(proof["predicted"] - proof["measured"]) < 0.03
    trial = cli("show", json.loads(proved.stdout)["trial"], "--json")
    assert {case["case"] for case in json.loads(trial.stdout)["cases"]} == {"f2-b1-n4", "f4-b1-n4"}


def test_a_mistake_is_one_line_that_helps(cli: Cli, session: str) -> None:
    for arguments, says in (
        (("advise", session, "--verify", "--only", "prefetch"), "no sweep axis"),
        (("advise", session, "--verify", "--only", "nothing"), "there is: fewer-frames"),
        (("analyze", session, "--case", "f9"), "it has f2-b1-n4, f4-b1-n4"),
        (("analyze", "nowhere"), "nowhere"),
    ):
        refused = cli(*arguments)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert refused.stderr.count("\n") == 1
