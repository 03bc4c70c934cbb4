"""The form of a new run without its looks: which fields there are, what is typed into each, and the plan it makes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from llava_tui import faults
from llava_tui.plan import GROUPINGS, MEDIA, NAMED, PIPELINES, SIMULATED_GPUS, Plan, PlanError, from_dict
from llava_tui.session.reader import safe_text
from llava_tui.tui.widgets.cells import plain

LINE_END = "⏎"
"""How a line end is shown, and typed, in a field of one line."""
LONGEST = 4000
"""Characters of a value that are shown to be edited; a longer one is kept as it is."""
REAL = tuple(pipeline for pipeline in PIPELINES if pipeline != "simulated")
SIMULATED = ("simulated",)
SWITCH = ("yes", "no")
_DEFAULTS = Plan()


class Field(NamedTuple):
    """One field of the plan."""

    name: str
    title: str
    help: str
    kind: Literal["text", "choice", "words"] = "text"
    """``choice``: one of ``choices`` and nothing else; ``words``: several texts, quoted as in a shell."""
    choices: tuple[str, ...] = ()
    """Of a text: what can be picked."""
    several: bool = False
    """Whether several of the choices can be picked, as a sweep axis."""
    pipelines: tuple[str, ...] = PIPELINES
    """Where it means something; elsewhere its default holds."""


_SETTINGS = {
    "dtype": "What the model computes in. Several, with commas between, are a sweep axis.",
    "attention": "Attention implementation. Several, with commas between, are a sweep axis.",
    "cache": "Of keys and values: grows with every token, or has room for the whole answer. Both are a sweep axis.",
    "vision_attention": "Of the vision tower alone; auto: as attention. Several are a sweep axis.",
    "quantization": "Of weights, by bitsandbytes or torchao. Several are a sweep axis.",
    "device_map": "How the model is spread over devices; none: all on one. Several are a sweep axis.",
    "compile": "Whether, and in which of torch.compile's modes, decoding is compiled. Several are a sweep axis.",
}

FIELDS: tuple[Field, ...] = (
    Field("pipeline", "pipeline", "What runs: a real model, or the simulator of one.", "choice", PIPELINES),
    Field("model", "model", "demo, a folder, or a Hugging Face id; enter shows what is on this machine.",
          pipelines=REAL),
    Field("weights", "weights", "Those of the checkpoint, or the architecture filled with random numbers.", "choice",
          ("pretrained", "random"), pipelines=REAL),
    Field("simulated_gpu", "GPU", "Which GPU is simulated.", "choice", SIMULATED_GPUS, pipelines=SIMULATED),
    Field("inputs", "inputs", "Videos, images, folders of frames, spaces between; demo: a synthesised clip.", "words"),
    Field("dataset", "dataset", "A JSONL or CSV file of many inputs (path, prompt, id), instead of inputs."),
    Field("media", "media", "What a video is given to the model as; auto: as its family was trained.", "choice", MEDIA,
          pipelines=("llava",)),
    Field("prompt", "prompt", f"What the model is asked; {LINE_END} is a line end."),
    Field("frames", "frames", "Sweep axis: frames a video, like 1,2,4."),
    Field("batch", "batch", "Sweep axis: videos a run, like 1,2."),
    Field("new_tokens", "new tokens", "Sweep axis: tokens to generate, like 64,128."),
    *(Field(name, name, _SETTINGS.get(name, "Several, with commas between, are a sweep axis."), "text", choices, True,
            REAL) for name, choices in NAMED.items()),
    Field("threads", "threads", "Sweep axis: threads that torch computes with on the CPU; empty: as many as it takes.",
          pipelines=REAL),
    Field("resolution", "resolution", "Sweep axis: side in pixels that frames are scaled to; empty: the processor's.",
          pipelines=("llava",)),
    Field("max_memory", "max memory", "What weights may take of each device, like cuda:0=10GiB,cpu=20GiB; empty: all.",
          pipelines=REAL),
    Field("offload", "offload to", "Of a device map: a folder for weights that fit nowhere.", pipelines=("llava",)),
    Field("processes", "processes", "Ranks that share the inputs, each with a model of its own."),
    Field("device", "device", "auto, cpu, cuda, cuda:1, …", choices=("auto", "cpu", "cuda"), pipelines=REAL),
    Field("grouping", "grouping", "EventGPT's five steps, of the same stages.", "choice", GROUPINGS,
          pipelines=("eventgpt",)),
    Field("rounds", "rounds", "Measured rounds of every case; auto: until every step's median is known well enough.",
          choices=("auto", "10", "20")),
    Field("max_rounds", "most rounds", "Of rounds auto."),
    Field("delta", "precision", "Of rounds auto: how far a median's interval may reach; 0.01 is ±1 %."),
    Field("time_limit_s", "time limit", "No round begins after that many seconds of measuring; empty: none."),
    Field("warmup", "warm-up", "Warm-up runs a case, kept out of the statistics; auto: until three agree within 2 %.",
          choices=("auto", "1", "3")),
    Field("self_test", "self-test", "Find out first what measuring costs: five pairs of runs.", "choice", SWITCH,
          pipelines=REAL),
    Field("cool_down", "cool-down", "Take runs back in which a GPU throttled or got 5 °C warmer than in round 1.",
          "choice", SWITCH),
    Field("profile", "profile", "One more run at the end, under torch's profiler.", "choice", SWITCH, pipelines=REAL),
    Field("seed", "seed", "Of the rounds' order, of sampling, of a simulation's noise."),
    Field("name", "name", "What to call the session."),
    Field("tags", "tags", "Spaces between.", "words"),
    Field("sample_hz", "sample rate", "Telemetry samples a second."),
    Field("time_scale", "time scale", "Real seconds a simulated second; 0: as fast as possible.", pipelines=SIMULATED),
    Field("faults", "faults", "What goes wrong on purpose, spaces between: drift=2% spikes=5%,size=40% hang,run=7",
          "words", pipelines=SIMULATED),
)  # fmt: skip
"""In the order that they are shown. To show one more: a line here."""


class Form:
    """What is typed into each field. A value that a plan brought stays what it was until its text is changed: a text
    of one line cannot show everything."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """Filled with the defaults, and with ``values`` as a session's header keeps a plan; they may be anything."""
        self.texts: dict[str, str] = {}
        """By field; changed by :meth:`type`."""
        self._kept: dict[str, Any] = {}
        """Values whose text was never changed."""
        self.left_out: list[str] = []
        """Fields of ``values`` that no form has: a newer version's."""
        given = dict(values or {})
        for field in FIELDS:
            value = given.pop(field.name, getattr(_DEFAULTS, field.name))
            self.texts[field.name] = shown(field, value)
            self._kept[field.name] = value
        self.left_out = [plain(safe_text(str(name), 40)) for name in given]

    def type(self, name: str, text: str) -> bool:
        """Takes another text into a field; whether it is another."""
        if self.texts[name] == text:
            return False
        before = self._defaults()
        self.texts[name] = text
        self._kept.pop(name, None)
        after = self._defaults()
        for field in FIELDS if name == "pipeline" else ():
            default = getattr(after, field.name)
            if field.name in self._kept and self._kept[field.name] == getattr(before, field.name) != default:
                self._kept[field.name], self.texts[field.name] = default, shown(field, default)
        return True

    @property
    def pipeline(self) -> str:
        """Which fields there are depends on it."""
        return self.texts["pipeline"]

    def _defaults(self) -> Plan:
        return Plan(pipeline=self.pipeline).defaults()

    def fields(self) -> list[Field]:
        """Those that mean something for the pipeline."""
        return [field for field in FIELDS if self.pipeline in field.pipelines or self.pipeline not in PIPELINES]

    def plan(self) -> Plan:
        """The plan that the form says. Raises :class:`PlanError`, which begins with the field's name."""
        values: dict[str, Any] = {}
        defaults = self._defaults()
        for field in self.fields():
            name = field.name
            value = self._kept[name] if name in self._kept else _value(field, self.texts[name])
            if value != getattr(defaults, name):
                values[name] = value
        try:
            return from_dict(values)
        except (TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"the plan cannot be: {safe_text(str(error), 200)}") from None

    def wrong(self, error: PlanError) -> str:
        """The field that an error is about; "" where it does not say."""
        said = str(error)
        heads = [*said.partition(":")[0].split(","), *said.rpartition("$.")[2].split("`")[:1]]
        words = [head.strip().split("[")[0] for head in heads]
        also = {"input": "inputs"}
        here = {field.name for field in self.fields()}
        return next((word for word in (also.get(word, word) for word in words) if word in here), "")


