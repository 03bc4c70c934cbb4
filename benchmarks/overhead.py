"""What measuring costs: a run with the worker's recorder against the same work through plain ``generate()``.

Run with ``python benchmarks/overhead.py`` on a machine that does nothing else (about ten minutes on two cores;
``--max-minutes 2`` for a quick look; ``--cpu-time --threads 1`` where others work beside). Both paths decode the clip,
preprocess, generate and detokenize on the demo model; the instrumented one records every stage and token, hears control
and writes its hints to a real file, as the worker does. Pairs are interleaved in alternating order, and go on until the
95 % interval of the median log-ratio is narrow enough. ``--null`` compares the plain path with itself: what it says of
0 is how far to trust the rest.

``--family`` takes another family than LLaVA, built with random weights at about the demo model's size, and ``--media``
says whether it is given the clip's frames as pictures or as a video:
``python benchmarks/overhead.py --family qwen2_vl --media video``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from llava_tui.analysis.statistics import median_interval
from llava_tui.events import ModelFacts
from llava_tui.pipelines.base import Cancelled
from llava_tui.pipelines.frames import sample_frames
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import MEDIA, Case, Plan
from llava_tui.session.control import CommandReader
from llava_tui.session.writer import StreamWriter
from llava_tui.worker.clock import HostClock
from llava_tui.worker.control import Control
from llava_tui.worker.recorder import Recorder, SilentProbe
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink
from llava_tui.worker.stage_memory import meter

FEWEST_PAIRS = 20
PROMISED = 0.01

Run = Callable[[], list[list[int]]]

_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
_TOWER = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 14,
}
_ANYRES = {"image_token_index": 4, "image_grid_pinpoints": [[224, 448], [448, 224]]}
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
FAMILIES = {
    "llava_next": _ANYRES
    | {"text_config": _TEXT | {"model_type": "llama"}, "vision_config": _TOWER | {"model_type": "clip_vision_model"}},
    "llava_onevision": _ANYRES
    | {
        "video_token_index": 5,
        "text_config": _TEXT | {"model_type": "qwen2"},
        "vision_config": _TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_4",
    },
    "qwen2_vl": {
        "image_token_id": 4,
        "video_token_id": 5,
        "vision_start_token_id": 6,
        "vision_end_token_id": 7,
        "text_config": _TEXT | {"model_type": "qwen2_vl_text", "rope_parameters": _ROPE},
        "vision_config": {
            "model_type": "qwen2_vl_vision",
            "depth": 8,
            "embed_dim": 256,
            "hidden_size": 512,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    },
}
"""Configs of about the demo model's size: towers of 256 × 8, a language model of 512 × 8."""


def instrumented(pipeline: LlavaPipeline, case: Case, folder: Path, facts_device: str) -> Run:
    """A run as the worker executes it, up to its spans."""
    clock = HostClock().on(facts_device)
    sink = EventSink(StreamWriter(folder / "events.jsonl"))
    control = Control(CommandReader(folder), sink.write, clock, Schedule(pipeline.plan))

    def check() -> None:
        control.poll()
        if control.stop_now:
            raise Cancelled

    memory = meter(facts_device, pipeline)
    recorder = Recorder(pipeline.stages, clock, check, sink.write, pipeline.detokenize, memory)
    number = 0

    def run() -> list[list[int]]:
        nonlocal number
        number += 1
        recorder.start(number)
        result = pipeline.run(case, pipeline.plan.inputs, 0, recorder)
        recorder.finish()
        assert result.vision_calls == 1
        return result.token_ids

    return run


def plain(pipeline: LlavaPipeline, case: Case) -> Run:
    """The same work with nothing of ours in between but the decoding of frames."""

    def run() -> list[list[int]]:
        clips = [sample_frames(pipeline.plan.inputs[0], case.frames) for _ in range(case.batch)]
        batch = pipeline._preprocess(case, clips).to(pipeline.device, dtype=pipeline.model.dtype)
        ids = pipeline.model.generate(**batch, **pipeline._options(case))
        new: list[list[int]] = ids[:, batch["input_ids"].shape[1] :].tolist()
        pipeline.processor.batch_decode(new, skip_special_tokens=True)
        return new

    return run


def timed(run: Run, clock: Callable[[], float]) -> tuple[float, list[list[int]]]:
    start = clock()
    ids = run()
    return clock() - start, ids


