"""``import llava_tui as lt``: sessions opened, analysed and compared from Python, with the figures of the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import llava_tui as lt
from llava_tui.session.reader import SessionError

SESSIONS = Path(__file__).resolve().parent.parent / "sessions"
EXAMPLE = SESSIONS / "example-demo-cpu"


def test_a_session_is_columns() -> None:
    session = lt.open(str(EXAMPLE))
    assert session.runs["wall"].dtype.kind in "if"
    measured = session.runs.names("kind").index("measured")
    walls = session.runs["wall"][session.runs["kind"] == measured]
    assert len(walls) >= 6
    assert np.all(walls > 0)
    assert len(session.stages) > len(session.runs)
    assert len(session.tokens) > 0


def test_an_analysis_says_what_the_command_says() -> None:
    found = lt.analyze(lt.open(EXAMPLE), "f2-b1-n32")
    (case,) = found.insights.cases
    command = [sys.executable, "-m", "llava_tui", "analyze", str(EXAMPLE), "--case", "f2-b1-n32", "--json"]
    document = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert document["cases"][0]["wall"]["median"] == case.table.wall.summary.median
    assert document["cases"][0]["trust"]["grade"] == found.trust["f2-b1-n32"].grade


def test_the_cases_of_a_session_are_compared_with_its_first() -> None:
    found = lt.compare(lt.open(EXAMPLE))
    assert [(one.case_a, one.case_b) for one in found] == [("f1-b1-n32", "f2-b1-n32"), ("f1-b1-n32", "f4-b1-n32")]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="no such folder"):
        lt.open(tmp_path / "nothing")
    with pytest.raises(ValueError, match="has no case 'f9'; it has f1-b1-n32, f2-b1-n32"):
        lt.analyze(lt.open(EXAMPLE), "f9")


def test_nothing_heavy_is_loaded_for_it() -> None:
    code = (
        "import sys, llava_tui as lt; s = lt.open(sys.argv[1]); lt.analyze(s); lt.compare(s); "
        "print(sorted({'torch', 'transformers', 'av', 'scipy', 'textual', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(EXAMPLE)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
