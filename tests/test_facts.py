"""What a session found out about itself, as it is told while it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from llava_tui.events import GpuProcess, GpuState, Preflight
from llava_tui.report import facts

BUSY = "load average was 3.2 on 2 cores before loading: what else runs here disturbs times"
SLOW = "the CPU governor is powersave: its clock changes with the load, and short steps with it"


def _preflight(**values: Any) -> Preflight:
    return Preflight(**({"t": 0, "load": 0.5, "cores": 2, "governor": "performance", "absent": "no driver"} | values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "preflight: load 0.5 on 2 cores · governor performance; no GPU: no driver"),
        ({"cores": 1}, "preflight: load 0.5 on 1 core · governor performance; no GPU: no driver"),
        ({"load": 3.2, "warnings": [BUSY]}, "preflight: governor performance; no GPU: no driver"),
        ({"load": 3.2, "governor": "powersave", "warnings": [BUSY, SLOW]}, "preflight: no GPU: no driver"),
        ({"load": None, "governor": ""}, "preflight: no GPU: no driver"),
    ],
)
def test_what_a_warning_tells_is_not_told_twice(values: dict[str, Any], told: str) -> None:
    assert facts.sentence(_preflight(**values)) == told


@pytest.mark.parametrize(
    ("pids", "told"), [((), "no other process"), ((7,), "1 other process"), ((7, 8), "2 other processes")]
)
def test_who_else_is_on_a_gpu_is_counted(pids: tuple[int, ...], told: str) -> None:
    gpu = GpuState(gpu=0, foreign=[GpuProcess(pid=pid) for pid in pids])
    assert facts.sentence(_preflight(gpus=[gpu], absent="")).endswith(f"GPU 0 · {told}")
