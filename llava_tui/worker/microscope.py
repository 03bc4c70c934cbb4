"""One run under torch's profiler: which operators each stage consists of, and how much of its span they fill.

The profiler slows a run down, so nothing of it enters the statistics. What it is good for is proportions: where the
operators (on an accelerator: the kernels they launched) fill much less than their stage's span, the stage waits for
whoever launches them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_tui.events import Operator, Profile, StageInfo, StageProfile
from llava_tui.pipelines.base import Probe
from llava_tui.worker.recorder import Spans

TRACE = "trace.json.gz"
PREFIX = "stage:"
"""How the profiler's record of a stage is named in the trace, before the stage's path."""
TOP = 8
"""Operators kept a stage."""


class AnnotatedProbe:
    """Tells the profiler of every stage, just outside the marks of the probe that measures."""

    def __init__(self, probe: Probe, record: Callable[[str], Any]) -> None:
        self.check = probe.check
        self.token = probe.token
        self._probe = probe
        self._record = record
        self._open: dict[str, list[Any]] = defaultdict(list)

    def begin(self, stage: str) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`."""
        span = self._record(stage)
        self._open[stage].append(span)
        span.__enter__()
        self._probe.begin(stage)

    def end(self, stage: str) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`."""
        self._probe.end(stage)
        if self._open[stage]:
            self._open[stage].pop().__exit__(None, None, None)


class Microscope:
    """A profiler around one run, as a context; :meth:`report` afterwards."""

    def __init__(self, device: str) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile, record_function

        self._device = device.split(":")[0]
        activities = [ProfilerActivity.CPU]
        if self._device == "cuda" and torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        else:
            self._device = "cpu"
        self._profile: Any = profile(activities=activities, acc_events=True)
        self._mixed: set[str] = set()
        # Two kinds of records. One costs 4 µs a stage, is not public, and is seen on the host alone; the other 80 µs,
        # most of it between its marks and ours, and the device has a record of it as well.
        self._slow: Callable[[str], Any] = record_function
        self._quick: Callable[[str], Any] = getattr(torch._C._profiler, "_RecordFunctionFast", record_function)

    def probe(self, probe: Probe, stages: Iterable[StageInfo]) -> Probe:
        """The probe that a run of these stages within this context is to be given."""
        on_device = {info.path for info in stages if info.side == "device"} if self._device != "cpu" else set()
        # From the host's clock to the device's, or the other way: the profiler has no such record.
        self._mixed = {path.rpartition(".")[0] for path in on_device} - on_device
        return AnnotatedProbe(probe, lambda path: (self._slow if path in on_device else self._quick)(PREFIX + path))

    def __enter__(self) -> Microscope:
        self._profile.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._profile.__exit__(*exception)

    def report(self, t: int, run: int, case: str, spans: Spans, folder: Path | None) -> Profile:
        """What was seen; the trace is written into ``folder``. Raises ``OSError`` where that cannot be."""
        seen = [_seen(event, self._device) for event in self._profile.events()]
        stages = attribute([event for event in seen if event is not None], spans, self._mixed)
        trace = ""
        if folder is not None:
            self._profile.export_chrome_trace(str(folder / TRACE))
            trace = TRACE
        return Profile(t=t, run=run, case=case, device=self._device, stages=stages, trace=trace)


@dataclass(frozen=True, slots=True)
class Seen:
    """One of the profiler's events; times in µs."""

    name: str
    start: float
    end: float
    thread: int
    own: float
    """Of an operator: the time that counts for it and not for those within it."""
    on_device: bool = False
    """Of a stage: as the device went through it."""


def _seen(event: Any, device: str) -> Seen | None:
    """What of torch's ``FunctionEvent`` is used here; ``None`` for what is neither an operator nor a stage."""
    import torch

    on_host = event.device_type == torch.autograd.DeviceType.CPU
    start, end = event.time_range.start, event.time_range.end
    if event.name.startswith(PREFIX):
        return Seen(event.name, start, end, event.thread, 0.0, on_device=not on_host)
    if not on_host or event.name.startswith(("ProfilerStep", "PyTorch Profiler")):
        return None
    own = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
    return Seen(event.name, start, end, event.thread, own)


def attribute(events: Iterable[Seen], spans: Spans, mixed: Container[str] = ()) -> list[StageProfile]:
    """Each stage's operators: those that began within the profiler's record of it, on the same thread. A stage's
    parents have them too. Of ``mixed`` stages the profiler's own time is left out."""
    operators: list[Seen] = []
    records: dict[str, list[Seen]] = defaultdict(list)
    for event in events:
        if event.name.startswith(PREFIX):
            records[event.name.removeprefix(PREFIX)].append(event)
        else:
            operators.append(event)
    operators.sort(key=lambda event: event.start)
    found = []
    for path, span in zip(spans.stages, spans.durations, strict=True):
        host = [record for record in records[path] if not record.on_device]
        # Where the device has a record of its own, our span is the device's as well.
        timed = [record for record in records[path] if record.on_device] or host
        whole = round(sum(record.end - record.start for record in timed) * 1e3)
        recorded = whole if timed and path not in mixed else None
        times: dict[str, float] = defaultdict(float)
        calls: dict[str, int] = defaultdict(int)
        for operator in _within(operators, host):
            times[operator.name] += operator.own
            calls[operator.name] += 1
        top = sorted((name for name in times if times[name] > 0), key=lambda name: -times[name])[:TOP]
        found.append(
            StageProfile(
                path=path,
                span=span,
                recorded=recorded,
                operators=round(sum(times.values()) * 1e3) if host else None,
                top=[Operator(name, round(times[name] * 1e3), calls[name]) for name in top],
            )
        )
    return found


def _within(operators: Sequence[Seen], records: Sequence[Seen]) -> list[Seen]:
    """The operators (by start) that began within one of the records, on its thread."""
    from bisect import bisect_left

    starts = [operator.start for operator in operators]
    found = []
    for record in records:
        first, last = bisect_left(starts, record.start), bisect_left(starts, record.end)
        found += [operator for operator in operators[first:last] if operator.thread == record.thread]
    return found
