"""The machine: figures and strips of each GPU and of the host, with the step ribbon beneath on the same time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llava_tui.tui.theme import step_style
from llava_tui.tui.widgets import figures, plots
from llava_tui.tui.widgets.axis import Axis, axis_of, ribbon, ruler
from llava_tui.tui.widgets.cells import TEXT, Line, fit, join, left, right
from llava_tui.tui.widgets.course import LOAD, step_paths, step_spans
from llava_tui.tui.widgets.look import Look

if TYPE_CHECKING:
    from llava_tui.events import GpuDevice
    from llava_tui.session.timeline import View

LABEL = 7
FIGURE = 9
HOLD_NS = 2_000_000_000
"""A reading is held this long where none follows: the driver's own figures are up to a second old."""

THROTTLE = (
    (0x40, "thermal throttling", "bad"),
    (0x20, "thermal throttling", "bad"),
    (0x80, "power brake", "bad"),
    (0x08, "hardware slowdown", "bad"),
    (0x04, "power cap", "warn"),
)
"""NVML's clocks-event reasons that slow a run down."""


def gpus(view: View) -> list[int]:
    """The GPUs that were found, by index."""
    return sorted(view.devices)


def rows_wanted(view: View) -> int:
    """Lines that show all of it: figures of each GPU and of the host, two strips a GPU, ribbon, ruler."""
    found = len(gpus(view))
    return found * 3 + 1 + 2 if found else 2 + 2 + 2


def machine_key(view: View, look: Look) -> object:
    """The axis moves with the time, so a drawing is as good as the tenth of a second it was made in."""
    return view.t // 100_000_000


def draw_machine(view: View, look: Look, width: int, height: int) -> list[Line]:
    """As much as ``height`` takes: the figures, the ribbon, utilization, memory, the ruler, further GPUs, the host."""
    found = gpus(view)
    axis = axis_of(view, max(width - LABEL - FIGURE, 1), page=look.page)
    head: list[Line] = [_gpu_line(view, gpu, width) for gpu in found] or [_no_gpu_line(view, width)]
    host = _host_line(view, width)
    if not found:
        head.append(host)
    strips = [strip for gpu in found for strip in _gpu_strips(view, gpu, axis, len(found) > 1)] or _host_strips(
        view, axis
    )
    foot: list[Line] = [_ribbon_line(view, axis)]

    # The first figures and the ribbon come first; then strips, the ruler, further figures.
    lines = head[:1]
    room = height - len(lines)
    tail: list[Line] = []
    if room > 0:
        tail = foot
        room -= 1
    if not found and room > 0:
        lines.append(head[1])
        room -= 1
        head = head[:1]
    shown_strips = strips[: max(room, 0)]
    room -= len(shown_strips)
    if room > 0:
        tail = [*foot, [(" " * LABEL, TEXT), (ruler(axis, view.timeline.start), "dim")]]
        room -= 1
    more = head[1:][: max(room, 0)]
    room -= len(more)
    if found and room > 0:
        more.append(host)
    drawn = [*lines, *more, *(_strip_line(strip, axis, width) for strip in shown_strips), *tail]
    return [fit(line, width) for line in drawn[:height]]


# --- figures --------------------------------------------------------------------------------------------------------


def _newest(view: View, gpu: int) -> dict[str, Any] | None:
    samples = view.samples
    for index in range(samples.n - 1, max(samples.n - 257, -1), -1):
        if int(samples["gpu"][index]) == gpu:
            return samples.row(index)
    return None


def _gpu_line(view: View, gpu: int, width: int) -> Line:
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
    power, limit = row.get("power_mw"), row.get("power_limit_mw")
    watts = figures.NONE if power is None else f"{power / 1000:.0f}"
    most = "" if limit is None else f"/{limit / 1000:.0f}"
    temperature, sm = row.get("temperature_c"), row.get("sm_clock_mhz")
    parts: list[Line] = [start, [("util ", "dim"), (right(figures.percent(row.get("utilization")), 5), TEXT)], memory]
    if slowed := _throttle(row.get("throttle")):
        parts.append([("⚠ " + slowed[0], slowed[1])])
    parts += [
        [(right(watts, 3), TEXT), (f"{most} W", "dim")],
        [(f"{temperature:.0f} °C" if temperature is not None else f"{figures.NONE} °C", TEXT)],
        [(f"{sm:.0f} MHz" if sm is not None else f"{figures.NONE} MHz", TEXT)],
    ]
    peak, spent = _peak(view, gpu), _energy(view, gpu)
    if peak is not None:
        parts.append([("▲peak ", "dim"), (figures.gib(peak), TEXT)])
    if spent is not None:
        parts.append([(figures.energy(spent), TEXT)])
    if missing := [f"{field}: {reason}" for field, reason in reasons.items()]:
        parts.append([(missing[0] + (f" (+{len(missing) - 1})" if len(missing) > 1 else ""), "dim")])
    return join(parts, 2, width)


def _short_name(device: GpuDevice) -> str:
    name = device.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return left(name, min(len(name), 18)) + (" (MIG)" if device.mig else "")


def _throttle(bits: float | None) -> tuple[str, str] | None:
    if bits is None:
        return None
    return next(((word, style) for bit, word, style in THROTTLE if int(bits) & bit), None)


