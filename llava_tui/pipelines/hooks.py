"""Hooks on a model's modules for the length of one run: which part runs, how often, and where the run may be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llava_tui.pipelines.base import Probe


class Watch:
    """A context: the hooks are on the model within it and gone after it, however it is left."""

    def __init__(self, model: Any, vision: Any, projector: Any, probe: Probe) -> None:
        self.vision_calls = 0
        """How often the vision tower was entered."""
        self._probe = probe
        self._open: list[str] = []
        self._encoding = False
        self._checks: list[Any] = []
        self._marks: list[Any] = []
        self._model, self._vision, self._projector = model, vision, projector

    def __enter__(self) -> Watch:
        for module, path in ((self._vision, "encode.vision_tower"), (self._projector, "encode.projector")):
            self._marks.append(module.register_forward_pre_hook(self._begin(path, counted=module is self._vision)))
            self._marks.append(module.register_forward_hook(self._end(path)))
        for layer in [*_layers(self._vision), *_layers(self._model.get_decoder())]:
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
            while self._open:  # a run that was cut within a module
                self._probe.end(self._open.pop())

    def stop_checking(self) -> None:
        """From here on a check a token is enough: decoding is spared a hook a layer."""
        for handle in self._checks:
            handle.remove()

    def _begin(self, path: str, counted: bool) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self.vision_calls += counted
            if self._encoding:
                self._open.append(path)
                self._probe.begin(path)

        return hook

    def _end(self, path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if self._encoding:
                self._open.remove(path)
                self._probe.end(path)

        return hook


def _layers(module: Any) -> list[Any]:
    """The blocks of a transformer: the longest list of modules within it."""
    lists = [child for child in module.modules() if type(child).__name__ == "ModuleList"]
    return list(max(lists, key=len, default=()))
