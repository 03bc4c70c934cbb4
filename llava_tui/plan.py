"""What to run: a frozen, validated plan, and the cases and rounds that it expands to.

A plan is written as TOML by people, travels as JSON to the worker, and is kept whole in the session's header, so that
the same plan can be run again.
"""

from __future__ import annotations

import itertools
import random
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from llava_tui.faults import AnyFault, FaultError, parse, problem

PIPELINES: tuple[str, ...] = ("llava", "eventgpt", "simulated")
GROUPINGS: tuple[str, ...] = ("pipeline", "5stage")
"""How EventGPT's stages are grouped into five steps."""
EVENT_SLICES = 5
"""Slices that EventGPT cuts a stream into, where no plan says otherwise."""
DTYPES: tuple[str, ...] = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS: tuple[str, ...] = ("auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
CACHES: tuple[str, ...] = ("auto", "dynamic", "static")
COMPILES: tuple[str, ...] = ("off", "on", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""``on`` is what transformers' generate() takes by itself; the others are modes of torch.compile."""
SIMULATED_GPUS: tuple[str, ...] = ("a100", "h100", "rtx-4090", "rtx-3090", "t4")
AXES: tuple[str, ...] = ("frames", "batch", "new_tokens")
NAMED: dict[str, tuple[str, ...]] = {"dtype": DTYPES, "attention": ATTENTIONS, "cache": CACHES, "compile": COMPILES}
"""Settings whose values have names, and which."""
SETTINGS: tuple[str, ...] = ("attention", "dtype", "threads", "cache", "compile")
"""What cases may differ in beside :data:`AXES`: set on the loaded model before a run's clock starts."""
_DEVICE = r"auto|cpu|meta|(cuda|mps|xpu|npu|hpu|mtia|privateuseone)(:\d+)?"
"""What torch can compute on, and ``meta``, which costs nothing."""
DEMO = "demo"
"""The model that is built on this machine and needs no download; as an input, the clip that is synthesised for it."""


class PlanError(ValueError):
    """A plan that cannot be run: the message names the field and says how to mend it."""


class Case(msgspec.Struct, frozen=True):
    """One point of the sweep."""

    frames: int
    batch: int
    new_tokens: int
    attention: str = ""
    """Empty, as the other settings: as the model was loaded."""
    dtype: str = ""
    threads: int = 0
    cache: str = ""
    compile: str = ""

    @property
    def id(self) -> str:
        """Short, unique within any plan, readable: ``f4-b1-n64``, ``f4-b1-n64-sdpa``, ``f4-b1-n64-static-compiled``."""
        mode = {"": "", "off": "uncompiled", "on": "compiled"}.get(self.compile, f"compiled-{self.compile}")
        settings = [self.attention, self.dtype, f"t{self.threads}" if self.threads else "", self.cache, mode]
        return "-".join([f"f{self.frames}-b{self.batch}-n{self.new_tokens}", *filter(None, settings)])

    def values(self) -> dict[str, int | float | str]:
        """Its place on every axis; of the settings those that it has."""
        settings = {name: value for name in SETTINGS if (value := getattr(self, name))}
        return {"frames": self.frames, "batch": self.batch, "new_tokens": self.new_tokens, **settings}


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a run needs to know. Every field has a default that runs."""

    pipeline: str = "llava"
    model: str = DEMO
    """A folder, an id of the Hugging Face hub, ``demo``; for ``simulated`` the architecture's name."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """``random``: the architecture of a preset, or of a folder with only a config, filled with random numbers."""
    inputs: tuple[str, ...] = (DEMO,)
    """Videos, images or folders of frames. One run's batch takes ``batch`` of them, round-robin."""
    prompt: str = "Describe what happens in this video."
    frames: tuple[int, ...] = (4,)
    """Of EventGPT: slices of the event stream, five unless said otherwise."""
    batch: tuple[int, ...] = (1,)
    new_tokens: tuple[int, ...] = (64,)
    dtype: str = "auto"
    """Or several, like ``float32,bfloat16``: a sweep axis. The model is loaded in the first."""
    attention: str = "auto"
    """Or several, like ``eager,sdpa``, as for ``dtype``."""
    threads: tuple[int, ...] = ()
    """Sweep axis: threads that torch computes with on the CPU; empty: as many as it takes by itself."""
    cache: str = "auto"
    """Of keys and values: ``dynamic`` grows with every token, ``static`` has room for the whole answer from the start.
    ``auto``: dynamic, but static where decoding is compiled. Or both, as for ``dtype``."""
    compile: str = "off"
    """Whether, and in which of torch.compile's modes, a step of decoding is compiled; or several, as for ``dtype``.
    Needs the static cache: generate() compiles with no other, for a dynamic one is never of the same size twice."""
    device: str = "auto"
    """``auto`` (CUDA or another accelerator where there is one, else cpu), or a torch device string."""
    rounds: int | Literal["auto"] = "auto"
    """``auto``: until the median of every step is known to within ``delta``, 10 to ``max_rounds`` of them."""
    max_rounds: int = 50
    """Of ``rounds = "auto"``."""
    delta: float = 0.01
    """``rounds = "auto"``: how far a step's 95 % interval may reach from its median; twice that under 10 ms."""
    time_limit_s: float | None = None
    """No round begins after this many seconds of measuring, whatever ``rounds`` says."""
    warmup: int | Literal["auto"] = "auto"
    """Runs of each case after the cold start, kept and marked, out of the statistics. ``auto``: until the last three
    agree within 2 %, 3 to 20 of them."""
    self_test: bool = True
    """Whether to find out first what measuring costs: five pairs of a bare and an instrumented run."""
    cool_down: bool = True
    """Whether to take a run back that a GPU throttled in or got 5 °C warmer than in round 1, let it rest and try again;
    three times a session at most."""
    profile: bool = False
    """One more run at the end, under torch's profiler and outside all statistics."""
    seed: int = 0
    name: str = ""
    tags: tuple[str, ...] = ()
    sample_hz: float = 10.0
    """Telemetry samples a second."""
    simulated_gpu: str = "h100"
    time_scale: float = 1.0
    """Simulated pipeline: real seconds a simulated second; 0 is as fast as possible."""
    faults: tuple[AnyFault, ...] = ()
    """Simulated pipeline: what goes wrong on purpose."""
    grouping: str = "pipeline"
    """EventGPT's five steps: ``pipeline`` (read and render, preprocess, encode, aggregate and merge, generate) or
    ``5stage`` (load, preprocess, vision encoding, prefill, decode), of the same stages."""

    def defaults(self) -> Plan:
        """A plan of this pipeline of which nothing else was said."""
        return Plan(frames=(EVENT_SLICES,)) if self.pipeline == "eventgpt" else Plan()

    # --- expansion -------------------------------------------------------------------------------------------------

    def cases(self) -> tuple[Case, ...]:
        """Every point of the sweep, in the order the axes were given."""
        cache, compile_ = _several(self.cache), _several(self.compile)
        settings = (_several(self.attention), _several(self.dtype), self.threads or (0,), cache, compile_)
        cases = [Case(*values) for values in itertools.product(self.frames, self.batch, self.new_tokens, *settings)]
        if len(compile_) > 1 and self.cache == "auto":  # Then the two differ in both, and say so.
            cases = [msgspec.structs.replace(case, cache=self.cache_of(case)) for case in cases]
        return tuple(case for case in cases if self.compile_of(case) == "off" or self.cache_of(case) == "static")

    def cache_of(self, case: Case) -> str:
        """The cache that ``case`` decodes with: dynamic or static."""
        named = case.cache or self.cache
        return named if named != "auto" else "dynamic" if self.compile_of(case) == "off" else "static"

    def compile_of(self, case: Case) -> str:
        """How ``case`` compiles a step of decoding: one of :data:`COMPILES`."""
        return case.compile or self.compile

    def round_order(self, round_: int) -> tuple[Case, ...]:
        """Every case once, in an order that depends on the seed and the round alone."""
        cases = list(self.cases())
        random.Random(f"{self.seed}/{round_}").shuffle(cases)
        return tuple(cases)

    # --- validation ------------------------------------------------------------------------------------------------

    def validated(self) -> Plan:
        """This plan, if it can be run.

        Raises :class:`PlanError` naming the first field that cannot.
        """
        _choice("pipeline", self.pipeline, PIPELINES)
        _choice("grouping", self.grouping, GROUPINGS)
        if self.grouping != "pipeline" and self.pipeline != "eventgpt":
            raise PlanError("grouping: only EventGPT has several; add --pipeline eventgpt")
        if self.weights == "random" and self.pipeline == "eventgpt":
            raise PlanError("weights: EventGPT is built with random weights as --model demo; use pretrained")
        for setting, choices in NAMED.items():
            named = getattr(self, setting).split(",")
            for value in named:
                _choice(setting, value, choices if len(named) == 1 else tuple(c for c in choices if c != "auto"))
            if len(set(named)) != len(named):
                raise PlanError(f"{setting}: {_join(tuple(named))} names a value twice")
        if len(set(self.threads)) != len(self.threads) or not all(1 <= value <= 1024 for value in self.threads):
            raise PlanError(f"threads: {_join(self.threads)}: give different numbers from 1 to 1024")
        if "dynamic" in self.cache.split(",") and "off" not in self.compile.split(","):
            raise PlanError("cache: nothing can be compiled for a dynamic cache, it grows with each token; use static")
        changed = "," in self.dtype + self.attention or self.threads or self.cache != "auto" or self.compile != "off"
        if self.pipeline == "simulated" and changed:
            raise PlanError(f"{', '.join(SETTINGS)}: a simulation has none to change; leave them out")
        _choice("simulated_gpu", self.simulated_gpu, SIMULATED_GPUS)
        for axis, least, most in zip(AXES, (1, 1, 1), (4096, 1024, 65536), strict=True):
            values: tuple[int, ...] = getattr(self, axis)
            if not values:
                raise PlanError(f"{axis}: no value given; give at least one, like {axis} = [4]")
            for value in values:
                if not least <= value <= most:
                    raise PlanError(f"{axis}: {value} is outside {least}…{most}")
            if len(set(values)) != len(values):
                raise PlanError(f"{axis}: {_join(values)} names a value twice; each case runs once a round anyway")
        if self.rounds != "auto" and self.rounds < 1:
            raise PlanError(f"rounds: {self.rounds} measures nothing; give 1 or more, or auto")
        if not 10 <= self.max_rounds <= 100_000:
            raise PlanError(f"max_rounds: {self.max_rounds} is outside 10…100000; give a smaller number as rounds")
        if not 0.0001 <= self.delta <= 0.5:
            raise PlanError(f"delta: {self.delta:g} is outside 0.0001…0.5; 0.01 is ±1 %")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise PlanError(f"time_limit_s: {self.time_limit_s:g} leaves no time to measure; give seconds above 0")
        if self.warmup != "auto" and self.warmup < 0:
            raise PlanError(f"warmup: {self.warmup} is below 0; 0 means no warm-up runs")
        if self.profile and self.pipeline == "simulated":
            raise PlanError("profile: a simulation has no operators to look at; leave it out")
        if not 0.1 <= self.sample_hz <= 100:
            raise PlanError(f"sample_hz: {self.sample_hz:g} is outside 0.1…100 Hz; NVML itself refreshes at 1 to 6 Hz")
        if not (0 <= self.time_scale <= 1000):
            raise PlanError(f"time_scale: {self.time_scale:g} is outside 0…1000; 1 is real time, 0 as fast as possible")
        if self.faults and self.pipeline != "simulated":
            raise PlanError("faults: only a simulation goes wrong on purpose; add --pipeline simulated")
        for fault in self.faults:
            if why := problem(fault):
                raise PlanError(f"faults: {why}")
        if not re.fullmatch(_DEVICE, self.device):
            raise PlanError(f"device: {self.device!r} names none; give auto, cpu, cuda, cuda:1, mps or xpu")
        if not self.inputs:
            raise PlanError("inputs: nothing to run on; give --input PATH")
        if not self.model:
            raise PlanError("model: empty; give a folder, a hub id, or 'demo'")
        if self.weights == "random" and self.pipeline == "simulated":
            raise PlanError("weights: a simulation has none; leave it out")
        return self

    def slug(self) -> str:
        """The model's name as a part of a session's id: lower case, letters, digits, dots and dashes."""
        if self.pipeline == "simulated" and self.model == DEMO:  # what is simulated is another model
            return self.pipeline
        last = self.model.rstrip("/").rsplit("/", 1)[-1].lower()
        return re.sub(r"[^a-z0-9.]+", "-", last).strip("-.")[:40] or "run"

    # --- in and out ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self))

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    def to_toml(self) -> str:
        """The plan as a file that ``llava-tui run`` takes; fields at their default are left out."""
        defaults = self.defaults()
        lines = []
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if value != getattr(defaults, field):
                lines.append(f"{field} = {_toml(value)}")
        return "\n".join(lines) + "\n"


def from_dict(values: dict[str, Any]) -> Plan:
    """A validated plan. Raises :class:`PlanError`."""
    values = dict(values)
    if values.get("pipeline") == "eventgpt":
        values.setdefault("frames", [EVENT_SLICES])
    for field in ("inputs", "tags", "faults"):
        if isinstance(values.get(field), str):
            values[field] = [values[field]]
    for field in AXES:
        if field in values:
            values[field] = _axis(field, values[field])
    if "threads" in values:
        values["threads"] = _axis("threads", values["threads"])
    for field in NAMED:
        value = values.get(field)
        if field == "compile":  # TOML has a word for on and off.
            value = [_on_or_off(each) for each in (value if isinstance(value, (list, tuple)) else [value])]
        if isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
            value = ",".join(value)
        if isinstance(value, str):
            values[field] = value.replace(" ", "")
    for field in ("rounds", "warmup"):
        if field in values:
            values[field] = _count(field, values[field])
    if isinstance(values.get("faults"), (list, tuple)):
        try:
            values["faults"] = [parse(fault) if isinstance(fault, str) else fault for fault in values["faults"]]
        except FaultError as error:
            raise PlanError(f"faults: {error}") from None
    unknown = set(values) - set(Plan.__struct_fields__)
    if unknown:
        import difflib

        name = sorted(unknown)[0]
        close = difflib.get_close_matches(name, Plan.__struct_fields__, n=1)
        raise PlanError(f"{name}: no such field in a plan" + (f"; did you mean {close[0]}?" if close else ""))
    try:
        return msgspec.convert(values, Plan).validated()
    except msgspec.ValidationError as error:
        raise PlanError(str(error)) from None


def from_json(data: bytes) -> Plan:
    """A validated plan from :meth:`Plan.to_json`. Raises :class:`PlanError`."""
    try:
        values = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise PlanError(f"not a plan: {error}") from None
    if not isinstance(values, dict):
        raise PlanError("not a plan: a table of fields is needed")
    return from_dict(values)


def from_toml(text: str) -> Plan:
    """A validated plan from a plan file's text. Raises :class:`PlanError`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"not a TOML file: {error}") from None
    return from_dict(values)


def read_file(path: Path) -> dict[str, Any]:
    """The fields of a plan file, not yet validated. Raises :class:`PlanError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror or error}; give a plan as a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: not a TOML file: {error}") from None


def _axis(field: str, value: Any) -> Any:
    """A sweep axis: a number, a list of them, or text like ``1,2,4`` as a command line gives it."""
    if isinstance(value, str):
        try:
            return [int(part) for part in value.split(",")]
        except ValueError:
            raise PlanError(f"{field}: {value!r} is no list of whole numbers; write it like 1,2,4") from None
    return value if isinstance(value, (list, tuple)) else [value]


def _on_or_off(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _several(values: str) -> tuple[str, ...]:
    """What a setting gives cases to differ in: nothing where it has one value."""
    return tuple(values.split(",")) if "," in values else ("",)


def _count(field: str, value: Any) -> Any:
    """A number of runs, or ``auto``; text as a command line gives it."""
    if not isinstance(value, str) or value == "auto":
        return value
    try:
        return int(value)
    except ValueError:
        raise PlanError(f"{field}: {value!r} is neither a whole number nor auto") from None


def _choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise PlanError(f"{field}: {value!r} is not one of {', '.join(choices)}")


def _join(values: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _toml(value: Any) -> str:
    """TOML's basic strings escape as JSON's do, but for DEL; numbers and arrays are written alike, tables are not."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
