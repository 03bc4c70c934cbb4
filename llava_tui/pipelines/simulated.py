"""A model of the hardware, not of nothing: LLaVA-1.5-7B on a named GPU, timed by the roofline and seeded noise.

No figure from here is a measurement: sessions of it are watermarked SIMULATED wherever they are shown.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llava_tui.events import ModelFacts, StageInfo, TelemetryEvent
from llava_tui.pipelines.base import LLAVA_STAGES, PipelineError, Probe, RunResult, stage
from llava_tui.pipelines.simulated_gpu import GPUS, IDLE, Activity, Gpu, SimulatedTelemetry
from llava_tui.plan import DEMO, Case, Plan

MODEL = "llava-1.5-7b"
PARAMETERS = 7_063_427_072
WEIGHTS_BYTES = 2 * PARAMETERS
CONTEXT_LENGTH = 4096
TOKENS_PER_FRAME = 576
LAYERS, HIDDEN = 32, 4096
LM_BLOCKS, LM_HEAD = 6.476e9, 0.131e9
KV_BYTES = 2 * LAYERS * HIDDEN * 2
VIT_LAYERS, VIT_HIDDEN, VIT_TOKENS = 24, 1024, 577
TEMPLATE_TOKENS = 14
"""BOS, "USER:", "ASSISTANT:" and the line ends around the prompt."""

NOISE = 0.005
"""Standard deviation of the logarithm of each stage's time, and of each token's about its stage's."""
GAP_NS = 40_000
"""What lies between two stages and belongs to none: Python, launches."""
COLD_NS = {"encode.vision_tower": 420_000_000, "generate.prefill": 310_000_000}
"""What the first run pays for: libraries set up, kernels loaded and chosen."""

TEXT = (
    "The video shows a person walking along a quiet street while a dog follows a few steps behind. "
    "A red car passes from left to right, and the camera pans slowly after it. "
    "In the background there are trees, a low brick wall and a row of parked bicycles. "
    "Towards the end the person stops, turns around and waves at someone outside the frame. "
)


class AdvancingClock(Protocol):
    """The part of the simulated clock that is used here."""

    passed: Callable[[int, int], None]

    def advance(self, nanoseconds: int, check: Callable[[], None] | None = None) -> None: ...


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


