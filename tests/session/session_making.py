"""Sessions for tests, written as the worker writes them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from llava_tui import events
from llava_tui.session import writer

MakeSession = Callable[..., Path]
Child = Callable[..., "subprocess.Popen[str]"]
MountNamespace = Callable[[str, str], "subprocess.CompletedProcess[str]"]


def make_header(id_: str = "example", **changes: Any) -> events.Header:
    values: dict[str, Any] = {
        "schema": events.SCHEMA,
        "id": id_,
        "created": "2026-01-01T00:00:00+00:00",
        "t0": 0,
        "wall0": 1_767_225_600_000_000_000,
        "provenance": "simulated",
        "pipeline": "simulated",
        "model": "llava-1.5-7b",
        "plan": {"frames": [4]},
        "host": events.HostFacts(hostname="h", os="Linux", cpu="cpu", cores=2, memory=1 << 34),
    }
    return events.Header(**(values | changes))


def append(stream: Path, happened: Iterable[Any]) -> None:
    to = writer.StreamWriter(stream)
    for event in happened:
        to.write(event)
    to.close()
