"""What the faults of a plan make of each run of a simulated session. Seeded: the same plan goes wrong the same way."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from llava_tui.faults import (
    AnyFault,
    ArNoise,
    Clocks,
    Crash,
    Drift,
    EarlyStop,
    Fault,
    Foreign,
    Gap,
    Hang,
    Load,
    OutOfMemory,
    PowerCap,
    SlowStart,
    Spikes,
    Throttle,
    Tokens,
)

THROTTLE_BITS = {"hw-slowdown": 0x8, "thermal": 0x20, "hw-thermal": 0x40, "power-brake": 0x80}
"""NVML's clocks-event reasons."""


@dataclass(slots=True)
class Effects:
    """What is different in one run. Factors are of time, but for the clock's."""

    names: list[str] = field(default_factory=list)
    """Kinds of the faults that hold."""
    time: float = 1.0
    """Every stage."""
    host: float = 1.0
    device: float = 1.0
    clock: float = 1.0
    """Share of its clock that the GPU is left with."""
    power: float = 1.0
    """Share of its power limit."""
    throttle: int = 0
    """NVML's reasons, a bit mask."""
    foreign: Foreign | None = None
    load: float | None = None
    """Of each core of the host."""
    gap: float = 0.0
    """Share of the wall time that no stage has."""
    tokens: float = 1.0
    """Share of the new tokens that come."""
    seen: float = 1.0
    """Share of prefill after which its clock stops."""
    out_of_memory: bool = False
    hang: Hang | None = None
    crash: Crash | None = None


class FaultCourse:
    """The faults of one session. ``span``: how many runs the plan measures."""

    def __init__(self, faults: Sequence[AnyFault], seed: int, span: int) -> None:
        self._faults = faults
        self._seed = seed
        self._span = max(span, 1)
        self._run = 0
        self._memory: dict[int, float] = {}
        self._over: set[int] = set()

    def before(self) -> Effects:
        """What is there before the first run: others on the machine."""
        there = [fault for fault in self._faults if fault.first == 1]
        return Effects(
            foreign=next((fault for fault in there if isinstance(fault, Foreign)), None),
            load=next((fault.average for fault in there if isinstance(fault, Load)), None),
        )

    def next(self, rested_ns: int = 0) -> Effects:
        """The next run's. ``rested_ns``: how long the GPU has had nothing to do."""
        self._run += 1
        effects = Effects()
        for place, fault in enumerate(self._faults):
            if isinstance(fault, Throttle) and 0 < fault.cools_s * 1e9 <= rested_ns and self._holds(place, fault):
                self._over.add(place)
            if self._holds(place, fault):
                chance = random.Random(f"{self._seed}/{fault.__struct_config__.tag}/{place}/{self._run}")
                if self._apply(place, fault, effects, chance):
                    effects.names.append(str(fault.__struct_config__.tag))
        return effects

    def _holds(self, place: int, fault: Fault) -> bool:
        if place in self._over or self._run < fault.first:
            return False
        return not fault.runs or self._run < fault.first + fault.runs

    def _apply(self, place: int, fault: AnyFault, effects: Effects, chance: random.Random) -> bool:
        """Whether the fault does anything in this run."""
        match fault:
            case Drift():
                effects.time *= 1 + fault.percent / 100 * (self._run - fault.first) / self._span
            case Spikes():
                if chance.random() >= fault.percent / 100:
                    return False
                effects.time *= 1 + fault.size / 100 * chance.uniform(0.5, 1.5)
            case ArNoise():
                effects.time *= math.exp(fault.percent / 100 * self._remembered(place, fault.correlation, chance))
            case SlowStart():
                left = 1 - (self._run - fault.first) / fault.runs if fault.runs else 1.0
                effects.time *= 1 + fault.percent / 100 * left
            case Throttle():
                effects.clock *= 1 - fault.percent / 100
                effects.throttle |= THROTTLE_BITS[fault.reason]
            case PowerCap():
                effects.power *= 1 - fault.percent / 100
            case Clocks():
                effects.clock *= 1 - fault.percent / 100 * chance.random()
            case Foreign():
                effects.foreign = fault
                effects.device *= 1 + fault.percent / 100 * chance.uniform(0.5, 1.5)
            case Load():
                effects.load = fault.average
                effects.host *= chance.uniform(1.5, 2.5)
            case Tokens():
                if chance.random() >= fault.percent / 100:
                    return False
                effects.tokens = chance.uniform(0.4, 0.9)
            case Gap():
                effects.gap = fault.percent / 100
            case EarlyStop():
                effects.seen = fault.percent / 100
            case OutOfMemory():
                effects.out_of_memory = self._run == fault.run
                return effects.out_of_memory
            case Hang():
                if self._run != fault.run:
                    return False
                effects.hang = fault
            case Crash():
                if self._run != fault.run:
                    return False
                effects.crash = fault
        return True

    def _remembered(self, place: int, correlation: float, chance: random.Random) -> float:
        """The next value of an autoregressive series of variance 1."""
        before = self._memory.get(place)
        new = chance.gauss(0, 1)
        value = new if before is None else correlation * before + math.sqrt(1 - correlation**2) * new
        self._memory[place] = value
        return value
