"""The fields of a new run's form: what each is called, what it is for, where it means something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from llava_tui.plan import (
    ATTENTIONS,
    CACHES,
    COMPILES,
    DEVICE_MAPS,
    DTYPES,
    GROUPINGS,
    MEDIA,
    PIPELINES,
    QUANTIZATIONS,
    SIMULATED_GPUS,
)

LINE_END = "⏎"
"""How a line end is shown, and typed, in a field of one line."""
REAL = tuple(pipeline for pipeline in PIPELINES if pipeline != "simulated")
LLAVA, EVENTGPT, SIMULATED = ("llava",), ("eventgpt",), ("simulated",)
SWITCH = ("yes", "no")


def _always(texts: Mapping[str, str]) -> bool:
    return True


def _where(name: str, *values: str) -> Callable[[Mapping[str, str]], bool]:
    """Where the field ``name`` says one of these."""
    return lambda texts: texts[name].strip() in values


def _unless(name: str, *values: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda texts: texts[name].strip() not in values


def _by_precision(texts: Mapping[str, str]) -> bool:
    """Whether rounds go on until figures are known well enough; of a data set they are passes over it."""
    return texts["rounds"].strip() in ("auto", "") and not texts["dataset"].strip()


class Field(NamedTuple):
    """One field of the plan."""

    group: str
    """The heading that it stands under."""
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
    when: Callable[[Mapping[str, str]], bool] = _always
    """Whether it means something beside what the other fields say, by name."""


def _axis(name: str, title: str, help: str, choices: tuple[str, ...] = (), pipelines: tuple[str, ...] = REAL) -> Field:
    """A setting that cases may differ in."""
    words = f"{help} Several, with commas between, are a sweep axis."
    return Field("settings", name, title, words, "text", choices, bool(choices), pipelines)


FIELDS: tuple[Field, ...] = (
    Field("model", "pipeline", "pipeline", "What runs: a real model, or the simulator of one.", "choice", PIPELINES),
    Field("model", "model", "model", "demo, a folder, or a Hugging Face id; enter shows what is on this machine.",
          pipelines=REAL),
    Field("model", "weights", "weights", "Those of the checkpoint, or the architecture filled with random numbers.",
          "choice", ("pretrained", "random"), pipelines=REAL),
    Field("model", "grouping", "grouping", "EventGPT's five steps, of the same stages.", "choice", GROUPINGS,
          pipelines=EVENTGPT),
    Field("model", "simulated_gpu", "GPU", "Which GPU is simulated.", "choice", SIMULATED_GPUS, pipelines=SIMULATED),
    Field("input", "inputs", "inputs", "Videos, images, folders of them, spaces between; demo: a synthesised clip.",
          "words", when=_where("dataset", "")),
    Field("input", "dataset", "data set", "A JSONL or CSV file of many inputs (path, prompt, id), instead of inputs."),
    Field("input", "media", "media", "What a video is given to the model as; auto: as its family was trained.",
          "choice", MEDIA, pipelines=LLAVA),
    Field("input", "prompt", "prompt", f"What the model is asked; {LINE_END} is a line end. Of a data set: where an "
          "item has none."),
    Field("cases", "frames", "frames", "Sweep axis: frames a video, like 1,2,4; slices of an event stream. 0: text "
          "only."),
    Field("cases", "batch", "batch", "Sweep axis: videos a run, like 1,2."),
    Field("cases", "new_tokens", "new tokens", "Sweep axis: tokens to generate, like 64,128."),
    _axis("dtype", "dtype", "What the model computes in.", DTYPES),
    _axis("attention", "attention", "Attention implementation.", ATTENTIONS),
    _axis("vision_attention", "of the tower", "Attention of the vision tower; auto: the same.", ATTENTIONS, LLAVA),
    _axis("resolution", "resolution", "Side in pixels that frames are scaled to; empty: the processor's.", (), LLAVA),
    _axis("cache", "KV cache", "dynamic grows with every token, static has room for the whole answer.", CACHES),
    _axis("compile", "compile", "Whether, and in which of torch.compile's modes, decoding is compiled.", COMPILES),
    _axis("quantization", "quantization", "Of the language model's weights, by bitsandbytes or torchao.",
          QUANTIZATIONS, LLAVA),
    _axis("threads", "threads", "Threads that torch computes with on the CPU; empty: as many as it takes."),
    Field("devices", "device", "device", "auto, cpu, cuda, cuda:1, …", choices=("auto", "cpu", "cuda"), pipelines=REAL),
    Field("devices", "device_map", "device map", "How the model is spread over devices; none: all on one. Several are "
          "a sweep axis.", "text", DEVICE_MAPS, True, LLAVA),
    Field("devices", "offload", "offload to", "A folder for weights that fit on no device.", pipelines=LLAVA,
          when=_unless("device_map", "", "none")),
    Field("devices", "max_memory", "max memory", "What weights may take of each device, like cuda:0=10GiB,cpu=20GiB; "
          "empty: all there is.", pipelines=REAL),
    Field("devices", "processes", "processes", "Ranks that share the inputs, each with a model of its own."),
    Field("measuring", "rounds", "rounds", "Measured rounds of every case; auto: until every step's median is known "
          "well enough. Of many inputs: passes over them, auto is one.", choices=("auto", "10", "20")),
    Field("measuring", "max_rounds", "most rounds", "Of rounds auto.", when=_by_precision),
    Field("measuring", "delta", "precision", "Of rounds auto: how far a median's interval may reach; 0.01 is ±1 %.",
          when=_by_precision),
    Field("measuring", "time_limit_s", "time limit", "No round begins after that many seconds of measuring; empty: "
          "none."),
    Field("measuring", "warmup", "warm-up", "Warm-up runs a case, kept out of the statistics; auto: until three agree "
          "within 2 %.", choices=("auto", "1", "3")),
    Field("measuring", "self_test", "self-test", "Find out first what measuring costs: five pairs of runs.", "choice",
          SWITCH, pipelines=REAL),
    Field("measuring", "cool_down", "cool-down", "Take runs back in which a GPU throttled or got 5 °C warmer than in "
          "round 1.", "choice", SWITCH),
    Field("measuring", "profile", "profile", "One more run at the end, under torch's profiler.", "choice", SWITCH,
          pipelines=REAL),
    Field("measuring", "seed", "seed", "Of the rounds' order, of sampling, of a simulation's noise."),
    Field("measuring", "sample_hz", "sample rate", "Telemetry samples a second."),
    Field("simulation", "time_scale", "time scale", "Real seconds a simulated second; 0: as fast as possible.",
          pipelines=SIMULATED),
    Field("simulation", "faults", "faults", "What goes wrong on purpose, spaces between: drift=2% spikes=5%,size=40% "
          "hang,run=7", "words", pipelines=SIMULATED),
    Field("session", "name", "name", "What to call the session."),
    Field("session", "tags", "tags", "Spaces between.", "words"),
)  # fmt: skip
"""In the order that they are shown, those of a group together. To show one more: a line here."""
