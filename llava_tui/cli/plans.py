"""The plan as options: what `run` and `calibrate` take to say what to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llava_tui.cli.sessions import find

_OPTIONS = (
    click.option("--pipeline", help="llava, eventgpt or simulated."),
    click.option("--model", metavar="ID|PATH", help="A folder, a Hugging Face id, or demo."),
    click.option(
        "--weights",
        help="pretrained, or random: builds the architecture of a preset (llava-1.5-7b, …: see `models`) or of a "
        "folder with a config.json, without a download.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="PATH",
        help="A video, an image, a folder of frames; for eventgpt a .npy, .npz, .h5 or .csv of events. Repeatable.",
    ),
    click.option(
        "--dataset", metavar="FILE", help="JSONL or CSV of many inputs (path, prompt, id), instead of --input."
    ),
    click.option("--media", help="What a video is given to the model as: auto, video or image (each frame one)."),
    click.option("--prompt", metavar="TEXT"),
    click.option("--frames", metavar="1,2,4", help="Sweep axis: frames a video; slices an event stream. 0: text only."),
    click.option("--batch", metavar="1,2", help="Sweep axis: videos a run."),
    click.option("--new-tokens", metavar="64", help="Sweep axis: tokens to generate."),
    click.option("--dtype", help="auto, float32, bfloat16 or float16; several are a sweep axis."),
    click.option("--attention", help="auto, eager, sdpa, flash_attention_2, …; several are a sweep axis."),
    click.option("--vision-attention", help="Of the vision tower alone. [default: as --attention]"),
    click.option("--resolution", metavar="336,448", help="Sweep axis: side in pixels that frames are scaled to."),
    click.option("--threads", metavar="1,2", help="Sweep axis: threads that torch computes with on the CPU."),
    click.option(
        "--cache",
        help="Of keys and values: dynamic or static; both are a sweep axis. [default: dynamic, static if compiled]",
    ),
    click.option(
        "--compile",
        help="Compile a step of decoding: off, on, or a mode of torch.compile; several are a sweep axis. "
        "[default: off]",
    ),
    click.option(
        "--quantization",
        help="Of weights: none, bnb-8bit, bnb-4bit, torchao-int8, torchao-int8-dynamic or torchao-int4; several are a "
        "sweep axis. [default: none]",
    ),
    click.option("--device", help="auto, cpu, cuda, cuda:1, …"),
    click.option(
        "--device-map",
        help="Spread the model: auto, balanced, balanced_low_0, sequential, or a device; several are a sweep axis. "
        "[default: none]",
    ),
    click.option(
        "--max-memory",
        metavar="cuda:0=10GiB,cpu=20GiB",
        help="What weights may take of each device. Models that do not fit together are measured one after another.",
    ),
    click.option("--offload", metavar="FOLDER", help="Of --device-map: where weights go that fit nowhere."),
    click.option("--processes", type=int, metavar="N", help="Ranks that share the inputs. [default: 1]"),
    click.option(
        "--rounds",
        metavar="N|auto",
        help="Measured rounds; each runs every case once, in random order. auto: until every step's median is known to "
        "within 1 %, 10 to 50 of them. [default: auto]",
    ),
    click.option("--max-rounds", type=int, help="Of --rounds auto. [default: 50]"),
    click.option(
        "--delta", type=float, help="Of --rounds auto: how well medians are to be known. [default: 0.01, ±1 %]"
    ),
    click.option(
        "--time-limit", "time_limit_s", type=float, metavar="SECONDS", help="No round begins after that long."
    ),
    click.option(
        "--warmup",
        metavar="N|auto",
        help="Warm-up runs a case, kept out of the statistics. auto: until three agree within 2 %. [default: auto]",
    ),
    click.option(
        "--self-test/--no-self-test", default=None, help="Find out first what measuring costs. [default: self-test]"
    ),
    click.option(
        "--cool-down/--no-cool-down",
        default=None,
        help="Take runs back in which a GPU throttled or got 5 °C warmer than in round 1. [default: cool-down]",
    ),
    click.option("--profile", is_flag=True, default=None, help="One more run, under torch's profiler."),
    click.option("--seed", type=int),
    click.option("--name"),
    click.option("--tag", "tags", multiple=True),
    click.option("--sample-hz", type=float, help="Telemetry samples a second. [default: 10]"),
    click.option(
        "--grouping", help="EventGPT's five steps: pipeline or 5stage, of the same stages. [default: pipeline]"
    ),
    click.option("--simulated-gpu", help="Simulated pipeline: a100, h100, rtx-4090, rtx-3090 or t4."),
    click.option(
        "--fault",
        "faults",
        multiple=True,
        metavar="drift=2%",
        help="Simulated pipeline: what goes wrong on purpose; drift, spikes, throttle, foreign, hang, … Repeatable.",
    ),
    click.option(
        "--time-scale", type=float, help="Simulated pipeline: real seconds a simulated second; 0: as fast as possible."
    ),
)


_DEMO = {"model": "the demo model (--model names another)", "inputs": "the demo clip (--input names another)"}
"""What is run where nobody says."""


def plan_options(command: Any) -> Any:
    """Adds an option for each field of a plan to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_plan(
    ctx: click.Context, plan_file: Path | None, from_: str | None, options: dict[str, Any], **defaults: Any
) -> Any:
    """The plan of a file or a session, where one is given, with what the options say over it. Where nobody says which
    model, or on what, that is told on stderr.

    Raises :class:`llava_tui.plan.PlanError` for a plan that cannot be.
    """
    from llava_tui.plan import PlanError, from_dict, read_file
    from llava_tui.session.reader import read_header

    if plan_file is not None and from_ is not None:
        raise PlanError("give PLAN.toml or --from SESSION, not both")
    values = read_file(plan_file) if plan_file else read_header(find(ctx, from_)).plan if from_ else {}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    plan = from_dict(defaults | dict(values) | given)
    said = {*values, *given} | ({"inputs"} if plan.dataset else set())
    demo = _DEMO | ({"inputs": "the demo stream (--input names another)"} if plan.pipeline == "eventgpt" else {})
    unsaid = [words for name, words in demo.items() if name not in said]
    if unsaid and plan.pipeline != "simulated":
        click.echo("llava-tui: " + " on ".join(unsaid), err=True)
    return plan
