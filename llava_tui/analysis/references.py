"""Published figures to hold a session against. References, never results: whoever shows one shows its label."""

from __future__ import annotations

from dataclasses import dataclass

UNVERIFIED = "simulated, unverified"
"""By what their author says of them: the times came from timed sleeps, not from a model."""


@dataclass(frozen=True, slots=True)
class ReferenceStep:
    title: str
    share: float
    """Of the run's time, 0…1."""
    ns: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """One model's published steps."""

    model: str
    label: str
    source: str
    steps: tuple[ReferenceStep, ...]
    encode_ns_by_frames: tuple[tuple[int, float], ...] = ()
    generate_std_ns: float | None = None


_SOURCE = "the tool that llava-tui follows (AveragingProfiler), its README"

LLAVA = Reference(
    model="LLaVA-7B",
    label=UNVERIFIED,
    source=_SOURCE,
    steps=(
        ReferenceStep("1 frames", 0.0002, 0.2e6),
        ReferenceStep("2 encode", 0.1083, 126.4e6),
        ReferenceStep("3 generate", 0.8916, 1041.1e6),
    ),
    encode_ns_by_frames=((1, 128.6e6), (2, 119.2e6), (3, 122.6e6)),
    generate_std_ns=9.8e6,
)

EVENTGPT = Reference(
    model="EventGPT",
    label=UNVERIFIED,
    source=_SOURCE,
    steps=tuple(
        ReferenceStep(f"step {number}", share)
        for number, share in enumerate((0.0988, 0.0241, 0.1880, 0.0147, 0.6745), start=1)
    ),
)
