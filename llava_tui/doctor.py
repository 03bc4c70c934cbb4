"""What was found on this machine, and how to mend what is missing: one page."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from llava_tui import __version__, models, units
from llava_tui.events import GpuAbsent, GpuDevice

TORCH_SECONDS = 60
"""Importing torch takes seconds, and on a cold disk much longer."""

_ASK_TORCH = """
import json, torch
accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
kind = accelerator.type if accelerator is not None and torch.accelerator.is_available() else "cpu"
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if kind == "cuda" else []
print(json.dumps({"kind": kind, "names": names, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}))
"""


class Finding(msgspec.Struct, frozen=True):
    """One line of the page."""

    topic: str
    state: Literal["ok", "note", "missing"]
    text: str
    mend: str = ""


def examine(sessions: Path) -> list[Finding]:
    """Looks at everything that llava-tui leans on. Takes some seconds where torch is there."""
    return [
        *_python(),
        *_libraries(),
        *_torch(),
        *_nvidia(),
        *_peaks(),
        *_models(),
        *_terminal(),
        *_folders(sessions),
    ]


def peaks() -> list[Finding]:
    """Measures this machine's peaks and keeps them. Takes some seconds; needs torch."""
    from llava_tui import measured_peaks

    if importlib.util.find_spec("torch") is None:
        return [Finding("peaks", "missing", "torch is not there to measure with", "pip install 'llava-tui[models]'")]
    try:
        record = measured_peaks.measure()
        file = measured_peaks.keep(record)
    except measured_peaks.PeaksError as error:
        return [Finding("peaks", "missing", str(error))]
    best = ", ".join(f"{units.number(value / 1e9, 'GFLOP/s')} {dtype}" for dtype, value in record.flops.items())
    text = f"{record.device}: {best}; memory {units.number(record.bandwidth / 1e9, 'GB/s')}"
    threads = f" on {units.counted(record.threads, 'thread')}" if record.threads else ""
    return [Finding("peaks", "ok", f"{text}{threads}"), Finding("kept in", "ok", str(file))]


def _peaks() -> Iterator[Finding]:
    from llava_tui import measured_peaks

    for known in measured_peaks.load().values():
        yield Finding("peaks", "ok", f"measured: {known.device}, memory {units.number(known.bandwidth / 1e9, 'GB/s')}")


def as_text(findings: list[Finding]) -> str:
    width = max(len(finding.topic) for finding in findings)
    marks = {"ok": "✓", "note": "·", "missing": "✗"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.topic:<{width}}  {finding.text}")
        if finding.mend:
            lines.append(f"  {'':<{width}}  → {finding.mend}")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    return msgspec.json.format(msgspec.json.encode(findings), indent=2).decode()


def _python() -> Iterator[Finding]:
    yield Finding(
        "python",
        "ok",
        f"{platform.python_version()} ({sys.executable}), llava-tui {__version__}, {platform.platform()}",
    )
    cores = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Finding("host", "ok", units.counted(cores, "core") + (f", {usable} usable here" if usable != cores else ""))


