"""Sessions for tests, written as the worker writes them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import headers

from llava_tui import events
from llava_tui.session import writer

MakeSession = Callable[..., Path]
Child = Callable[..., "subprocess.Popen[str]"]
MountNamespace = Callable[[str, str], "subprocess.CompletedProcess[str]"]


def make_header(id_: str = "example", **changes: Any) -> events.Header:
    """Of a simulated session."""
    simulated: dict[str, Any] = {"provenance": "simulated", "pipeline": "simulated", "model": "llava-1.5-7b"}
    when: dict[str, Any] = {"wall0": 1_767_225_600_000_000_000, "plan": {"frames": [4]}}
    return headers.make_header(id_, **(simulated | when | changes))


def append(stream: Path, happened: Iterable[Any]) -> None:
    to = writer.StreamWriter(stream)
    for event in happened:
        to.write(event)
    to.close()
