"""The real sampler as a process, over a stand-in for the driver's library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sampler_process import Sampler, Start

SOURCE = Path(__file__).with_name("standin_nvml.c")


@pytest.fixture(scope="session")
def build_standin(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles the stand-in library, once for each set of options, into a folder that ``LD_LIBRARY_PATH`` may name."""
    built: dict[tuple[str, ...], Path] = {}

    def build(*options: str) -> Path:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            pytest.skip("no C compiler to build the stand-in for NVIDIA's library with")
        if options not in built:
            folder = tmp_path_factory.mktemp("nvml")
            target = folder / "libnvidia-ml.so.1"
            subprocess.run([compiler, "-O1", "-shared", "-fPIC", *options, "-o", target, SOURCE], check=True)
            built[options] = folder
        return built[options]

    return build


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the sampler with this test as the worker: ``start(library_folder, scenario, hz=, pid=)``."""
    started: list[subprocess.Popen[bytes]] = []

    def start_sampler(
        library: Path | None, scenario: str = "normal", hz: float = 50, pid: int | None = None
    ) -> Sampler:
        environment = {**os.environ, "STANDIN_NVML": scenario}
        if library is not None:
            environment["LD_LIBRARY_PATH"] = str(library)
        command = [sys.executable, "-m", "llava_tui.telemetry.sampler", str(tmp_path)]
        command += ["--hz", str(hz), "--pid", str(os.getpid() if pid is None else pid)]
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        started.append(process)
        return Sampler(process, tmp_path / "telemetry.jsonl")

    yield start_sampler
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
