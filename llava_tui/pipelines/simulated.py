"""A model of the hardware, not of nothing: LLaVA-1.5-7B on a named GPU, timed by the roofline and seeded noise, with
the faults that the plan orders.

The truth is told: what each stage would take without noise and faults is in the model's facts (``extra["truth"]``), and
which faults held in a run in that run's. No figure from here is a measurement: sessions of it are watermarked
SIMULATED wherever they are shown.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from llava_tui import architecture
from llava_tui.events import ModelFacts, StageInfo, TelemetryEvent
from llava_tui.faults import Hang
from llava_tui.pipelines.base import LLAVA_STAGES, Input, PipelineError, Probe, RunResult, prompt_of, stage
from llava_tui.pipelines.simulated_cost import (
    CONTEXT_LENGTH,
    GAP_NS,
    HIDDEN,
    KV_BYTES,
    LAYERS,
    PARAMETERS,
    TOKENS_PER_FRAME,
    VIT_HIDDEN,
    VIT_LAYERS,
    WEIGHTS_BYTES,
    Expected,
    expected,
)
from llava_tui.pipelines.simulated_faults import Effects, FaultCourse
from llava_tui.pipelines.simulated_gpu import GPUS, IDLE, Activity, SimulatedTelemetry
from llava_tui.pipelines.simulated_memory import (
    SimulatedAllocator,
    cache_facts,
    generation_bytes,
    modules,
    vision_bytes,
)
from llava_tui.plan import DEMO, Case, Plan
from llava_tui.units import counted

MODEL = "llava-1.5-7b"
TEMPLATE_TOKENS = 14
"""BOS, "USER:", "ASSISTANT:" and the line ends around the prompt."""

NOISE = 0.005
"""Standard deviation of the logarithm of each stage's time, and of each token's about its stage's."""
COLD_NS = {"encode.vision_tower": 420_000_000, "generate.prefill": 310_000_000}
"""What the first run pays for: libraries set up, kernels loaded and chosen."""
DECODE_CLOCK = 0.25
"""How much of a lost SM clock decode loses: it waits for memory, whose clock stays."""
HANG_STEP_NS = 20_000_000

TEXT = (
    "The video shows a person walking along a quiet street while a dog follows a few steps behind. "
    "A red car passes from left to right, and the camera pans slowly after it. "
    "In the background there are trees, a low brick wall and a row of parked bicycles. "
    "Towards the end the person stops, turns around and waves at someone outside the frame. "
)


class AdvancingClock(Protocol):
    """The part of the simulated clock that is used here."""

    passed: Callable[[int, int], None]

    def now(self) -> int: ...

    def advance(self, nanoseconds: int, check: Callable[[], None] | None = None) -> None: ...


def _killed(signal: int) -> None:
    os.kill(os.getpid(), signal)


