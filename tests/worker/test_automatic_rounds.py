"""Automatic rounds say what fifty say, for a fraction of the runs."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "rounds.py"


def test_ten_sessions_have_the_verdicts_of_fifty_rounds():
    """One of each effect, every kind of fault; the benchmark runs a hundred."""
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--sessions", "10"], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "whole run: same verdict in 10 of 10 (100.0%)" in done.stdout