def shown(field: Field, value: Any) -> str:
    """A plan's value as it is typed: without what a terminal would obey, and in one line."""
    if isinstance(value, bool):
        text = SWITCH[not value]
    elif value is None:
        text = ""
    elif isinstance(value, (list, tuple)):
        texts = [_fault(one) if field.name == "faults" else str(one) for one in value]
        text = " ".join(map(shlex.quote, texts)) if field.kind == "words" else ",".join(texts)
    elif field.kind == "words":
        text = shlex.quote(str(value))
    elif isinstance(value, float):
        text = f"{value:.15g}"
    else:
        text = str(value)
    return plain(safe_text(text).replace("\n", LINE_END)[:LONGEST])


def _fault(value: Any) -> str:
    if isinstance(value, faults.Fault):
        return faults.as_text(value)
    try:
        return faults.as_text(msgspec.convert(value, faults.AnyFault))
    except (msgspec.ValidationError, TypeError):
        return str(value)


def _value(field: Field, text: str) -> Any:
    """What was typed, as :func:`~llava_tui.plan.from_dict` takes it."""
    default = getattr(_DEFAULTS, field.name)
    if field.name == "prompt":
        return text.replace(LINE_END, "\n")
    text = text.strip()
    if field.kind == "words":
        try:
            words = shlex.split(text)
        except ValueError:
            raise PlanError(f"{field.name}: a quotation mark is not closed") from None
        return [os.path.expanduser(word) for word in words] if field.name == "inputs" else words  # noqa: PTH111
    if not text:
        return default if field.name != "model" else ""
    if isinstance(default, bool):
        return text == SWITCH[0]
    if isinstance(default, float) or field.name == "time_limit_s":
        return _number(field.name, text, float)
    if isinstance(default, int):
        return _number(field.name, text, int)
    return text


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise PlanError(f"{name}: {text!r} is no {'whole ' if kind is int else ''}number") from None
