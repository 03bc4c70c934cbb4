"""Hooks on a model's modules for the length of one run: which part runs, how often, and where the run may be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llava_tui.pipelines.base import Probe
from llava_tui.pipelines.families import Parts

_TOWER, _PROJECTOR = "encode.vision_tower", "encode.projector"


class Watch:
    """A context: the hooks are on the model within it and gone after it, however it is left.

    A part that runs within another interrupts it: what is told of either is its own time, so that no time is told
    twice (Qwen's projector is the vision tower's last module, or several on the way).
    """

    def __init__(self, model: Any, parts: Parts, probe: Probe) -> None:
        self._probe = probe
        self._open: list[str] = []
        self._encoding = False
        self._seen = 0
        self._again = 0
        self._checks: list[Any] = []
        self._marks: list[Any] = []
        self._model, self._parts = model, parts

    @property
    def vision_calls(self) -> int:
        """How often pictures were encoded: once in step 2, however often the tower was entered for it, and once more
        for each time that it was entered later."""
        return min(1, self._seen) + self._again

    def __enter__(self) -> Watch:
        towers, projectors = self._parts.towers, self._parts.projectors
        for modules, path in ((towers, _TOWER), (projectors, _PROJECTOR)):
            for module in modules:
                self._marks.append(module.register_forward_pre_hook(self._begin(path)))
                self._marks.append(module.register_forward_hook(self._end(path)))
        for part in (*towers, _decoder(self._model)):
            for layer in _layers(part):
                self._checks.append(layer.register_forward_pre_hook(lambda *_: self._probe.check()))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._checks + self._marks:
            handle.remove()

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """While this lasts the hooks tell stages; afterwards they only count."""
        self._encoding = True
        try:
            yield
        finally:
            self._encoding = False
            if self._open:  # a run that was cut within a module
                self._probe.end(self._open[-1])
                self._open.clear()

    def stop_checking(self) -> None:
        """From here on a check a token is enough: decoding is spared a hook a layer."""
        for handle in self._checks:
            handle.remove()

    def _begin(self, path: str) -> Callable[..., None]:
        tower = path == _TOWER

        def hook(*_: Any) -> None:
            if not self._encoding:
                self._again += tower
                return
            self._seen += tower
            if self._open:
                self._probe.end(self._open[-1])
            self._open.append(path)
            self._probe.begin(path)

        return hook

    def _end(self, path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if not self._encoding:
                return
            self._open.pop()
            self._probe.end(path)
            if self._open:
                self._probe.begin(self._open[-1])

        return hook


def _decoder(model: Any) -> Any:
    """The language model, or what comes closest to it."""
    try:
        return model.get_decoder()
    except (AttributeError, NotImplementedError):
        return model


def _layers(module: Any) -> list[Any]:
    """The blocks of a transformer: the longest list of modules within it."""
    lists = [child for child in module.modules() if type(child).__name__ == "ModuleList"]
    return list(max(lists, key=len, default=()))
