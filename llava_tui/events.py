"""The vocabulary that sessions are written in.

A session is a folder (see ``docs/session-format.md``). Its header is one :class:`Header`; its streams are JSON lines,
each line one of the structs below, told apart by ``type``. Times ``t`` are CLOCK_MONOTONIC nanoseconds of the machine
that measured (simulated sessions: of the simulated clock); durations are integer nanoseconds; memory is bytes.
``None`` says "not known" and is never written as 0.

Two kinds of truth (docs/architecture.md): *hints* (:class:`StageHint`, :class:`TextHint`) are written as things happen
and drive the live picture; *spans* (in :class:`RunEnd`) come from the clocks when a run has ended, and only they enter
statistics.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llava_tui.lines import Event
from llava_tui.readings import GpuAbsent, GpuDevice, GpuProcess, GpuSample, GpuState, HostSample, TelemetryEvent
from llava_tui.session_files import Command, DatasetFacts, Header, HostFacts, Item, Notes, Verb

SCHEMA: tuple[int, int] = (1, 2)
"""Major, minor. A reader refuses a newer major only; unknown types and fields of a newer minor are ignored."""

State = Literal[
    "starting",
    "loading",
    "preflight",
    "cold",
    "warming up",
    "self-test",
    "measuring",
    "cooling down",
    "profiling",
    "paused",
    "closing",
    "closed",
    "stopped",
    "failed",
]
"""The worker's states. ``closed``, ``stopped`` and ``failed`` are final: a session without one of them and without a
living lock holder was interrupted."""
FINAL_STATES: tuple[str, ...] = ("closed", "stopped", "failed")

RunKind = Literal["load", "cold", "warm-up", "cross-check", "self-test", "measured", "partial", "discarded", "profile"]
"""``measured`` runs alone enter statistics. ``load`` is a model being loaded, with stages of its own: run 0, and the
first one after a session was resumed. ``discarded`` began as measured and was taken back (:class:`CoolDown`).
``partial`` is a batch that items were too few for: they are done, and its times are those of another batch."""

Outcome = Literal["ok", "failed", "out-of-memory", "broken-input", "cancelled"]
"""``broken-input``: an item of many could not be read (:class:`BrokenItem`), and the case goes on."""


# --- events.jsonl: the worker -------------------------------------------------------------------------------------


class StateChange(Event, frozen=True, kw_only=True, omit_defaults=True, tag="state", gc=False):
    state: str
    reason: str = ""


class StageInfo(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One row of the stage tree. ``path`` is dotted ("encode.vision_tower"); a path without a dot is a step."""

    path: str
    title: str
    side: Literal["host", "device"] = "host"
    """Which clock measures it on an accelerator."""


class StageTree(Event, frozen=True, kw_only=True, omit_defaults=True, tag="stages", gc=False):
    """The steps and stages this session's runs consist of, parents before children, in order. The last one holds."""

    stages: list[StageInfo]


class Case(msgspec.Struct, frozen=True, gc=False):
    """One point of the sweep, by the values that set it apart."""

    id: str
    values: dict[str, int | float | str]


class Schedule(Event, frozen=True, kw_only=True, omit_defaults=True, tag="schedule", gc=False):
    """What is to be run in all, told again whenever it changes (more rounds, a case skipped)."""

    cases: list[Case]
    rounds: int
    runs: int
    """Runs of the whole session after loading, of every kind, those done included."""
    rule: str = ""
    """Which rule ends it, in words ("5 rounds")."""
    open: bool = False
    """Whether the rule may end it earlier: ``rounds`` and ``runs`` are then the most there can be."""


class ModelFacts(Event, frozen=True, kw_only=True, omit_defaults=True, tag="model", gc=False):
    """What was loaded; written once, when loading is done."""

    name: str
    model_type: str
    parameters: int
    dtype: str
    device: str
    device_name: str = ""
    attention: str = ""
    """Attention implementation and, where torch tells, the SDPA backends that are enabled ("sdpa: flash, math")."""
    context_length: int | None = None
    weights_bytes: int | None = None
    revision: str = ""
    digest: str = ""
    """SHA-256 over config and weight index: two sessions with equal digests ran the same model."""
    config: dict[str, Any] = {}
    """The model's own config, as loaded: what FLOPs and bytes are derived from."""
    extra: dict[str, Any] = {}
    """Facts that not every backend has: device map, threads, quantization, compile."""


