"""What can be known to be wrong with a plan before a session exists for it.

Reads configs and opens inputs; loads no model and never imports torch. ``python -m llava_tui.preflight`` does it for
programs that must not load what opens a video: see :func:`llava_tui.starting.prepared_aside`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any

import msgspec

from llava_tui import dataset
from llava_tui.plan import DEMO, Plan, PlanError, expanded

MODELS_EXTRA = "profiling a model needs torch, transformers and PyAV: pip install 'llava-tui[models]'"


def prepare(plan: Plan) -> Plan:
    """The plan as it is to be run: resolved, and checked. Raises as :func:`check`."""
    plan = resolve(plan)
    check(plan)
    return plan


def resolve(plan: Plan) -> Plan:
    """The plan with paths that exist made absolute, so that it runs from any folder and can be run again."""
    inputs = tuple(str(expanded(path).absolute()) if path != DEMO else path for path in plan.inputs)
    file = str(expanded(plan.dataset).absolute()) if plan.dataset else ""
    model = plan.model
    if plan.pipeline != "simulated" and model != DEMO and expanded(model).is_dir():
        model = str(expanded(model).absolute())
    offload = str(expanded(plan.offload).absolute()) if plan.offload else ""
    return msgspec.structs.replace(plan, inputs=inputs, dataset=file, model=model, offload=offload)


def check(plan: Plan) -> None:
    """Raises :class:`PlanError` or :class:`llava_tui.models.ModelError` with what is wrong and how to mend it."""
    if plan.dataset and plan.inputs not in ((), (DEMO,)):
        raise PlanError("inputs: the data set names what is run on; leave --input out, or --dataset")
    items = dataset.items_of(plan)
    if items and len(items) < max(plan.batch):
        raise PlanError(f"batch: {max(plan.batch)} is more than the {len(items)} items there are; use a smaller one")
    if plan.pipeline == "simulated":
        from llava_tui.pipelines.simulated import MODEL

        if plan.model not in (DEMO, MODEL):
            raise PlanError(f"model: the simulator knows {MODEL}, not {plan.model!r}; leave --model out")
        _check_simulated(plan)
        return
    missing = [name for name in ("torch", "transformers", "av", "PIL") if importlib.util.find_spec(name) is None]
    if missing:
        raise PlanError(f"{MODELS_EXTRA} (not found: {', '.join(missing)})")
    _check_quantization(plan)
    _check_compiler(plan)
    if plan.pipeline == "eventgpt":
        _check_eventgpt(plan)
    else:
        _check_model(plan)
    if not items:  # Of many, those that cannot be read are left out when their turn comes.
        _check_inputs(plan)


def _check_quantization(plan: Plan) -> None:
    from llava_tui.pipelines.quantization import missing

    for name in plan.quantization.split(","):
        if problem := missing(name):
            raise PlanError(problem)


def _check_simulated(plan: Plan) -> None:
    """Whether any case can run; the worker leaves out those that cannot."""
    from llava_tui.pipelines.simulated import overflow

    problems = [overflow(plan, case) for case in plan.cases()]
    if all(problems):
        raise PlanError(f"frames: {problems[0]}")


def _check_compiler(plan: Plan) -> None:
    """Where there is nothing to run without one. Of cases that are compiled beside others the worker says so, before
    the first run, and leaves them out."""
    if plan.device != "cpu" or any(plan.compile_of(case) == "off" for case in plan.cases()):
        return
    named = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(named.split()[0]) is None:
        raise PlanError(f"compile: needs a C++ compiler, and there is no {named}: install it, or name one in CXX")


def _check_model(plan: Plan) -> None:
    if "<image>" in plan.prompt:
        raise PlanError("prompt: <image> stands for a frame: leave it out, frames are put in by themselves")
    from llava_tui import architecture, models

    has_tokenizer = plan.model != DEMO
    if plan.model == DEMO:
        from llava_tui.pipelines.checkpoints import demo_config

        config = demo_config()
    elif plan.weights == "random":
        config, has_tokenizer = _check_random(plan)
    else:
        models.check_model(plan.model)
        folder = models.resolve(plan.model)
        if folder is None:
            return  # a hub id that is not cached: only loading can tell
        config = models.read_config(folder, plan.model)
        if missing := models.missing_files(folder):
            raise PlanError(f"model: {plan.model}: {missing}; put them there, or add --weights random")
    kind = architecture.model_type(config)
    if plan.media == "video" and kind in set(architecture.KNOWN_FAMILIES) - set(architecture.VIDEO_FAMILIES):
        raise PlanError(f"media: {kind} models take no videos, only pictures; use --media image")
    # Words are about four characters long; tokens of the tokenizers that are built here are bytes.
    prompt = len(plan.prompt) // (4 if has_tokenizer else 1)
    for case in plan.cases():
        reason = architecture.overflow(config, case.frames, prompt, case.new_tokens, plan.media)
        if reason:
            raise PlanError(f"frames: {reason}")


def _check_random(plan: Plan) -> tuple[dict[str, Any], bool]:
    """The config that is built from, and whether the model comes with a tokenizer of its own.

    Of a GPU only its size is known here: what is free on it the worker sees, before it allocates anything.
    """
    from llava_tui import costs, host_memory, models, presets
    from llava_tui.pipelines import built_processors, fitting
    from llava_tui.pipelines.base import PipelineError

    config, folder = models.config_of(plan.model, plan.pipeline)
    has_tokenizer = built_processors.has_processor(folder)
    try:
        if not has_tokenizer and plan.pipeline == "llava":
            built_processors.check_family(config)
    except PipelineError as error:
        raise PlanError(f"model: {error}") from None
    preset = presets.find(plan.model) if folder is None else None
    parameters = preset.parameters if preset else costs.architecture(config).weights
    free, where, kind = host_memory.host_free(), "this machine", "cpu"
    if plan.device != "cpu" and fitting.refusal("", parameters, fitting.dtypes(plan, config, "cpu"), free, where):
        gpu = fitting.largest_gpu()
        if gpu is not None:
            free, where, kind = gpu, "the largest GPU", "cuda"
        elif plan.device != "auto" or sys.platform == "darwin":
            return config, has_tokenizer  # another kind of accelerator: only the worker knows it
    if problem := fitting.refusal(plan.model, parameters, fitting.dtypes(plan, config, kind), free, where):
        raise PlanError(problem)
    return config, has_tokenizer


def _check_eventgpt(plan: Plan) -> None:
    """Whether everything fits its context only the loaded model tells: its config does not know the vision tower."""
    from llava_tui import models

    if "<event>" in plan.prompt:
        raise PlanError("prompt: <event> stands for the events: leave it out, they are put in by themselves")
    if plan.weights == "random" and plan.model != DEMO:
        _check_random(plan)
    else:
        models.check_eventgpt(plan.model)


def _check_inputs(plan: Plan) -> None:
    from llava_tui.pipelines import event_streams, frames
    from llava_tui.pipelines.base import PipelineError

    for path in plan.inputs:
        if path == DEMO:
            continue
        try:
            if plan.pipeline == "eventgpt":
                event_streams.slices(event_streams.read(path), max(plan.frames))
            else:
                frames.probe_input(path)
        except PipelineError as error:
            raise PlanError(f"input: {error}") from None


def main() -> int:
    """A plan as JSON on standard input; on standard output the plan as it is to be run, or the problem with it."""
    from llava_tui.models import ModelError
    from llava_tui.plan import from_json

    answer: dict[str, object]
    try:
        answer = {"plan": prepare(from_json(sys.stdin.buffer.read())).to_dict()}
    except (PlanError, ModelError) as error:
        answer = {"problem": str(error)}
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
