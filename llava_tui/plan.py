"""What to run: a frozen, validated plan, and the cases and rounds that it expands to.

A plan is written as TOML by people, travels as JSON to the worker, and is kept whole in the session's header, so that
the same plan can be run again.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from llava_tui.faults import AnyFault, FaultError, parse

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
QUANTIZATIONS: tuple[str, ...] = (
    "none",
    "bnb-8bit",
    "bnb-4bit",
    "torchao-int8",
    "torchao-int8-dynamic",
    "torchao-int4",
)
"""Of the language model's weights, as they are loaded: by bitsandbytes (LLM.int8(), NF4) or by torchao (int8 and int4
weights; ``dynamic``: int8 activations too)."""
DEVICE_MAPS: tuple[str, ...] = ("none", "auto", "balanced", "balanced_low_0", "sequential")
"""``none``: the whole model on ``device``; else how accelerate spreads it. Or a device by its name."""
MEDIA: tuple[str, ...] = ("auto", "image", "video")
SIMULATED_GPUS: tuple[str, ...] = ("a100", "h100", "rtx-4090", "rtx-3090", "t4")
AXES: tuple[str, ...] = ("frames", "batch", "new_tokens")
LEAST: dict[str, int] = {"frames": 0, "batch": 1, "new_tokens": 1}
MOST: dict[str, int] = {"frames": 4096, "batch": 1024, "new_tokens": 65536}
NAMED: dict[str, tuple[str, ...]] = {
    "dtype": DTYPES,
    "attention": ATTENTIONS,
    "vision_attention": ATTENTIONS,
    "cache": CACHES,
    "compile": COMPILES,
    "quantization": QUANTIZATIONS,
    "device_map": DEVICE_MAPS,
}
"""Settings whose values have names, and which."""
NUMBERED: dict[str, tuple[int, int]] = {"threads": (1, 1024), "resolution": (8, 16384)}
"""Settings whose values are numbers, and their range; none given: left as it is."""
SETTINGS: tuple[str, ...] = (
    *("attention", "dtype", "threads", "cache", "compile"),
    *("vision_attention", "resolution", "quantization", "device_map"),
)
"""What cases may differ in beside :data:`AXES`, as :class:`Case` has them. :class:`Load` names those that a model is
loaded with; the others are set on a loaded model before a run's clock starts."""
DEVICE = r"auto|cpu|meta|(cuda|mps|xpu|npu|hpu|mtia|privateuseone)(:\d+)?"
"""What torch can compute on, and ``meta``, which costs nothing."""
DEMO = "demo"
"""The model that is built on this machine and needs no download; as an input, the clip that is synthesised for it."""


class PlanError(ValueError):
    """A plan that cannot be run: the message names the field and says how to mend it."""


