"""The command line as a user meets it: real processes, exit codes, one line for a mistake and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llava_tui.session import store

Cli = Callable[..., subprocess.CompletedProcess[str]]
SIMULATED = ("run", "--pipeline", "simulated", "--model", "llava-1.5-7b", "--frames", "1,2", "--new-tokens", "16")
FAST = (*SIMULATED, "--time-scale", "0", "--rounds", "6", "--headless")
HEAVY = ("torch", "torchvision", "transformers", "accelerate", "av", "PIL", "scipy")


@pytest.fixture
def recorded(cli: Cli, sessions: Path) -> Path:
    assert cli(*FAST).returncode == 0
    return next(sessions.iterdir())


def test_a_headless_run_says_what_happens_and_keeps_it(cli: Cli, sessions: Path) -> None:
    done = cli(*FAST, "--name", "first", "--tag", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert "measuring" in done.stdout
    assert "SIMULATED" in done.stdout
    assert len(re.findall(r"  run \d+/\d+  measured ", done.stdout)) == 12
    listed = json.loads(cli("list", "--json").stdout)
    assert [(entry["status"], entry["name"], entry["provenance"]) for entry in listed] == [
        ("finished", "first", "simulated")
    ]
    assert next(line for line in cli("list").stdout.splitlines() if "■" in line).endswith("SIMULATED  first #a")
    shown = json.loads(cli("show", "@latest", "--json").stdout)
    assert [(case["case"], case["n"]) for case in shown["cases"]] == [("f1-b1-n16", 6), ("f2-b1-n16", 6)]
    for case in shown["cases"]:
        shares = {row["path"]: row["share"] for row in case["stages"]}
        assert sum(share for path, share in shares.items() if "." not in path) == pytest.approx(1, abs=0.01)
        assert case["ttft"]["low"] <= case["ttft"]["median"] <= case["ttft"]["high"]


def test_json_is_one_document_and_nothing_else(cli: Cli) -> None:
    done = cli(*FAST, "--json")
    assert json.loads(done.stdout)["status"] == "finished"
    assert done.stderr == ""


def test_what_ended_a_run_is_said_and_shown(cli: Cli) -> None:
    done = cli(*SIMULATED, "--time-scale", "0", "--max-rounds", "30", "--headless")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"warm-up: f1-b1-n16: \d+ runs, steady", done.stdout)
    assert re.search(r"ended: every step's 95 % interval is within ±1 % and .* after \d\d rounds", done.stdout)
    shown = json.loads(cli("show", "@latest", "--json").stdout)
    facts = {fact["type"]: fact for fact in shown["facts"]}
    assert set(facts) == {"preflight", "warm-up", "self-test", "ended"}
    assert facts["ended"]["rule"] == "interval"
    assert facts["self-test"]["reason"].startswith("simulated")
    assert [case["n"] for case in shown["cases"]] == [facts["ended"]["rounds"]] * 2
    text = cli("show", "@latest").stdout
    assert f"rounds   {facts['ended']['text']}" in text


def test_a_run_of_nothing_in_particular_says_that_it_is_the_demos(cli: Cli, tmp_path: Path) -> None:
    """The plan is refused for its frames, so nothing is loaded; what it would have run on is said before."""
    wrong = ("--frames", "100")
    model = "llava-tui: the demo model (--model names another)"
    clip = "the demo clip (--input names another)"
    assert cli("run", *wrong).stderr.splitlines()[0] == f"{model} on {clip}"
    assert cli("run", *wrong, "--model", "demo").stderr.splitlines()[0] == f"llava-tui: {clip}"
    events = cli("run", "--pipeline", "eventgpt", "--model", "eventgpt-7b").stderr.splitlines()
    assert events[0] == "llava-tui: the demo stream (--input names another)"
    assert "needs --weights random" in events[-1]
    plan = tmp_path / "plan.toml"
    plan.write_text('model = "demo"\ninputs = ["demo"]\n')
    assert "names another" not in cli("run", str(plan), *wrong).stderr


def test_a_sessions_plan_runs_again(cli: Cli, sessions: Path, recorded: Path) -> None:
    again = cli("run", "--from", recorded.name, "--headless", "--json")
    assert json.loads(again.stdout)["header"]["plan"] == json.loads((recorded / "session.json").read_text())["plan"]
    assert len(list(sessions.iterdir())) == 2


def test_a_plan_file_runs_and_options_override_it(cli: Cli, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('pipeline = "simulated"\nmodel = "llava-1.5-7b"\nframes = [1, 2]\ntime_scale = 0\nrounds = 2\n')
    done = json.loads(cli("run", str(plan), "--frames", "3", "--json").stdout)
    assert [case["case"] for case in done["cases"]] == ["f3-b1-n64"]
    assert done["cases"][0]["n"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--frames", "0", "--pipeline", "simulated"), ("frames", "outside")),
        (("run", "--frames", "1,two"), ("frames", "1,2,4")),
        (("run", "--rounds", "0"), ("rounds",)),
        (("run", "--pipeline", "lava"), ("pipeline", "llava, ", "simulated")),
        (("run", "absent.toml"), ("absent.toml", "TOML")),
        (("run", "--from", "absent"), ("absent", "list")),
        (("run", "--input", "absent.mp4"), ("absent.mp4", "no such file")),
        (("run", "--model", "demo", "--frames", "100"), ("frames", "4,096 context", "--frames 15")),
        (("run", "--model", "demo", "--prompt", "what is in <image>?"), ("prompt", "<image>")),
        (("run", "--pipeline", "simulated", "--model", "nonsense"), ("model", "nonsense")),
        (("run", "--model", "./absent"), ("./absent", "no such folder")),
        (("show", "absent"), ("absent", "list")),
        (("open", "absent"), ("absent", "list")),
        (("attach",), ("no session",)),
        (("control", "absent", "pause"), ("absent",)),
        (("models", "./absent"), ("absent", "no such folder")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_or_two_lines_and_leaves_nothing(
    cli: Cli, sessions: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert 1 <= len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word.lower() in done.stderr.lower()
    assert list(sessions.iterdir()) == []


def test_a_sessions_folder_that_cannot_be_written_says_so(cli: Cli) -> None:
    done = cli("--sessions", "/proc/llava-tui", *FAST)
    assert done.returncode == 2
    assert "/proc/llava-tui" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_ambiguous_session_lists_the_candidates(cli: Cli, sessions: Path, recorded: Path) -> None:
    assert cli(*FAST).returncode == 0
    done = cli("show", "llava")
    assert done.returncode == 2
    for path in sessions.iterdir():
        assert path.name in done.stderr


def test_a_newer_schema_is_refused_and_listed_with_the_reason(cli: Cli, recorded: Path) -> None:
    header = json.loads((recorded / "session.json").read_text())
    (recorded / "session.json").write_text(json.dumps(header | {"schema": [99, 0]}))
    done = cli("show", recorded.name)
    assert done.returncode == 2
    assert "99" in done.stderr
    listed = cli("list")
    assert listed.returncode == 0
    line = next(line for line in listed.stdout.splitlines() if recorded.name in line)
    assert line.split()[2] == "unreadable"
    assert "99" in line
    (entry,) = json.loads(cli("list", "--json").stdout)
    assert entry["status"] == "unreadable"
    assert "99" in entry["problem"]


@pytest.mark.parametrize("verb", [("list",), ("show", "@latest"), ("list", "--json"), ("models",), ("--help",)])
def test_looking_never_loads_what_measures(recorded: Path, sessions: Path, verb: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom llava_tui.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *verb], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stdout + done.stderr


def test_a_detached_run_answers_to_control(cli: Cli, sessions: Path) -> None:
    started = cli(*SIMULATED, "--time-scale", "1", "--rounds", "200", "--detach")
    id_ = started.stdout.strip()
    try:
        assert store.status(sessions / id_) == "running"
        assert "accepted" in cli("control", id_, "pause").stdout
        refused = cli("control", id_, "skip", "--case", "no-such-case")
        assert refused.returncode == 1
        assert "no-such-case" in refused.stdout
        assert "accepted" in cli("control", id_, "resume").stdout
    finally:
        stopped = cli("control", id_, "stop-now")
    assert "accepted" in stopped.stdout
    deadline = time.monotonic() + 10
    while store.status(sessions / id_) in ("running", "paused"):
        assert time.monotonic() < deadline, "the worker did not stop"
        time.sleep(0.05)
    assert store.status(sessions / id_) == "stopped"
    late = cli("control", id_, "pause")
    assert late.returncode == 2
    assert "stopped" in late.stderr


def _started(sessions: Path) -> subprocess.Popen[str]:
    """A headless run in real time, returned when its first run has begun."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "llava_tui",
            *SIMULATED,
            "--time-scale",
            "1",
            "--rounds",
            "200",
            "--headless",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"LLAVA_TUI_SESSIONS": str(sessions)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "load " in line:
            return process
    raise AssertionError(process.communicate())


