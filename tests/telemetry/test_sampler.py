"""The sampler's life: its rhythm, its end, and the host's own figures."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampler_process import PATIENCE_S, Start

from llava_tui.telemetry.sampler import next_deadline

Build = Callable[..., Path]
INSTANT = st.integers(min_value=0, max_value=1 << 60)


@given(start=INSTANT, period=st.integers(min_value=5_000_000, max_value=1 << 40), late=INSTANT)
def test_deadlines_stay_on_their_grid_however_late_the_loop_is(start: int, period: int, late: int) -> None:
    """No drift: always a whole number of periods from the start. No burst: one deadline after a stall, not a queue."""
    now = start + late
    due = next_deadline(start, period, now)
    assert (due - start) % period == 0
    assert now < due <= now + period


def test_the_host_and_the_worker_are_measured(start: Start) -> None:
    sampler = start(None, hz=50).until(lambda s: len(s.host()) >= 4)
    first, *later = sampler.host()
    assert first.cpu is None, "no time is covered by the first"
    assert first.worker_cpu is None
    assert first.memory_total == psutil.virtual_memory().total
    for sample in later:
        assert sample.cpu is not None
        assert 0 <= sample.cpu <= 100
        assert sample.worker_cpu is not None
        assert sample.worker_cpu >= 0
        assert sample.memory_used is not None
        assert 0 < sample.memory_used < first.memory_total
        assert sample.load is not None
    rss = psutil.Process().memory_info().rss
    assert later[-1].worker_rss == pytest.approx(rss, rel=0.3), "the worker's, not the sampler's"
    times = [event.t for event in sampler.events]
    assert times == sorted(times)


def test_a_busy_worker_shows_as_busy(start: Start) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as worker:
        try:
            sampler = start(None, hz=10, pid=worker.pid)
            sampler.until(lambda s: any((sample.worker_cpu or 0) > 20 for sample in s.host()))
        finally:
            worker.kill()


def test_it_ignores_what_a_terminal_sends_and_ends_with_its_input(start: Start) -> None:
    sampler = start(None).until(lambda s: len(s.host()) >= 1)
    for number in (signal.SIGINT, signal.SIGHUP):
        sampler.process.send_signal(number)
    seen = len(sampler.host())
    sampler.until(lambda s: len(s.host()) >= seen + 3)
    assert sampler.end() == 0
    assert (sampler.stream.parent / "worker.log").read_text() == ""


def test_sigterm_ends_it_between_whole_lines(start: Start, build_standin: Build) -> None:
    sampler = start(build_standin(), hz=100).until(lambda s: len(s.samples(0)) >= 5)
    sampler.process.terminate()
    assert sampler.process.wait(PATIENCE_S) == -signal.SIGTERM
    assert sampler.stream.read_bytes().endswith(b"}\n")


WORKER = """
import os, subprocess, sys
sampler = subprocess.Popen([sys.executable, "-m", "llava_tui.telemetry.sampler", sys.argv[1], "--hz", "50",
                            "--pid", str(os.getpid())], stdin=subprocess.PIPE)
# A child that inherited the pipe, as a data loader does: while it lives, the sampler's input does not end.
holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[sampler.stdin.fileno()])
print(sampler.pid, holder.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_when_the_worker_is_killed_though_another_holds_the_pipe(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        pid, holder = map(int, worker.stdout.readline().split())
        sampler = os.pidfd_open(pid)  # readable once it has ended, whoever has to reap it
        stream = tmp_path / "telemetry.jsonl"
        while not (stream.exists() and b'"host"' in stream.read_bytes()):
            assert not select.select([sampler], [], [], 0.005)[0], "the sampler ended"
        worker.kill()
        ended = select.select([sampler], [], [], PATIENCE_S)[0]
        assert psutil.pid_exists(holder)
        os.kill(holder, signal.SIGKILL)
        os.close(sampler)
    assert ended


def test_a_worker_that_is_gone_already_ends_it_at_once(start: Start) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert start(None, pid=done.pid).process.wait(PATIENCE_S) == 0


def test_a_stream_that_cannot_be_written_ends_it_with_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "telemetry.jsonl").mkdir()
    assert start(None).process.wait(PATIENCE_S) == 1
    assert (tmp_path / "worker.log").read_text().startswith("sampler: telemetry ends here: ")
    assert (tmp_path / "worker.log").read_text().count("\n") == 1


def test_a_write_that_fails_later_ends_it_with_one_line_and_keeps_what_was_written(
    build_standin: Build, tmp_path: Path
) -> None:
    """A file size limit stands in for a full disk: from some line on, every write fails."""
    limit = 4096

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "llava_tui.telemetry.sampler", tmp_path, "--hz", "100", "--pid", str(os.getpid())]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(build_standin())}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, preexec_fn=limited
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert said.startswith("sampler: telemetry ends here: ")
    assert said.count("\n") == 1
    assert 0 < (tmp_path / "telemetry.jsonl").stat().st_size <= limit


@pytest.mark.parametrize("hz", ["0", "nan", "fast"])
def test_an_impossible_rate_is_refused(tmp_path: Path, hz: str) -> None:
    command = [sys.executable, "-m", "llava_tui.telemetry.sampler", tmp_path, f"--hz={hz}", "--pid", "1"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "--hz" in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, llava_tui.telemetry.sampler; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "psutil" in loaded
    assert {"torch", "numpy", "scipy", "textual"}.isdisjoint(loaded)
