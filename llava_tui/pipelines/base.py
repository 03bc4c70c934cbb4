"""What a pipeline is, and the protocol that measures it.

A pipeline names its steps and stages, loads a model, and runs a case while telling a :class:`Probe` which stage begins
and ends. It knows nothing of sessions, files or clocks; the probe knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from llava_tui.events import ModelFacts, StageInfo
from llava_tui.plan import Case
from llava_tui.session_files import Item

LOAD_STAGES: tuple[StageInfo, ...] = (
    StageInfo("load", "load"),
    StageInfo("load.libraries", "import libraries"),
    StageInfo("load.weights", "weights"),
    StageInfo("load.device", "to device"),
)
"""Loading is run 0 and has a tree of its own."""

LLAVA_STAGES: tuple[StageInfo, ...] = (
    StageInfo("frames", "1 frames"),
    StageInfo("frames.decode_frames", "decode frames"),
    StageInfo("encode", "2 encode"),
    StageInfo("encode.preprocess", "preprocess"),
    StageInfo("encode.h2d", "to device", "device"),
    StageInfo("encode.vision_tower", "vision tower", "device"),
    StageInfo("encode.projector", "projector", "device"),
    StageInfo("generate", "3 generate"),
    StageInfo("generate.prefill", "prefill", "device"),
    StageInfo("generate.decode", "decode", "device"),
    StageInfo("generate.detokenize", "detokenize"),
)


class PipelineError(Exception):
    """The model or the input cannot be profiled: a message for the person who asked, no traceback needed."""


class BrokenInput(PipelineError):
    """One input cannot be read; of many, the others can."""

    def __init__(self, path: object, reason: str) -> None:
        """``path`` is the input's, or that of the file in it; ``reason`` says what is wrong and how to mend it."""
        super().__init__(f"{shown(path)}: {reason}")
        self.path = str(path)
        self.reason = reason
        self.sequence: int | None = None
        """Which sequence of the batch it was for, once that is known."""


class Cancelled(Exception):
    """Raised out of :meth:`Probe.check` when the run is to end now."""


class Probe(Protocol):
    """What measures a run. Every call is cheap: nothing waits on a disk, a viewer or a device."""

    def begin(self, stage: str) -> None:
        """The stage of that path begins. Stages nest; a step is begun before its stages."""

    def end(self, stage: str) -> None:
        """It ends. A stage that begins and ends more than once in a run counts the sum, from its first beginning."""

    def token(self, ids: Any) -> None:
        """One decode step's tokens exist: a tensor of shape (batch,), still on its device, or a list of ints."""

    def check(self) -> None:
        """Called wherever a run may be cut short: between frames, layers, tokens. Reads control, so that it is answered
        within a token. Raises :class:`Cancelled` if the run is to end now."""


@contextmanager
def stage(probe: Probe, path: str) -> Iterator[None]:
    """``begin`` and ``end`` around a block; the end is told also when the block raises."""
    probe.begin(path)
    try:
        yield
    finally:
        probe.end(path)


@contextmanager
def of_sequence(sequence: int) -> Iterator[None]:
    """Around what reads the input of a batch's sequence: an input that is broken is then known by its place."""
    try:
        yield
    except BrokenInput as broken:
        broken.sequence = sequence
        raise


Input = str | Item
"""What one sequence is about: a path, or an item of a data set, which may have a prompt of its own."""


def paths_of(given: Input) -> tuple[str, ...]:
    """One path, or those of several images."""
    return given.paths if isinstance(given, Item) else (given,)


def prompt_of(given: Input, otherwise: str) -> str:
    """An item's own prompt, or the plan's."""
    return (given.prompt if isinstance(given, Item) else "") or otherwise


@dataclass(slots=True)
class RunResult:
    """What a run produced, beside its times."""

    token_ids: list[list[int]]
    """New tokens, one list a sequence."""
    text: list[str]
    frames: int | None = None
    """Frames decoded for the result, of all sequences of the batch together: one that is used more than once counts
    once. What the model was given is the fact ``pictures``."""
    prompt_tokens: int | None = None
    image_tokens: int | None = None
    vision_calls: int | None = None
    """How often the vision tower ran. More than once means that it was encoded again inside generate."""
    facts: dict[str, Any] = field(default_factory=dict)
    disturbed: str = ""
    """Why its times are no measure of the case although it went well: something was compiled meanwhile."""


class Pipeline(Protocol):
    """One model on one set of inputs. Not thread-safe; one a worker."""

    stages: tuple[StageInfo, ...]

    def load(self, probe: Probe) -> ModelFacts:
        """Imports the libraries and loads the model, in the stages of :data:`LOAD_STAGES`; returns its facts
        (``t`` is filled by the caller). Raises :class:`PipelineError`."""

    def check_case(self, case: Case) -> str:
        """Why this case cannot run (frames overflow the context), or "" if nothing is known against it."""

    def prepare(self, case: Case) -> None:
        """Sets what the case asks of the loaded model (attention, dtype, threads, …), before a run's clock starts."""

    def run(self, case: Case, inputs: tuple[Input, ...], seed: int, probe: Probe) -> RunResult:
        """One execution: sequence i of the batch is about ``inputs[i % len(inputs)]``. Raises :class:`BrokenInput`
        where one cannot be read, :class:`PipelineError`, :class:`Cancelled`, or what the libraries raise."""

    def reference(self, case: Case, inputs: tuple[Input, ...], probe: Probe) -> list[list[int]] | None:
        """Greedy token ids of the library's own plain one-shot ``generate()`` on the same case, untimed, with no hook
        of ours on the model; ``None`` where there is no such thing to check against (simulated)."""

    def detokenize(self, ids: list[int]) -> str:
        """Text of new token ids, special tokens left out: for those who look on while a run lasts."""

    def close(self) -> None:
        """Frees the model."""


def shown(path: object) -> str:
    """A file's name, fit for a message: a name may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))


def first_line(error: BaseException) -> str:
    """What an error says, as far as a reason goes: libraries add pages."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
