"""The machine in figures: a line a GPU, a line of the host; where there is no figure, the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llava_tui.analysis.machine import gpus_of
from llava_tui.tui.widgets import figures
from llava_tui.tui.widgets.cells import TEXT, Line, clip, fit, join, right
from llava_tui.tui.widgets.figures import NONE
from llava_tui.tui.widgets.look import Look
from llava_tui.tui.widgets.plots import greatest

if TYPE_CHECKING:
    from llava_tui.events import GpuDevice
    from llava_tui.session.timeline import View

THROTTLE = (
    (0x40, "thermal throttling", "bad"),
    (0x20, "thermal throttling", "bad"),
    (0x80, "power brake", "bad"),
    (0x08, "hardware slowdown", "bad"),
    (0x04, "power cap", "warn"),
)
"""NVML's clocks-event reasons that slow a run down."""


_SHOWN = {
    "utilization": "util",
    "memory_used": "mem",
    "power_mw": "power",
    "temperature_c": "temperature",
    "sm_clock_mhz": "clock",
    "energy_mj": "energy",
}
"""The fields of a sample that have a place here, by the word for them."""


def gpus(view: View) -> list[int]:
    """The GPUs that were found, by index."""
    return sorted(view.devices)


def gpus_shown(view: View, look: Look, room: int) -> list[int]:
    """The GPU that was chosen; else as many as there is ``room`` for, if not all then the model's own first."""
    found = gpus(view)
    if look.gpu in found:
        return [look.gpu]
    if len(found) <= room:
        return found
    own = model_gpus(view, look)
    return sorted(sorted(found, key=lambda gpu: (gpu not in own, gpu))[: max(room, 0)])


def model_gpus(view: View, look: Look) -> list[int]:
    """The GPUs that the model is on, where there are several. Known from the end of the first run on: by then it is
    where it stays."""
    runs = view.runs
    if len(view.devices) < 2:
        return []
    if runs.n < 2:
        return []
    then = view.timeline.at(int(runs["t"][1]))
    return look.once("model's GPUs", (then.t, then.samples.n, then.processes.n), lambda: gpus_of(then))


def rows_wanted(view: View) -> tuple[int, int]:
    """Lines at the least and at the most. Without a GPU the host is what there is to see."""
    found = len(gpus(view))
    return (1, found + bool(view.host.n)) if found else (2, 2)


def gauges_key(view: View, look: Look) -> object:
    """Readings, what there is to read from, and which of it was chosen."""
    return (view.samples.n, view.host.n, view.absences.n, len(view.devices), view.models.n, view.runs.n, look.gpu)


def draw_gauges(view: View, look: Look, width: int, height: int) -> list[Line]:
    """The GPUs in order, then the host."""
    found = gpus(view)
    shown = found if len(found) <= height else gpus_shown(view, look, height)
    lines = [_gpu_line(view, look, gpu, width) for gpu in shown] or [_no_gpu_line(view, width)]
    if len(lines) < height and (view.host.n or not found):
        lines.append(_host_line(view, width))
    return lines[:height]


def _newest(view: View, gpu: int) -> dict[str, Any] | None:
    samples = view.samples
    for index in range(samples.n - 1, max(samples.n - 257, -1), -1):
        if int(samples["gpu"][index]) == gpu:
            return samples.row(index)
    return None


