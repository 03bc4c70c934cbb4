"""A probe that writes down what it is told, and may cut a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llava_tui.pipelines.base import Cancelled


@dataclass
class RecordingProbe:
    """Remembers begins and ends, tokens and checks; may cut the run at its ``cut``-th check (from 0)."""

    cut: int | None = None
    on_check: Callable[[], None] = lambda: None
    told: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    """The innermost open stage at each check."""
    open: list[str] = field(default_factory=list)

    def begin(self, stage: str) -> None:
        self.told.append(("begin", stage))
        self.open.append(stage)

    def end(self, stage: str) -> None:
        assert self.open.pop() == stage, "stages must nest"
        self.told.append(("end", stage))

    def token(self, ids: Any) -> None:
        self.tokens.append(ids.tolist())

    def check(self) -> None:
        self.on_check()
        self.checks.append(self.open[-1] if self.open else "")
        if self.cut == len(self.checks) - 1:
            raise Cancelled