class RunStart(Event, frozen=True, kw_only=True, omit_defaults=True, tag="run", gc=False):
    run: int
    """Counts up from 0 (loading) through the session."""
    kind: str
    case: str = ""
    round: int | None = None
    """From 0, of measured runs."""
    seed: int = 0
    item: str = ""
    """The input's name."""
    items: list[int] = []
    """Of many inputs: which of them, by their places in ``items.jsonl`` (in the plan's inputs where there is none), one
    a sequence of the batch."""


class StageHint(Event, frozen=True, kw_only=True, omit_defaults=True, tag="stage", gc=False):
    """A stage began: a hint, early on an accelerator, where launches run ahead of the device."""

    run: int
    stage: str


class TextHint(Event, frozen=True, kw_only=True, omit_defaults=True, tag="text", gc=False):
    """Tokens came out: how many so far (of one sequence), and what text was added. Untrusted text."""

    run: int
    tokens: int
    text: str = ""


class RunEnd(Event, frozen=True, kw_only=True, omit_defaults=True, tag="end", gc=False):
    """A run ended, with its spans: parallel lists, one entry a stage. ``starts`` and ``token_times`` count from
    ``start``. Only runs whose outcome is ``ok`` carry spans that may be counted."""

    run: int
    outcome: str
    start: int
    """``t`` at which the run's clock started, ns."""
    wall: int
    """From start to end, ns."""
    kind: str = ""
    """Where the run is of another kind than it began as (``discarded``)."""
    reason: str = ""
    stages: list[str] = []
    starts: list[int | None] = []
    durations: list[int | None] = []
    """Inclusive, ns; the sum over calls where a stage ran more than once. ``None``: could not be told apart."""
    allocated: list[int | None] = []
    """The device allocator's peak within the stage, bytes; empty on the host."""
    reserved: list[int | None] = []
    rss: int | None = None
    """The worker's resident set at the run's end, bytes."""
    rss_stages: list[int | None] = []
    """On the CPU and while loading: the worker's resident set when each stage was left, bytes."""
    rss_peaks: list[int | None] = []
    """Its peak within each stage; empty where the kernel does not let it be told apart."""
    token_ids: list[list[int]] = []
    """New tokens, one list a sequence of the batch."""
    token_times: list[int] = []
    """When each decode step's token was there, ns after ``start``; the first is the time to first token."""
    text: list[str] = []
    """One a sequence. Untrusted."""
    frames: int | None = None
    """Frames decoded for the result, of all sequences of the batch together: one that is used more than once counts
    once. What the model was given is the fact ``pictures``."""
    prompt_tokens: int | None = None
    """Of one sequence, image tokens included."""
    image_tokens: int | None = None
    facts: dict[str, Any] = {}
    """What else is worth keeping (cross-check results, how the video was sampled, simulated truth)."""


class Log(Event, frozen=True, kw_only=True, omit_defaults=True, tag="log", gc=False):
    level: Literal["debug", "info", "warning", "error"]
    text: str
    source: str = "worker"


class Answer(Event, frozen=True, kw_only=True, omit_defaults=True, tag="answer", gc=False):
    """The worker's answer to one :class:`Command`."""

    id: str
    verb: str
    accepted: bool
    text: str = ""
    author: str = ""


# --- events.jsonl: what the worker found out about the session itself ---------------------------------------------


class Preflight(Event, frozen=True, kw_only=True, omit_defaults=True, tag="preflight", gc=False):
    """What the machine was like before the first run."""

    load: float | None = None
    """1-minute load average, before anything was loaded."""
    cores: int = 0
    governor: str = ""
    gpus: list[GpuState] = []
    absent: str = ""
    """Why nothing is known of GPUs."""
    warnings: list[str] = []
    """What makes figures doubtful from the start."""


class WarmUp(Event, frozen=True, kw_only=True, omit_defaults=True, tag="warm-up", gc=False):
    """An adaptive warm-up of one case ended."""

    case: str
    runs: int
    rule: Literal["steady", "cap"]
    spread: float
    """(longest − shortest) / median of the last three."""