def _gpu_line(view: View, look: Look, gpu: int, width: int) -> Line:
    device = view.devices[gpu]
    name = _short_name(device)
    reasons = view.absent(gpu)
    start: Line = [(f" GPU {gpu} ", TEXT), (name, "strong")]
    if "*" in reasons:
        return join([start, [(f"✗ {reasons['*']}", "bad")]], 2, width)
    row = _newest(view, gpu) or {}
    total = device.memory_total
    used, mine = row.get("memory_used"), row.get("worker_memory")
    memory: Line = [("mem ", "dim"), (right(figures.gib(used), 5), TEXT), (f"/{figures.gib(total)} GiB", "dim")]
    if mine is not None:
        memory.append((f" (run {figures.gib(mine)})", "dim"))
    elif (reserved := look.once("reserved", view.runs.n, lambda: _reserved(view))) is not None:
        # Where the driver does not know the worker by its PID (containers): what its allocator holds.
        memory.append((f" (torch {figures.gib(reserved)})", "dim"))
    power, limit = row.get("power_mw"), row.get("power_limit_mw")
    watts = NONE if power is None else f"{power / 1000:.0f}"
    most = "" if limit is None else f"/{limit / 1000:.0f}"
    temperature, sm = row.get("temperature_c"), row.get("sm_clock_mhz")
    absent: dict[str, list[str]] = {}
    for field, word in _SHOWN.items():
        if field in reasons and row.get(field) is None:
            absent.setdefault(reasons[field], []).append(word)
    parts: list[Line] = [start]
    # In the place of figures, so that a narrow screen loses something else.
    parts += [[(f"{NONE} {', '.join(words)}: {reason}", "dim")] for reason, words in absent.items()]
    missing = {word for words in absent.values() for word in words}
    if "util" not in missing:
        parts.append([("util ", "dim"), (right(figures.percent(row.get("utilization")), 5), TEXT)])
    if "mem" not in missing:
        parts.append(memory)
    if slowed := _throttle(row.get("throttle")):
        parts.append([("⚠ " + slowed[0], slowed[1])])
    if "power" not in missing:
        parts.append([(right(watts, 3), TEXT), (f"{most} W", "dim")])
    if "temperature" not in missing:
        parts.append([(NONE if temperature is None else f"{temperature:.0f}", TEXT), (" °C", TEXT)])
    if "clock" not in missing:
        parts.append([(NONE if sm is None else f"{sm:.0f}", TEXT), (" MHz", TEXT)])
    so_far = view.samples.n
    peak = look.once(f"peak {gpu}", so_far, lambda: _peak(view, gpu))
    spent = look.once(f"energy {gpu}", so_far, lambda: _energy(view, gpu))
    if peak is not None:
        parts.append([("▲peak ", "dim"), (figures.gib(peak), TEXT)])
    if spent is not None:
        parts.append([(figures.energy(spent), TEXT)])
    return join(parts, 2, width)


def _short_name(device: GpuDevice) -> str:
    name = device.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    # A simulated session says so in its heading.
    name = name.removesuffix(" (simulated)")
    return clip(name, 20) + (" (MIG)" if device.mig else "")


def _throttle(bits: float | None) -> tuple[str, str] | None:
    if bits is None:
        return None
    return next(((word, style) for bit, word, style in THROTTLE if int(bits) & bit), None)


def _reserved(view: View) -> float | None:
    """The most that the allocator held on the device in the newest run."""
    stages = view.stages
    if stages.n == 0:
        return None
    held = np.asarray(stages["reserved"])[-64:][np.asarray(stages["run"])[-64:] == stages["run"][-1]]
    return float(np.nanmax(held)) if np.isfinite(held).any() else None


def _peak(view: View, gpu: int) -> float | None:
    """The most memory in use since the session began, bytes."""
    samples = view.samples
    return greatest(samples["memory_used"][samples["gpu"] == gpu])


def _energy(view: View, gpu: int) -> float | None:
    """Joules since the session began."""
    samples = view.samples
    counter = samples["energy_mj"][samples["gpu"] == gpu]
    counter = counter[np.isfinite(counter)]
    return float(counter[-1] - counter[0]) / 1000 if counter.size else None


def _no_gpu_line(view: View, width: int) -> Line:
    reason = view.absent(-1).get("*", "")
    if not reason:
        reason = "waiting for the first reading" if view.host.n == 0 else "none was found"
    return fit([(" GPU    " if width > 40 else " GPU ", TEXT), (f"{NONE} ", TEXT), (reason, "dim")], width)


def _host_line(view: View, width: int) -> Line:
    row: dict[str, Any] = view.host.row(-1) if view.host.n else {}
    load, rss = row.get("load"), row.get("worker_rss")
    parts: list[Line] = [
        [(" host   ", TEXT), ("CPU ", "dim"), (right(figures.percent(row.get("cpu")), 5), TEXT)],
        [
            ("mem ", "dim"),
            (right(figures.gib(row.get("memory_used")), 5), TEXT),
            (f"/{figures.gib(row.get('memory_total'))} GiB", "dim"),
        ],
        [("worker ", "dim"), (right(figures.percent(row.get("worker_cpu")), 5), TEXT), (" of a core", "dim")],
        [("RSS ", "dim"), (right(figures.memory(rss), 8), TEXT)],
        [("load ", "dim"), (NONE if load is None else f"{load:.2f}", TEXT)],
    ]
    return join(parts, 2, width)