def main() -> int:
    """Prints the overhead with its interval. Exit code 0: within what is promised; 1: not, or not told apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--family", choices=["llava", *FAMILIES], default="llava", help="of a model that is built")
    parser.add_argument("--media", choices=MEDIA, default="auto", help="what the clip is given as")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--half-width", type=float, default=0.005, help="of the interval, as a ratio (default 0.005)")
    parser.add_argument("--max-minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, all threads, instead of wall time")
    parser.add_argument("--null", action="store_true", help="compare the plain path with itself")
    options = parser.parse_args()

    clock = time.process_time if options.cpu_time else time.perf_counter
    case = Case(options.frames, 1, options.new_tokens)
    pipeline, facts = loaded(options.model, options.family, options.media)
    if options.threads:
        torch.set_num_threads(options.threads)
    baseline = plain(pipeline, case)
    with tempfile.TemporaryDirectory() as folder:
        candidate = baseline if options.null else instrumented(pipeline, case, Path(folder), facts.device)
        for warm_up in (baseline, candidate):
            warm_up()
        ratios, seconds, equal = measure(baseline, candidate, clock, options.half_width, options.max_minutes * 60)
        hints = 0 if options.null else len((Path(folder) / "events.jsonl").read_bytes().splitlines())

    low, high = median_interval(np.array(ratios)) or (-math.inf, math.inf)
    overhead, runs = math.expm1(float(np.median(ratios))), len(ratios)
    before, after = (float(np.median(times)) * 1e3 for times in seconds)
    narrow = (high - low) / 2 <= options.half_width
    name, threads = Path(facts.name).name, torch.get_num_threads()
    print(f"{name}, {facts.parameters / 1e6:.0f} M parameters, {facts.device}, {threads} threads")
    result = pipeline.run(case, pipeline.plan.inputs, 0, SilentProbe(lambda: None))
    print(f"{result.facts['media']}, {result.image_tokens} of {result.prompt_tokens} prompt tokens")
    print(f"case {case.id}: {runs} pairs, noise {np.std(ratios):.1%} a pair, {hints / (runs + 1):.0f} hints a run")
    print(f"medians: plain {before:.1f} ms, {'plain' if options.null else 'instrumented'} {after:.1f} ms", end="")
    print(" of CPU time" if options.cpu_time else "")
    interval = f"{math.expm1(low):+.2%} … {math.expm1(high):+.2%}" if low > -math.inf else "unknown (too few pairs)"
    print(f"overhead {overhead:+.2%}, 95 % interval {interval}", end="")
    print("" if narrow else f" (time ran out before ±{options.half_width:.1%})")
    print(f"token ids equal in {equal} of {runs} pairs")
    return 0 if equal == runs and overhead <= PROMISED and narrow else 1


def loaded(model: str, family: str, media: str) -> tuple[LlavaPipeline, ModelFacts]:
    """A pipeline with its model: ``model``, or one of ``family`` that is built here."""
    with contextlib.ExitStack() as kept:
        plan = Plan(model=model, media=media)
        if family in FAMILIES:
            folder = Path(kept.enter_context(tempfile.TemporaryDirectory())) / family
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(FAMILIES[family] | {"model_type": family}))
            plan = Plan(model=str(folder), weights="random", media=media)
        pipeline = LlavaPipeline(plan)
        facts = pipeline.load(SilentProbe(lambda: None))
    return pipeline, facts


def measure(
    baseline: Run, candidate: Run, clock: Callable[[], float], half_width: float, limit: float
) -> tuple[list[float], tuple[list[float], list[float]], int]:
    """Log-ratios of pairs, the times of either path in seconds, and in how many pairs the ids were equal."""
    ratios: list[float] = []
    seconds: tuple[list[float], list[float]] = ([], [])
    equal = 0
    until = time.monotonic() + limit
    while time.monotonic() < until or len(ratios) < 2:
        if len(ratios) % 2:
            (after, ids), (before, expected) = timed(candidate, clock), timed(baseline, clock)
        else:
            (before, expected), (after, ids) = timed(baseline, clock), timed(candidate, clock)
        ratios.append(math.log(after / before))
        seconds[0].append(before)
        seconds[1].append(after)
        equal += ids == expected
        if len(ratios) % 10 == 0:
            low, high = median_interval(np.array(ratios)) or (-math.inf, math.inf)
            print(f"{len(ratios)} pairs: {math.expm1(low):+.2%} … {math.expm1(high):+.2%}", file=sys.stderr, flush=True)
            if len(ratios) >= FEWEST_PAIRS and (high - low) / 2 <= half_width:
                break
    return ratios, seconds, equal


if __name__ == "__main__":
    sys.exit(main())