def test_an_interrupt_stops_the_run_and_keeps_what_there_is(sessions: Path) -> None:
    process = _started(sessions)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    path = next(sessions.iterdir())
    assert store.status(path) == "stopped"


def test_a_worker_that_is_killed_is_an_interrupted_session_and_exit_code_3(sessions: Path) -> None:
    process = _started(sessions)
    path = next(sessions.iterdir())
    worker = json.loads((path / "session.json").read_text())["pid"]
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "its worker died: see worker.log" in err
    assert path.name in err
    assert "Traceback" not in err
    assert store.status(path) == "interrupted"


def test_a_job_that_is_terminated_leaves_no_worker(sessions: Path) -> None:
    process = _started(sessions)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert store.status(next(sessions.iterdir())) == "stopped"


def test_a_deleted_session_ends_its_worker(sessions: Path) -> None:
    process = _started(sessions)
    path = next(sessions.iterdir())
    shutil.rmtree(path)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "folder is gone" in err
    assert "Traceback" not in err


def test_a_case_that_is_lost_is_told(cli: Cli) -> None:
    done = cli(*FAST, "--frames", "1,900")
    assert done.returncode == 0
    assert "1 of 2 cases failed: f900-b1-n16" in done.stderr


def test_an_unknown_case_names_the_known_ones(cli: Cli, recorded: Path) -> None:
    done = cli("show", "@latest", "--case", "zzz")
    assert done.returncode == 2
    assert "f1-b1-n16, f2-b1-n16" in done.stderr