class SimulatedPipeline:
    """The stages of a LLaVA on a clock that only the simulation moves.

    ``die`` is called with a signal's number where the worker is to be killed; ``stall`` again and again while a run
    hangs for good, which real time passes in, whatever the scale.
    """

    stages: tuple[StageInfo, ...] = LLAVA_STAGES

    def __init__(
        self,
        plan: Plan,
        clock: AdvancingClock,
        write: Callable[[TelemetryEvent], None],
        die: Callable[[int], None] = _killed,
        stall: Callable[[], None] = lambda: time.sleep(HANG_STEP_NS / 1e9),
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._die = die
        self._stall = stall
        self.gpu = GPUS[plan.simulated_gpu]
        self.telemetry = SimulatedTelemetry(self.gpu, plan.sample_hz, plan.seed, os.getpid(), write)
        rounds = plan.rounds if isinstance(plan.rounds, int) else plan.max_rounds
        self._faults = FaultCourse(plan.faults, plan.seed, rounds * len(plan.cases()))
        self._effects = Effects()
        self._expected: dict[tuple[Case, int], Expected] = {}
        self._context_bytes = self.telemetry.memory_used
        self.allocator = SimulatedAllocator()
        self._cold = True
        clock.passed = self.telemetry.pass_time
        self.telemetry.suffer(self._faults.before())

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
                self._fit(0)
                self._hold(0)
                # In pieces, so that memory is seen to fill up as it does over a bus.
                for piece in range(1, 9):
                    self._spend(WEIGHTS_BYTES / 22e9 * 1e9 / 8, Activity(0.02, 0.05, 0.08), probe, noise)
                    self._hold(WEIGHTS_BYTES * piece // 8)
        config = _config()
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
            config=config,
            extra={
                "simulated": True,
                "gpu": self._plan.simulated_gpu,
                "time_scale": self._plan.time_scale,
                "truth": self.truth(),
                "modules": modules(architecture.parameters(config) or {}),
            },
        )

    def truth(self) -> dict[str, Any]:
        """What the session's figures can be compared with: each case's stages in ns, the noise, the faults."""
        return {
            "noise": NOISE,
            "faults": [msgspec.to_builtins(fault) for fault in self._plan.faults],
            "cases": {case.id: self._of(case).truth() for case in self._plan.cases()},
        }

    def _of(self, case: Case, prompt: str = "") -> Expected:
        key = case, self.prompt_tokens(case, prompt)
        if key not in self._expected:
            self._expected[key] = expected(*key, self.gpu)
        return self._expected[key]

    def prompt_tokens(self, case: Case, prompt: str = "") -> int:
        """Of one sequence: image tokens, template and prompt (the plan's, unless given)."""
        return _prompt_tokens(case, prompt or self._plan.prompt)

    def check_case(self, case: Case) -> str:
        """See :class:`~llava_tui.pipelines.base.Pipeline`."""
        return overflow(self._plan, case)

    def prepare(self, case: Case) -> None:
        """Nothing: the plan refuses settings for a simulation."""

    def run(self, case: Case, inputs: tuple[Input, ...], seed: int, probe: Probe) -> RunResult:
        """See :class:`~llava_tui.pipelines.base.Pipeline`; nothing is opened. ``MemoryError`` where the GPU would not
        hold the case."""
        noise = random.Random(seed)
        self._effects = effects = self._faults.next(self.telemetry.rested_ns)
        self.telemetry.suffer(effects)
        frames = case.frames * case.batch
        longest = max((prompt_of(each, self._plan.prompt) for each in inputs), key=len, default="")
        prompt = self.prompt_tokens(case, longest)
        of = self._of(case, longest)
        begun = self._clock.now()
        try:
            with stage(probe, "frames"), stage(probe, "frames.decode_frames"):
                for _ in range(frames):
                    self._spend(of.stages["frames.decode_frames"] / frames, IDLE, probe, noise)
            self._gap(probe)
            with stage(probe, "encode"):
                with stage(probe, "encode.preprocess"):
                    self._spend(of.stages["encode.preprocess"], IDLE, probe, noise)
                self._gap(probe)
                for path, work in _ENCODING:
                    with stage(probe, path):
                        self._fit(vision_bytes(frames) if path == "encode.vision_tower" else 0)
                        self._spend(of.stages[path], work, probe, noise, path)
            self._gap(probe)
            with stage(probe, "generate"):
                ids = self._generate(case, of, prompt, probe, noise)
            if effects.gap:
                took = self._clock.now() - begun
                self._clock.advance(round(took * effects.gap / (1 - effects.gap)), probe.check)
        finally:
            self._hold(WEIGHTS_BYTES)
        self._cold = False
        return RunResult(
            token_ids=[list(ids) for _ in range(case.batch)],
            text=[self.detokenize(ids)] * case.batch,
            frames=frames,
            prompt_tokens=prompt,
            image_tokens=TOKENS_PER_FRAME * case.frames,
            vision_calls=1,
            facts={"simulated": True}
            | cache_facts(_config(), case, prompt, len(ids))
            | ({"faults": effects.names, "factor": effects.time} if effects.names else {}),
        )

    def _generate(self, case: Case, of: Expected, prompt: int, probe: Probe, noise: random.Random) -> list[int]:
        """Returns the token ids."""
        effects = self._effects
        ids = [_token_id(index) for index in range(case.new_tokens)]
        if effects.tokens < 1:
            ids = ids[: max(1, int(case.new_tokens * effects.tokens))]
        with stage(probe, "generate.prefill"):
            self._fit(case.batch * generation_bytes(prompt))
            self._go_wrong(probe)
            cost, work = of.stages["generate.prefill"], Activity(1.0, 0.35, 0.95)
            self._spend(cost * effects.seen, work, probe, noise, "generate.prefill")
            probe.token([ids[0]] * case.batch)
        pace = math.exp(noise.gauss(0, NOISE))
        with stage(probe, "generate.decode"):
            if effects.seen < 1:
                self._spend(cost * (1 - effects.seen), work, probe, noise, "generate.prefill")
            work = Activity(0.92, self.gpu.decode_efficiency, 0.48)
            for index in range(1, len(ids)):
                self._fit(case.batch * ((prompt + index) * KV_BYTES + 64 * 1024**2))
                self._spend(of.tokens[index - 1] * pace, work, probe, noise, "generate.decode")
                probe.token([ids[index]] * case.batch)
        with stage(probe, "generate.detokenize"):
            self._spend(of.stages["generate.detokenize"], IDLE, probe, noise)
        return ids

    def _go_wrong(self, probe: Probe) -> None:
        """What ends a run in its prefill, where a fault wants that."""
        effects = self._effects
        if effects.out_of_memory:
            self._hold(self.gpu.memory - self._context_bytes)
            # Long enough to be sampled: an allocator tries again before it gives up.
            self._clock.advance(round(1.5e9 / self._plan.sample_hz), probe.check)
            raise MemoryError(f"tried to allocate on the {self.gpu.name} (simulated), as the plan's fault asks")
        if effects.crash is not None:
            self._die(effects.crash.signal)
        if effects.hang is not None:
            self._hang(effects.hang, probe)

    def _hang(self, hang: Hang, probe: Probe) -> None:
        check = None if hang.deaf else probe.check
        self.telemetry.activity = Activity(1.0, 0.0, 0.25)
        try:
            if hang.seconds:
                self._clock.advance(round(hang.seconds * 1e9), check)
            while not hang.seconds:
                self._clock.advance(HANG_STEP_NS, check)
                self._stall()
        finally:
            self.telemetry.activity = IDLE

    def reference(self, case: Case, inputs: tuple[Input, ...], probe: Probe) -> list[list[int]] | None:
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

    def _spend(self, ns: float, work: Activity, probe: Probe, noise: random.Random, path: str = "") -> None:
        ns *= math.exp(noise.gauss(0, NOISE))
        if self._cold:
            ns += COLD_NS.get(path, 0)
        if self._effects.names:
            ns *= self._slowed(work, path)
        self.telemetry.activity = work
        try:
            self._clock.advance(round(ns), probe.check)
        finally:
            self.telemetry.activity = IDLE

    def _slowed(self, work: Activity, path: str) -> float:
        """What the faults make of a stage's time: a factor."""
        effects = self._effects
        factor = effects.time
        if not work.busy:
            return factor * effects.host
        factor *= effects.device
        lost = 1 / self.telemetry.clock_share(work) - 1
        return factor * (1 + lost * (DECODE_CLOCK if path == "generate.decode" else 1.0))

    def _gap(self, probe: Probe) -> None:
        self._clock.advance(GAP_NS, probe.check)

    def _fit(self, extra: int) -> None:
        """The run needs that many bytes beside the weights."""
        needed = self._context_bytes + WEIGHTS_BYTES + extra + self.telemetry.foreign_memory
        if needed > self.gpu.memory:
            raise MemoryError(
                f"{needed / 2**30:.1f} GiB needed, {self.gpu.memory / 2**30:.1f} GiB on the {self.gpu.name} (simulated)"
            )
        self._hold(WEIGHTS_BYTES + extra)

    @property
    def memory_free(self) -> int:
        """Bytes of the GPU that a run can get beside the weights."""
        held = self._context_bytes + WEIGHTS_BYTES + self.telemetry.foreign_memory
        return max(self.gpu.memory - held, 0)

    def _hold(self, held: int) -> None:
        self.allocator.hold(held)
        self.telemetry.memory_used = self._context_bytes + held
        self.telemetry.worker_memory = held


def overflow(plan: Plan, case: Case) -> str:
    """Why ``case`` does not fit the simulated model's context; "" if it does."""
    text = _prompt_tokens(case, plan.prompt) - TOKENS_PER_FRAME * case.frames + case.new_tokens
    if TOKENS_PER_FRAME * case.frames + text <= CONTEXT_LENGTH:
        return ""
    most = (CONTEXT_LENGTH - text) // TOKENS_PER_FRAME
    fit = f"{counted(most, 'frame')} {'fits' if most == 1 else 'fit'}"
    mend = f"at most {fit}" if most > 0 else "ask for fewer new tokens or a shorter prompt"
    return (
        f"{counted(case.frames, 'frame')} × {TOKENS_PER_FRAME} + {text} text tokens overflow the context of "
        f"{CONTEXT_LENGTH}; {mend}"
    )


def _prompt_tokens(case: Case, prompt: str) -> int:
    """Of one sequence: image tokens, template, and the prompt at four characters a token."""
    return TOKENS_PER_FRAME * case.frames + TEMPLATE_TOKENS + math.ceil(len(prompt) / 4)


def _config() -> dict[str, Any]:
    """As in the config of its checkpoint."""
    return {
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
    }


_ENCODING = (
    ("encode.h2d", Activity(0.05, 0.05, 0.05)),
    ("encode.vision_tower", Activity(1.0, 0.25, 0.75)),
    ("encode.projector", Activity(1.0, 0.25, 0.75)),
)
_FIRST_ID = 1000
_PIECES = [word + " " for word in TEXT.split()]


def _token_id(index: int) -> int:
    return _FIRST_ID + index % len(_PIECES)