def _libraries() -> Iterator[Finding]:
    wanted = ("textual", "msgspec", "numpy", "psutil", "nvidia-ml-py")
    yield Finding("base", "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in wanted))
    there, missing = [], []
    for name in ("torch", "torchvision", "transformers", "accelerate", "pillow", "av"):
        try:
            there.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding(
            "models extra",
            "missing",
            "not found: " + ", ".join(missing) + (f" (found: {', '.join(there)})" if there else ""),
            "to profile models: pip install 'llava-tui[models]'; simulated runs and every view work without",
        )
    else:
        yield Finding("models extra", "ok", ", ".join(there))


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    # In a process of its own: torch costs seconds and memory, and a broken install may take its process down.
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS, check=True
        )
        facts = msgspec.json.decode(answer.stdout)
    except subprocess.TimeoutExpired:
        yield Finding(
            "accelerator", "missing", f"torch did not answer within {TORCH_SECONDS} s", "try: python -c 'import torch'"
        )
        return
    except (subprocess.CalledProcessError, msgspec.DecodeError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        yield Finding(
            "accelerator", "missing", f"torch fails to import: {said[-1] if said else 'no message'}", "reinstall torch"
        )
        return
    if facts["kind"] == "cpu":
        text = f"none: models run on the CPU with {units.counted(facts['threads'], 'thread')}"
        mend = "" if facts["cuda"] is None else f"torch was built for CUDA {facts['cuda']}; a GPU needs its driver"
        yield Finding("accelerator", "note", text, mend)
    else:
        names = ", ".join(facts["names"])
        yield Finding("accelerator", "ok", f"{facts['kind']}" + (f": {names} (CUDA {facts['cuda']})" if names else ""))


def _nvidia() -> Iterator[Finding]:
    from llava_tui.telemetry.nvml import Nvml

    for event in Nvml(os.getpid()).start():
        if isinstance(event, GpuDevice):
            text = f"GPU {event.gpu}: {event.name}, {units.size(event.memory_total)}"
            text += f", driver {event.driver}, CUDA {event.cuda}"
            yield Finding("NVML", "ok", text + (", MIG on" if event.mig else ""))
        elif isinstance(event, GpuAbsent) and "*" in event.reasons:
            mend = "GPU memory and utilization stay empty; host CPU and memory are recorded in any case"
            yield Finding("NVML", "note", event.reasons["*"], mend)
        elif isinstance(event, GpuAbsent):
            said = ", ".join(f"{field}: {reason}" for field, reason in sorted(event.reasons.items()))
            yield Finding("NVML", "note", f"GPU {event.gpu} does not tell {said}")


def _models() -> Iterator[Finding]:
    cache = models.hub_cache()
    if not cache.is_dir():
        yield Finding("HF cache", "note", f"{cache} does not exist yet: no model was downloaded here")
        return
    cached = [entry for entry in models.scan() if entry.source == "hub cache" and not entry.problem]
    count, total = units.counted(len(cached), "vision-language model"), units.size(sum(entry.bytes for entry in cached))
    yield Finding("HF cache", "ok", f"{cache}: {count}, {total}; see llava-tui models")
    if os.environ.get("HF_HUB_OFFLINE"):
        yield Finding("HF hub", "note", "HF_HUB_OFFLINE is set: only cached models load")


def _terminal() -> Iterator[Finding]:
    size = shutil.get_terminal_size()
    term = os.environ.get("TERM", "")
    colour = os.environ.get("COLORTERM", "")
    inside = "tmux" if os.environ.get("TMUX") else "screen" if os.environ.get("STY") else ""
    parts = [f"{size.columns}×{size.lines}", f"TERM={term or 'unset'}"]
    parts.append(
        "true colour" if colour in ("truecolor", "24bit") else "256 colours" if "256" in term else "16 colours or fewer"
    )
    parts += [inside] if inside else []
    parts += ["over ssh"] if os.environ.get("SSH_CONNECTION") else []
    parts += ["NO_COLOR"] if os.environ.get("NO_COLOR") else []
    if not sys.stdout.isatty():
        yield Finding("terminal", "note", "output is not a terminal; " + ", ".join(parts))
    elif size.columns < 80 or size.lines < 24:
        yield Finding("terminal", "note", ", ".join(parts), "the screens show all from 80×24 on")
    else:
        yield Finding("terminal", "ok", ", ".join(parts))
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        yield Finding("encoding", "note", f"{sys.stdout.encoding}: no UTF-8", "use --ascii, or set LANG=C.UTF-8")


def _folders(sessions: Path) -> Iterator[Finding]:
    parent = sessions
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if not os.access(parent, os.W_OK):
        yield Finding("sessions", "missing", f"{sessions} cannot be written", "name another folder with --sessions DIR")
    elif free < 1 << 30:
        yield Finding("sessions", "note", f"{sessions}: only {units.size(free)} free", "make room before a long run")
    else:
        yield Finding("sessions", "ok", f"{sessions} ({units.size(free)} free)")
    yield Finding("cache", "ok", str(models.cache_folder()))