class SimulatedPipeline:
    """The stages of a LLaVA on a clock that only the simulation moves."""

    stages: tuple[StageInfo, ...] = LLAVA_STAGES

    def __init__(self, plan: Plan, clock: AdvancingClock, write: Callable[[TelemetryEvent], None]) -> None:
        self._plan = plan
        self._clock = clock
        self.gpu = GPUS[plan.simulated_gpu]
        self.telemetry = SimulatedTelemetry(self.gpu, plan.sample_hz, plan.seed, os.getpid(), write)
        self._context_bytes = self.telemetry.memory_used
        self._cold = True
        clock.passed = self.telemetry.pass_time

    def load(self, probe: Probe) -> ModelFacts:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        if self._plan.model not in (DEMO, MODEL):
            raise PipelineError(f"model: the simulator knows {MODEL}, not {self._plan.model!r}; leave --model out")
        noise = random.Random(f"{self._plan.seed}/load")
        with stage(probe, "load"):
            with stage(probe, "load.libraries"):
                self._spend(1.3e9, IDLE, probe, noise)
            with stage(probe, "load.weights"):
                self._spend(WEIGHTS_BYTES / 6e9 * 1e9, IDLE, probe, noise)
            with stage(probe, "load.device"):
                # In pieces, so that memory is seen to fill up as it does over a bus.
                for piece in range(1, 9):
                    self._spend(WEIGHTS_BYTES / 22e9 * 1e9 / 8, Activity(0.02, 0.05, 0.08), probe, noise)
                    self._hold(WEIGHTS_BYTES * piece // 8)
        return ModelFacts(
            t=0,
            name=MODEL,
            model_type="llava",
            parameters=PARAMETERS,
            dtype="float16",
            device="simulated",
            device_name=f"{self.gpu.name} (simulated)",
            attention="simulated",
            context_length=CONTEXT_LENGTH,
            weights_bytes=WEIGHTS_BYTES,
            config={
                "model_type": "llava",
                "text_config": {
                    "model_type": "llama",
                    "hidden_size": HIDDEN,
                    "intermediate_size": 11008,
                    "num_hidden_layers": LAYERS,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 32,
                    "vocab_size": 32064,
                    "max_position_embeddings": CONTEXT_LENGTH,
                },
                "vision_config": {
                    "model_type": "clip_vision_model",
                    "hidden_size": VIT_HIDDEN,
                    "intermediate_size": 4096,
                    "num_hidden_layers": VIT_LAYERS,
                    "num_attention_heads": 16,
                    "image_size": 336,
                    "patch_size": 14,
                },
            },
            extra={"simulated": True, "gpu": self._plan.simulated_gpu, "time_scale": self._plan.time_scale},
        )

    def prompt_tokens(self, case: Case) -> int:
        """Of one sequence: image tokens, template and prompt at four characters a token."""
        return TOKENS_PER_FRAME * case.frames + TEMPLATE_TOKENS + math.ceil(len(self._plan.prompt) / 4)

    def check_case(self, case: Case) -> str:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        text = self.prompt_tokens(case) - TOKENS_PER_FRAME * case.frames + case.new_tokens
        if TOKENS_PER_FRAME * case.frames + text <= CONTEXT_LENGTH:
            return ""
        most = (CONTEXT_LENGTH - text) // TOKENS_PER_FRAME
        mend = f"at most {most} frames fit" if most > 0 else "ask for fewer new tokens or a shorter prompt"
        return (
            f"{case.frames} frames × {TOKENS_PER_FRAME} + {text} text tokens overflow the context of "
            f"{CONTEXT_LENGTH}; {mend}"
        )

    def run(self, case: Case, inputs: tuple[str, ...], seed: int, probe: Probe) -> RunResult:
        """See :class:`~llava_tui.pipelines.base.Pipeline`. ``MemoryError`` where the GPU would not hold the case."""
        noise = random.Random(seed)
        gpu = self.gpu
        frames = case.frames * case.batch
        prompt = self.prompt_tokens(case)
        try:
            with stage(probe, "frames"), stage(probe, "frames.decode_frames"):
                for _ in range(frames):
                    self._spend(5.2e6, IDLE, probe, noise)
            self._gap(probe)
            with stage(probe, "encode"):
                with stage(probe, "encode.preprocess"):
                    self._spend(1.5e6 + 5.8e6 * frames, IDLE, probe, noise)
                self._gap(probe)
                with stage(probe, "encode.h2d"):
                    self._spend(3e4 + frames * 336 * 336 * 3 * 2 / 12, Activity(0.05, 0.05, 0.05), probe, noise)
                with stage(probe, "encode.vision_tower"):
                    floor = vision_cost(frames).floor_ns(gpu)
                    work = Activity(1.0, 0.25, 0.75)
                    self._spend(floor / gpu.vision_efficiency, work, probe, noise, "encode.vision_tower")
                with stage(probe, "encode.projector"):
                    self._spend(projector_cost(frames).floor_ns(gpu) / gpu.vision_efficiency, work, probe, noise)
            self._gap(probe)
            with stage(probe, "generate"):
                text = self._generate(case, prompt, probe, noise)
        finally:
            self._hold(WEIGHTS_BYTES)
        self._cold = False
        ids = [[_token_id(index) for index in range(case.new_tokens)] for _ in range(case.batch)]
        return RunResult(
            token_ids=ids,
            text=[text] * case.batch,
            frames=frames,
            prompt_tokens=prompt,
            image_tokens=TOKENS_PER_FRAME * case.frames,
            vision_calls=1,
            facts={"simulated": True},
        )

    def _generate(self, case: Case, prompt: int, probe: Probe, noise: random.Random) -> str:
        gpu = self.gpu
        with stage(probe, "generate.prefill"):
            self._fit(case.batch * (prompt * (KV_BYTES + 14 * HIDDEN) + 64 * 1024**2))
            cost = prefill_cost(prompt, case.batch).floor_ns(gpu) / gpu.prefill_efficiency
            self._spend(cost, Activity(1.0, 0.35, 0.95), probe, noise, "generate.prefill")
            probe.token([_token_id(0)] * case.batch)
        pace = math.exp(noise.gauss(0, NOISE))
        with stage(probe, "generate.decode"):
            for index in range(1, case.new_tokens):
                context = prompt + index
                self._fit(case.batch * (context * KV_BYTES + 64 * 1024**2))
                cost = decode_cost(context, case.batch).floor_ns(gpu) / gpu.decode_efficiency
                self._spend(cost * pace, Activity(0.92, gpu.decode_efficiency, 0.48), probe, noise)
                probe.token([_token_id(index)] * case.batch)
        with stage(probe, "generate.detokenize"):
            self._spend(9e4 + 2.5e3 * case.new_tokens * case.batch, IDLE, probe, noise)
        return self.detokenize([_token_id(index) for index in range(case.new_tokens)])

    def reference(self, case: Case, inputs: tuple[str, ...], probe: Probe) -> list[list[int]] | None:
        """There is nothing to check a simulation against."""
        return None

    def detokenize(self, ids: list[int]) -> str:
        """Text of token ids."""
        return "".join(_PIECES[(token - _FIRST_ID) % len(_PIECES)] for token in ids)

    def close(self) -> None:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        self.telemetry.memory_used = self._context_bytes
        self.telemetry.worker_memory = 0

    # --- time and memory ---------------------------------------------------------------------------------------------

    def _spend(self, ns: float, work: Activity, probe: Probe, noise: random.Random, cold: str = "") -> None:
        ns *= math.exp(noise.gauss(0, NOISE))
        if self._cold:
            ns += COLD_NS.get(cold, 0)
        self.telemetry.activity = work
        try:
            self._clock.advance(round(ns), probe.check)
        finally:
            self.telemetry.activity = IDLE

    def _gap(self, probe: Probe) -> None:
        self._clock.advance(GAP_NS, probe.check)

    def _fit(self, extra: int) -> None:
        """The run needs that many bytes beside the weights."""
        needed = self._context_bytes + WEIGHTS_BYTES + extra
        if needed > self.gpu.memory:
            raise MemoryError(
                f"{needed / 2**30:.1f} GiB needed, {self.gpu.memory / 2**30:.1f} GiB on the {self.gpu.name} (simulated)"
            )
        self._hold(WEIGHTS_BYTES + extra)

    def _hold(self, held: int) -> None:
        self.telemetry.memory_used = self._context_bytes + held
        self.telemetry.worker_memory = held


_FIRST_ID = 1000
_PIECES = [word + " " for word in TEXT.split()]


def _token_id(index: int) -> int:
    return _FIRST_ID + index % len(_PIECES)
