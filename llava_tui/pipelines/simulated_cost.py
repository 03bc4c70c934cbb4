"""What a stage of LLaVA-1.5-7B in half precision asks of a GPU, and what it takes there."""

from __future__ import annotations

from dataclasses import dataclass

from llava_tui.pipelines.simulated_gpu import Gpu
from llava_tui.plan import Case

PARAMETERS = 7_063_427_072
WEIGHTS_BYTES = 2 * PARAMETERS
CONTEXT_LENGTH = 4096
TOKENS_PER_FRAME = 576
LAYERS, HIDDEN = 32, 4096
LM_BLOCKS, LM_HEAD = 6.476e9, 0.131e9
KV_BYTES = 2 * LAYERS * HIDDEN * 2
VIT_LAYERS, VIT_HIDDEN, VIT_TOKENS = 24, 1024, 577
GAP_NS = 40_000
"""What lies between two stages and belongs to none: Python, launches."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage asks of the GPU at least."""

    flops: float
    bytes: float

    def floor_ns(self, gpu: Gpu) -> float:
        """The roofline: no GPU of that data sheet is faster."""
        return max(self.flops / gpu.flops, self.bytes / gpu.bandwidth) * 1e9


def vision_cost(frames: int) -> Cost:
    """CLIP ViT-L/14-336 on that many frames: 0.382 TFLOP each, its weights read once."""
    n, d = VIT_TOKENS, VIT_HIDDEN
    blocks = 2 * n * 12 * d**2 * VIT_LAYERS + 4 * n**2 * d * VIT_LAYERS
    patches = 2 * TOKENS_PER_FRAME * (14 * 14 * 3) * d
    return Cost(frames * (blocks + patches), 2 * 303.5e6 + frames * n * d * 2 * VIT_LAYERS * 8)


def projector_cost(frames: int) -> Cost:
    """Two linear layers, 1024 → 4096 → 4096, on 576 tokens a frame."""
    weights = VIT_HIDDEN * HIDDEN + HIDDEN**2
    return Cost(frames * 2 * TOKENS_PER_FRAME * weights, 2 * weights + frames * TOKENS_PER_FRAME * HIDDEN * 4)


def prefill_cost(tokens: int, batch: int) -> Cost:
    """The language model on the whole prompt; causal attention does half of the square."""
    flops = 2 * LM_BLOCKS * tokens + 2 * tokens**2 * HIDDEN * LAYERS + 2 * LM_HEAD
    return Cost(batch * flops, 2 * (LM_BLOCKS + LM_HEAD) + batch * tokens * KV_BYTES)


def decode_cost(context: int, batch: int) -> Cost:
    """One token a sequence: every weight once, every key and value before it once."""
    flops = 2 * (LM_BLOCKS + LM_HEAD) + 4 * context * HIDDEN * LAYERS
    return Cost(batch * flops, 2 * (LM_BLOCKS + LM_HEAD) + batch * context * KV_BYTES)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a case takes on a GPU, without noise and faults: ns."""

    stages: dict[str, float]
    """By leaf."""
    tokens: list[float]
    """Each decode step's after the first token."""

    def truth(self) -> dict[str, int]:
        """By leaf, step and ``wall``, what lies between stages included in the wall only."""
        found = dict(self.stages)
        for path, ns in self.stages.items():
            step = path.split(".")[0]
            found[step] = found.get(step, 0.0) + ns
        found["encode"] += GAP_NS
        found["wall"] = sum(self.stages.values()) + 3 * GAP_NS
        return {path: round(ns) for path, ns in found.items()}


def expected(case: Case, prompt: int, gpu: Gpu) -> Expected:
    """By the roofline of the GPU and what frameworks reach of it. ``prompt``: tokens of one sequence."""
    frames = case.frames * case.batch
    steps = [
        decode_cost(prompt + index, case.batch).floor_ns(gpu) / gpu.decode_efficiency
        for index in range(1, case.new_tokens)
    ]
    stages = {
        "frames.decode_frames": 5.2e6 * frames,
        "encode.preprocess": 1.5e6 + 5.8e6 * frames,
        "encode.h2d": 3e4 + frames * 336 * 336 * 3 * 2 / 12,
        "encode.vision_tower": vision_cost(frames).floor_ns(gpu) / gpu.vision_efficiency,
        "encode.projector": projector_cost(frames).floor_ns(gpu) / gpu.vision_efficiency,
        "generate.prefill": prefill_cost(prompt, case.batch).floor_ns(gpu) / gpu.prefill_efficiency,
        "generate.decode": sum(steps),
        "generate.detokenize": 9e4 + 2.5e3 * case.new_tokens * case.batch,
    }
    return Expected(stages, steps)
