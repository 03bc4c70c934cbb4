"""What can go wrong on purpose in a simulated session: faults that a plan orders, one table each.

In a plan file ``faults = [{kind = "drift", percent = 2}]``; on the command line, and in a plan as well, as text:
``drift=2%``, ``spikes=5%,size=40%``, ``hang,run=7``. Runs are counted as the model is executed: 1 is the cold start.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec


class FaultError(ValueError):
    """No fault that can be injected: the message says which there are, or which value cannot be."""


class Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"
):
    """What every fault has: when it holds."""

    first: int = 1
    """The run that it begins with."""
    runs: int = 0
    """How many runs it lasts; 0: until the end."""


class Drift(Fault, frozen=True, tag="drift"):
    """Every stage gets slower, by this much over as many runs as the plan measures; no counter shows why."""

    percent: float = 2.0


class Spikes(Fault, frozen=True, tag="spikes"):
    """That share of runs takes longer, by half to one and a half times ``size`` percent."""

    percent: float = 5.0
    size: float = 30.0


class ArNoise(Fault, frozen=True, tag="ar-noise"):
    """Noise that remembers: each run's share of it is ``correlation`` of the one before."""

    percent: float = 2.0
    """Standard deviation."""
    correlation: float = 0.8


class SlowStart(Fault, frozen=True, tag="slow-start"):
    """The first runs are slower by this much, less with each: a machine that was not warmed up."""

    percent: float = 80.0
    runs: int = 6


class Throttle(Fault, frozen=True, tag="throttle"):
    """The GPU is too hot or too hungry: its SM clock falls by this much, and the driver says so."""

    percent: float = 20.0
    reason: Literal["thermal", "hw-thermal", "hw-slowdown", "power-brake"] = "thermal"
    cools_s: float = 0.0
    """Simulated seconds without work after which it is over; 0: never."""


class PowerCap(Fault, frozen=True, tag="power-cap"):
    """The power limit is lower by this much, and the clock falls under load to keep it."""

    percent: float = 50.0


class Clocks(Fault, frozen=True, tag="clocks"):
    """The SM clock wanders from run to run within this much, and nobody gives a reason."""

    percent: float = 10.0


class Foreign(Fault, frozen=True, tag="foreign"):
    """Another process computes on the GPU for that share of the time, and holds memory."""

    percent: float = 20.0
    memory_gib: float = 3.0
    listed: bool = True
    """Whether the driver tells of it; in a container it may not."""


class Load(Fault, frozen=True, tag="load"):
    """The host is busy with something else: that load a core, and host stages take twice as long."""

    average: float = 3.0


class Tokens(Fault, frozen=True, tag="tokens"):
    """In that share of runs the answer ends early."""

    percent: float = 30.0


class Gap(Fault, frozen=True, tag="gap"):
    """That share of a run's time is in none of its steps."""

    percent: float = 10.0


class EarlyStop(Fault, frozen=True, tag="early-stop"):
    """A timing bug: the clock of prefill stops after that share of it, before the device is done."""

    percent: float = 5.0


class OutOfMemory(
    Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="out-of-memory"
):
    """Memory runs out in the prefill of that run."""

    run: int = 8


class Hang(Fault, frozen=True, tag="hang"):
    """In that run a kernel does not come back."""

    run: int = 8
    seconds: float = 0.0
    """Simulated; 0: it never does."""
    deaf: bool = False
    """Whether the worker hears no control meanwhile."""


class Crash(Fault, frozen=True, tag="crash"):
    """In that run the worker is killed."""

    run: int = 8
    signal: int = 9


AnyFault = (
    Drift
    | Spikes
    | ArNoise
    | SlowStart
    | Throttle
    | PowerCap
    | Clocks
    | Foreign
    | Load
    | Tokens
    | Gap
    | EarlyStop
    | OutOfMemory
    | Hang
    | Crash
)
KINDS: dict[str, type[Fault]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyFault)}

_LIMITS: dict[str, tuple[float, float]] = {
    "percent": (0, 1000),
    "size": (0, 100_000),
    "correlation": (0, 0.999),
    "memory_gib": (0, 1024),
    "average": (0, 1000),
    "seconds": (0, 1e6),
    "cools_s": (0, 1e6),
    "first": (1, 1e9),
    "runs": (0, 1e9),
    "run": (1, 1e9),
    "signal": (1, 64),
}
_AT_MOST_ALL = (Throttle, PowerCap, Clocks, Foreign, Tokens, Gap, EarlyStop, Spikes)
"""Their percentage is a share: below 100."""


def parse(text: str) -> dict[str, Any]:
    """A fault written as on a command line: its kind, then ``=`` and its own figure, then ``,name=value``. Raises
    :class:`FaultError` for what is no such thing; the values are checked by :func:`problem`."""
    head, *rest = [part.strip() for part in text.split(",")]
    name, equals, value = (part.strip() for part in head.partition("="))
    kind = KINDS.get(name)
    if kind is None:
        import difflib

        close = difflib.get_close_matches(name, KINDS, n=1)
        raise FaultError(f"no fault {name!r}; " + (f"did you mean {close[0]}?" if close else f"{', '.join(KINDS)}"))
    own = [field for field in kind.__annotations__ if field != "runs"]
    table: dict[str, Any] = {"kind": name}
    if equals:
        table[own[0]] = _value(kind, own[0], value)
    for part in rest:
        field, _, value = (piece.strip() for piece in part.partition("="))
        if field not in kind.__struct_fields__:
            raise FaultError(f"{name} has no {field!r}; it has {', '.join(kind.__struct_fields__)}")
        table[field] = _value(kind, field, value)
    return table


def as_text(fault: Fault) -> str:
    """The fault as :func:`parse` takes it; values at their default are left out."""
    table = msgspec.to_builtins(fault)
    values = [
        f"{field}={('no', 'yes')[value] if isinstance(value, bool) else value}"
        for field, value in table.items()
        if field != "kind"
    ]
    return ",".join([table["kind"], *values])


def problem(fault: Fault) -> str:
    """Why this fault cannot be injected, or ""."""
    name = fault.__struct_config__.tag
    for field, (least, most) in _LIMITS.items():
        value = getattr(fault, field, None)
        if value is not None and not least <= value <= most:
            return f"{name}: {field} {value:g} is outside {least:g}…{most:g}"
    if isinstance(fault, _AT_MOST_ALL) and not getattr(fault, "percent") < 100:  # noqa: B009 - not all of a union's
        return f"{name}: percent {fault.percent:g} must be below 100"
    return ""


def _value(kind: type[Fault], field: str, text: str) -> Any:
    default = {info.name: info.default for info in msgspec.structs.fields(kind)}[field]
    if isinstance(default, bool):
        if text.lower() not in ("", "yes", "true", "no", "false"):
            raise FaultError(f"{field}: {text!r} is not yes or no")
        return text.lower() in ("", "yes", "true")
    if isinstance(default, str):
        return text
    try:
        return type(default)(text.removesuffix("%").removesuffix("GiB").strip())
    except ValueError:
        raise FaultError(f"{field}: {text!r} is no {'whole ' if isinstance(default, int) else ''}number") from None