class Load(NamedTuple):
    """What a model is loaded as. Cases that differ in it need a model each."""

    quantization: str
    device_map: str
    dtype: str

    def __str__(self) -> str:
        placed = f"device map {self.device_map}" if self.device_map != "none" else ""
        said = filter(None, [self.dtype.removeprefix("auto"), self.quantization.removeprefix("none"), placed])
        return ", ".join(said) or "as it is"


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
    vision_attention: str = ""
    resolution: int = 0
    quantization: str = ""
    device_map: str = ""

    @property
    def id(self) -> str:
        """Short, unique within any plan, readable: ``f4-b1-n64``, ``f4-b1-n64-sdpa``, ``f4-b1-n64-static-compiled``."""
        mode = {"": "", "off": "uncompiled", "on": "compiled"}.get(self.compile, f"compiled-{self.compile}")
        settings = [
            *(self.attention, self.dtype, f"t{self.threads}" if self.threads else "", self.cache, mode),
            f"vision-{self.vision_attention}" if self.vision_attention else "",
            f"r{self.resolution}" if self.resolution else "",
            "unquantized" if self.quantization == "none" else self.quantization,
            {"": "", "none": "one-device"}.get(self.device_map, f"map-{self.device_map}"),
        ]
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
    dataset: str = ""
    """A JSONL or CSV file of many inputs, with a path, a prompt and an id each, instead of ``inputs``."""
    media: str = "auto"
    """What a video is given to the model as: ``video`` or ``image`` (each frame one); ``auto``: as the family was
    trained with."""
    prompt: str = "Describe what happens in this video."
    frames: tuple[int, ...] = (4,)
    """0: text only. Of EventGPT: slices of the event stream, five unless said otherwise."""
    batch: tuple[int, ...] = (1,)
    new_tokens: tuple[int, ...] = (64,)
    dtype: str = "auto"
    """Or several, like ``float32,bfloat16``: a sweep axis. The model is loaded in the first."""
    attention: str = "auto"
    """Or several, like ``eager,sdpa``, as for ``dtype``."""
    vision_attention: str = "auto"
    """Of the vision tower; ``auto``: the same as ``attention``. Or several, as for ``dtype``."""
    resolution: tuple[int, ...] = ()
    """Sweep axis: the side, in pixels, that frames are scaled to before the vision tower; empty: the processor's own.
    A tower of a fixed size takes no other."""
    threads: tuple[int, ...] = ()
    """Sweep axis: threads that torch computes with on the CPU; empty: as many as it takes by itself."""
    cache: str = "auto"
    """Of keys and values: ``dynamic`` grows with every token, ``static`` has room for the whole answer from the start.
    ``auto``: dynamic, but static where decoding is compiled. Or both, as for ``dtype``."""
    compile: str = "off"
    """Whether, and in which of torch.compile's modes, a step of decoding is compiled; or several, as for ``dtype``.
    Needs the static cache: generate() compiles with no other, for a dynamic one is never of the same size twice."""
    quantization: str = "none"
    """One of :data:`QUANTIZATIONS`, or several, as for ``dtype``."""
    device_map: str = "none"
    """One of :data:`DEVICE_MAPS` or a device, or several, as for ``dtype``."""
    max_memory: str = ""
    """Of weights, by device, like ``cuda:0=10GiB,cpu=20GiB``: what is beyond goes to the next one, or to ``offload``.
    Without a device map: what the weights of all models that are loaded at once may take."""
    offload: str = ""
    """A folder for the weights that ``max_memory`` leaves no room for; they are read from it whenever they are used."""
    processes: int = 1
    """Ranks that share the inputs, each with a model of its own."""
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
        settings = {name: _several(getattr(self, name)) for name in NAMED} | {
            name: getattr(self, name) or (0,) for name in NUMBERED
        }
        axes = {name: getattr(self, name) for name in AXES} | {name: settings[name] for name in SETTINGS}
        cases = [Case(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
        if len(settings["compile"]) > 1 and self.cache == "auto":  # Then the two differ in both, and say so.
            cases = [msgspec.structs.replace(case, cache=self.cache_of(case)) for case in cases]
        return tuple(case for case in cases if self.compile_of(case) == "off" or self.cache_of(case) == "static")

    def cache_of(self, case: Case) -> str:
        """The cache that ``case`` decodes with: dynamic or static."""
        named = case.cache or self.cache
        return named if named != "auto" else "dynamic" if self.compile_of(case) == "off" else "static"

    def compile_of(self, case: Case) -> str:
        """How ``case`` compiles a step of decoding: one of :data:`COMPILES`."""
        return case.compile or self.compile

    def load_of(self, case: Case) -> Load:
        """What the model of ``case`` is loaded as, where the case does not say the first that the plan names; the
        dtype may be ``auto``."""
        return Load(*(getattr(case, name) or getattr(self, name).split(",")[0] for name in Load._fields))

    def loads(self) -> tuple[Load, ...]:
        """What the plan's cases need, in their order, each once."""
        return tuple(dict.fromkeys(self.load_of(case) for case in self.cases()))

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
        from llava_tui.plan_checks import check  # it knows what a plan is

        check(self)
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
    for field in (*AXES, *NUMBERED):
        if field in values:
            values[field] = _axis(field, values[field])
    for field in NAMED:
        value = values.get(field)
        if field == "compile":  # TOML has a word for on and off.
            value = [_on_or_off(each) for each in (value if isinstance(value, (list, tuple)) else [value])]
        if isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
            value = ",".join(value)
        if isinstance(value, str):
            values[field] = value.replace(" ", "")
    if isinstance(values.get("max_memory"), dict):  # as a table in TOML
        values["max_memory"] = ",".join(f"{device}={limit}" for device, limit in values["max_memory"].items())
    if isinstance(values.get("max_memory"), str):
        values["max_memory"] = values["max_memory"].replace(" ", "")
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
        from llava_tui.mistyped import in_words

        raise PlanError(in_words(str(error))) from None


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


def expanded(path: str | Path) -> Path:
    """With ``~`` as the folder that it stands for; as it is where nobody is called so, for pathlib's own raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


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


def _toml(value: Any) -> str:
    """TOML's basic strings escape as JSON's do, but for DEL; numbers and arrays are written alike, tables are not."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
