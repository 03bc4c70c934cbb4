"""Cool-down: a run in which the GPU throttled, or was 5 °C warmer than in round 1, is taken back and tried again after
a rest. At most three times a session: what rests do not mend has to be seen in the figures."""

from __future__ import annotations

from collections.abc import Callable

from llava_tui.events import CoolDown, GpuSample
from llava_tui.worker.clock import Clock
from llava_tui.worker.rules import HEAT_BITS, HOTTER_C, throttling
from llava_tui.worker.vitals import Vitals

MOST = 3
LEAST_REST_S = 2.0
LONGEST_REST_S = 60.0
LOOK_S = 0.1
COOLER_C = 2.0
"""A rest lasts until the GPU is within this of round 1, so that the next run is not taken back at once."""


class Cooling:
    """Judges measured runs by the GPU's samples, and lets it rest."""

    def __init__(self, vitals: Vitals, clock: Clock) -> None:
        self._vitals = vitals
        self._clock = clock
        self._first_round: dict[int, float] = {}
        """The highest temperature of each GPU in round 1."""
        self.attempts = 0

    def why(self, start: int, round_: int | None) -> str:
        """Why the measured run since ``start`` (ns) is to be taken back; "" where it stays, or where rests were tried
        often enough."""
        self._vitals.read()
        samples = self._vitals.since(start)
        why = "; ".join(filter(None, (_throttled(samples), self._hotter(samples, round_))))
        if why and self.attempts < MOST:
            return why
        if round_ == 0:
            for sample in samples:
                if sample.temperature_c is not None:
                    warmest = self._first_round.get(sample.gpu, sample.temperature_c)
                    self._first_round[sample.gpu] = max(warmest, sample.temperature_c)
        return ""

    def rest(self, run: int, why: str, hear: Callable[[], bool]) -> CoolDown:
        """Rests until the GPU is cool again, a minute at most; ``hear`` hears control and says whether to give up."""
        self.attempts += 1
        begin = now = self._clock.now()
        target = {gpu: warmest + COOLER_C for gpu, warmest in self._first_round.items()}
        latest = {sample.gpu: sample for sample in self._vitals.since(0)}
        for gpu, sample in latest.items():
            if sample.temperature_c is not None:
                target.setdefault(gpu, sample.temperature_c - HOTTER_C)
        while not hear() and now - begin < LONGEST_REST_S * 1e9:
            self._clock.rest(LOOK_S)
            now = self._clock.now()
            self._vitals.read()
            latest |= {sample.gpu: sample for sample in self._vitals.since(begin)}
            if now - begin >= LEAST_REST_S * 1e9 and all(_cool(sample, target) for sample in latest.values()):
                break
        warmest = [sample.temperature_c for sample in latest.values() if sample.temperature_c is not None]
        return CoolDown(
            t=now,
            run=run,
            why=why,
            attempt=self.attempts,
            waited=now - begin,
            temperature_c=max(warmest, default=None),
        )

    def _hotter(self, samples: list[GpuSample], round_: int | None) -> str:
        if not round_:
            return ""
        for sample in samples:
            before = self._first_round.get(sample.gpu)
            if before is not None and sample.temperature_c is not None and sample.temperature_c >= before + HOTTER_C:
                return f"GPU {sample.gpu} has {sample.temperature_c:.0f} °C, in round 1 it had {before:.0f} °C"
        return ""


def _throttled(samples: list[GpuSample]) -> str:
    for sample in samples:
        if (sample.throttle or 0) & HEAT_BITS:
            return f"GPU {sample.gpu} throttled: {throttling(sample.throttle or 0)}"
    return ""


def _cool(sample: GpuSample, target: dict[int, float]) -> bool:
    if (sample.throttle or 0) & HEAT_BITS:
        return False
    return sample.temperature_c is None or sample.temperature_c <= target.get(sample.gpu, float("inf"))