def test_output_that_cannot_be_written_is_one_line(recorded: Path) -> None:
    command = [sys.executable, "-m", "llava_tui", "show", "@latest"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "llava-tui: cannot write: No space left on device\n")


def test_a_reader_that_goes_away_is_no_error(recorded: Path) -> None:
    command = f"{sys.executable} -m llava_tui show @latest | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert recorded.name in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_tells_one_page(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.returncode == 0
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)}
    assert set(findings) >= {"python", "base", "models extra", "NVML", "terminal", "sessions", "cache"}
    for finding in findings.values():
        assert finding["state"] != "missing" or finding["mend"]


def test_a_simulated_sweep_of_which_nothing_fits_is_refused_as_a_real_one_is(cli: Cli, sessions: Path) -> None:
    done = cli("run", "--pipeline", "simulated", "--frames", "8,9", "--headless")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("llava-tui: frames: 8 frames × 576 + ")
    assert "at most 6 frames fit" in done.stderr
    assert list(sessions.iterdir()) == [], "no session is left behind"


def test_a_dry_run_says_what_will_not_fit_and_starts_nothing(cli: Cli, sessions: Path) -> None:
    plan = ("--pipeline", "simulated", "--simulated-gpu", "rtx-4090", "--frames", "1,4", "--batch", "1,32", "--dry-run")
    done = cli("run", *plan)
    assert done.returncode == 0, done.stderr
    assert "f4-b32-n64 does not fit: 13.2 GiB of weights and 37.1 GiB of keys and values" in done.stdout
    assert "use --batch " in done.stdout
    told = json.loads(cli("run", *plan, "--json").stdout)
    assert [case["case"] for case in told["cases"] if case["certain"]] == ["f4-b32-n64"]
    assert list(sessions.iterdir()) == []
