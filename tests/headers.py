"""The header of a session that a test makes up."""

from __future__ import annotations

from typing import Any

from llava_tui import events

HOST = events.HostFacts(hostname="h", os="Linux", cpu="cpu", cores=2, memory=1 << 34)


def make_header(id_: str, **changes: Any) -> events.Header:
    """Of a model's real run; ``changes`` are other values of its fields."""
    values: dict[str, Any] = {
        "schema": events.SCHEMA,
        "id": id_,
        "created": "2026-01-01T00:00:00+00:00",
        "t0": 0,
        "wall0": 0,
        "provenance": "pretrained",
        "pipeline": "llava",
        "model": "m",
        "plan": {},
        "host": HOST,
    }
    return events.Header(**(values | changes))