class SelfTest(Event, frozen=True, kw_only=True, omit_defaults=True, tag="self-test", gc=False):
    """What measuring costs: the same runs bare and instrumented, pair by pair. Bare runs still hear control and carry
    the hooks that stages are told by; what is tested is the telling: marks, tokens, hints."""

    case: str = ""
    bare: list[int] = []
    """Wall times, ns, one a pair."""
    instrumented: list[int] = []
    overhead: float | None = None
    """Median over pairs of instrumented / bare − 1."""
    low: float | None = None
    """Interval of the overhead: the smallest and the largest of the pairs."""
    high: float | None = None
    coverage: float | None = None
    """With which probability that interval holds the true median (5 pairs: 93.75 %)."""
    verdict: Literal["within", "above", "unclear", "not done"] = "not done"
    """Against 1 %: the median is not above it; all pairs are; the median is, but not all pairs."""
    reason: str = ""
    """Why it was not done."""


class CoolDown(Event, frozen=True, kw_only=True, omit_defaults=True, tag="cool-down", gc=False):
    """A run was taken back and the GPU left to rest, before the run is tried again."""

    run: int
    why: str
    attempt: int
    """From 1; the session's."""
    waited: int
    """ns."""
    temperature_c: float | None = None
    """At the end of the rest."""


class Ended(Event, frozen=True, kw_only=True, omit_defaults=True, tag="ended", gc=False):
    """Measuring ended, and which rule ended it."""

    rule: Literal["interval", "cap", "time limit", "rounds", "stopped", "no case left"]
    text: str
    rounds: int
    """Complete rounds."""
    case: str = ""
    """Where the widest interval is: its case, its step, and how far it reaches from the median (0.008: 0.8 %)."""
    step: str = ""
    width: float | None = None


class Operator(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    name: str
    time: int
    """ns: on an accelerator of the kernels it launched, else its own on the host."""
    calls: int


class StageProfile(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One stage of the profiled run; times in ns."""

    path: str
    span: int | None
    """By our clock."""
    recorded: int | None
    """By the profiler's own record of the same stage."""
    operators: int | None = None
    """Sum over all operators within it, as :class:`Operator` times them."""
    top: list[Operator] = []


class Profile(Event, frozen=True, kw_only=True, omit_defaults=True, tag="profile", gc=False):
    """One run under the profiler, outside all statistics."""

    run: int
    case: str
    device: str = ""
    """Where operators were timed: "cpu", or the accelerator's type."""
    stages: list[StageProfile] = []
    trace: str = ""
    """The trace's file in the session's folder."""
    problem: str = ""


class BrokenItem(Event, frozen=True, kw_only=True, omit_defaults=True, tag="item", gc=False):
    """An item of many inputs cannot be read: it is left out from here on, in every case."""

    item: int
    """Its place in ``items.jsonl``."""
    name: str
    reason: str
    run: int
    """In which that was found."""


class Resumed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="resumed", gc=False):
    """Another worker goes on with a session that had ended before its data set did."""

    run: int
    """The last run before."""
    wall: int
    """Unix time, ns, at ``t``."""
    left: int
    """Items that are still to be measured, in the case that has the most."""
    host: HostFacts
    versions: dict[str, str] = {}
    argv: list[str] = []
    pid: int = 0


SessionFact = BrokenItem | Resumed | Preflight | WarmUp | SelfTest | CoolDown | Ended | Profile
WorkerEvent = (
    StateChange
    | StageTree
    | Schedule
    | ModelFacts
    | RunStart
    | StageHint
    | TextHint
    | RunEnd
    | Log
    | Answer
    | SessionFact
)
AnyEvent = WorkerEvent | TelemetryEvent

__all__ = [
    "FINAL_STATES",
    "SCHEMA",
    "Answer",
    "AnyEvent",
    "BrokenItem",
    "Case",
    "Command",
    "CoolDown",
    "DatasetFacts",
    "Ended",
    "Event",
    "GpuAbsent",
    "GpuDevice",
    "GpuProcess",
    "GpuSample",
    "GpuState",
    "Header",
    "HostFacts",
    "HostSample",
    "Item",
    "Log",
    "ModelFacts",
    "Notes",
    "Operator",
    "Outcome",
    "Preflight",
    "Profile",
    "Resumed",
    "RunEnd",
    "RunKind",
    "RunStart",
    "Schedule",
    "SelfTest",
    "SessionFact",
    "StageHint",
    "StageInfo",
    "StageProfile",
    "StageTree",
    "State",
    "StateChange",
    "TelemetryEvent",
    "TextHint",
    "Verb",
    "WarmUp",
    "WorkerEvent",
]