def _peak(view: View, gpu: int) -> float | None:
    samples = view.samples
    used = np.asarray(samples["memory_used"], dtype=np.float64)[np.asarray(samples["gpu"]) == gpu]
    return float(np.nanmax(used)) if used.size and np.isfinite(used).any() else None


def _energy(view: View, gpu: int) -> float | None:
    """Joules since the session began."""
    samples = view.samples
    counter = np.asarray(samples["energy_mj"], dtype=np.float64)[np.asarray(samples["gpu"]) == gpu]
    counter = counter[np.isfinite(counter)]
    return float(counter[-1] - counter[0]) / 1000 if counter.size else None


def _no_gpu_line(view: View, width: int) -> Line:
    reason = view.absent(-1).get("*", "")
    if not reason:
        reason = "waiting for the first reading" if view.host.n == 0 else "none was found"
    return (
        join([[(" GPU    ", TEXT), (f"{figures.NONE} ", TEXT), (reason, "dim")]], 0, width)
        if width > 40
        else fit([(" GPU — ", TEXT), (reason, "dim")], width)
    )


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
        [("load ", "dim"), (figures.NONE if load is None else f"{load:.2f}", TEXT)],
    ]
    return join(parts, 2, width)


# --- strips ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strip:
    """One quantity over the axis: two values a cell, 0…1."""

    label: str
    levels: plots.Floats
    top: str
    """What the full height stands for."""
    style: str
    peak: int | None = None
    """The cell to mark as the greatest of the window."""


def _gpu_strips(view: View, gpu: int, axis: Axis, several: bool) -> list[Strip]:
    samples = view.samples
    first = int(np.searchsorted(samples["t"], axis.start - HOLD_NS))
    mine = np.asarray(samples["gpu"])[first:] == gpu
    at = np.asarray(samples["t"])[first:][mine]

    def column(name: str) -> plots.Floats:
        values: plots.Floats = np.asarray(samples[name], dtype=np.float64)[first:][mine]
        return values

    suffix = str(gpu) if several else ""
    strips = [Strip("util" + suffix, _folded(axis, at, column("utilization") / 100, "mean"), "100 %", "accent")]
    total = view.devices[gpu].memory_total
    used = column("memory_used")
    top = float(total) if total else plots.nice(float(np.nanmax(used))) if np.isfinite(used).any() else 1.0
    levels = _folded(axis, at, used / top, "max")
    strips.append(Strip("mem" + suffix, levels, f"{figures.gib(top)} GiB", "memory", _peak_cell(levels)))
    return strips


def _host_strips(view: View, axis: Axis) -> list[Strip]:
    host = view.host
    first = int(np.searchsorted(host["t"], axis.start - HOLD_NS))
    at = np.asarray(host["t"])[first:]
    cpu = np.asarray(host["cpu"], dtype=np.float64)[first:]
    rss = np.asarray(host["worker_rss"], dtype=np.float64)
    greatest = float(np.nanmax(rss)) if np.isfinite(rss).any() else 2.0**30
    # In steps, so that a growing peak does not scale the whole strip anew at every sample.
    top = plots.nice(greatest / 2**30) * 2**30
    levels = _folded(axis, at, rss[first:] / top, "max")
    return [
        Strip("cpu", _folded(axis, at, cpu / 100, "mean"), "100 %", "accent"),
        Strip("rss", levels, f"{top / 2**30:g} GiB", "memory", _peak_cell(levels)),
    ]


def _folded(axis: Axis, at: np.ndarray, values: plots.Floats, how: str) -> plots.Floats:
    """Two slots a cell; nothing after now."""
    half = max(axis.cell // 2, 1)
    count = min(max((axis.now - axis.start) // half + 1, 0), axis.width * 2)
    return plots.fold(at, values, axis.start, half, int(count), how, HOLD_NS)


def _peak_cell(levels: plots.Floats) -> int | None:
    """The cell of the window's first greatest value, where it stands out at all."""
    if not np.isfinite(levels).any() or float(np.nanmax(levels)) - float(np.nanmin(levels)) < 0.01:
        return None
    return int(np.nanargmax(levels)) // 2


def _strip_line(strip: Strip, axis: Axis, width: int) -> Line:
    cells = plots.strip(strip.levels)[0][: axis.width].ljust(axis.width)
    line: Line = [(right(strip.label, LABEL - 1) + " ", "dim")]
    if strip.peak is not None and strip.peak < axis.width:
        line += [(cells[: strip.peak], strip.style), ("▲", "warn"), (cells[strip.peak + 1 :], strip.style)]
    else:
        line.append((cells, strip.style))
    line.append((right(strip.top, FIGURE), "dim"))
    return line


def _ribbon_line(view: View, axis: Axis) -> Line:
    line: Line = [(right("step", LABEL - 1) + " ", "dim")]
    for code in ribbon(step_spans(view, axis.start), axis):
        if code is None:
            line.append(("·", "track"))
        elif code == LOAD:
            line.append(("L", "dim"))
        else:
            line.append((str((code + 1) % 10), step_style(code)))
    missing = axis.width - axis.filled
    line.append((" " * missing, TEXT))
    line.append((right(f"{len(step_paths(view))} steps" if step_paths(view) else "", FIGURE), "dim"))
    return line
