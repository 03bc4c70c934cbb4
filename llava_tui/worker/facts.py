"""What a session's header says of the machine: read from the kernel and from package metadata, nothing imported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
import sys
from datetime import datetime
from pathlib import Path

import psutil

from llava_tui import __version__
from llava_tui.events import SCHEMA, DatasetFacts, Header, HostFacts
from llava_tui.plan import DEMO, Plan

PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "tokenizers", "safetensors", "numpy", "av", "pillow")
SIMULATED_MODEL = "llava-1.5-7b"


def header(path: Path, plan: Plan, argv: list[str], t0: int, wall0: int, dataset: DatasetFacts | None = None) -> Header:
    """The header of the session in folder ``path``, at clock time ``t0`` and Unix time ``wall0`` (ns)."""
    simulated = plan.pipeline == "simulated"
    return Header(
        schema=SCHEMA,
        id=path.name,
        created=datetime.fromtimestamp(wall0 / 1e9).astimezone().isoformat(timespec="seconds"),
        t0=t0,
        wall0=wall0,
        provenance=_provenance(plan),
        pipeline=plan.pipeline,
        model=SIMULATED_MODEL if simulated and plan.model == DEMO else plan.model,
        plan=plan.to_dict(),
        host=host_facts(),
        versions=versions(() if simulated else PACKAGES),
        argv=argv,
        pid=os.getpid(),
        dataset=dataset,
    )


def _provenance(plan: Plan) -> str:
    if plan.pipeline == "simulated":
        return "simulated"
    # The demo checkpoint is built on the spot and has learnt nothing.
    return "random-weights" if plan.weights == "random" or plan.model == DEMO else "pretrained"


def host_facts() -> HostFacts:
    """The machine this process runs on."""
    return HostFacts(
        hostname=socket.gethostname(),
        os=f"{platform.system()} {platform.release()}",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        container=container(),
        governor=governor(),
        boot_id=boot_id(),
    )


def boot_id() -> str:
    """Of this start of the machine's kernel; "" where it does not tell."""
    return _read("/proc/sys/kernel/random/boot_id")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions, from metadata: importing torch to ask it would cost seconds."""
    found = {"llava-tui": __version__, "python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def governor() -> str:
    """The CPU's frequency governor; "" where the kernel does not tell (virtual machines, most containers)."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def cpu_model() -> str:
    """The processor's name as its maker gives it, or its architecture."""
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def container() -> str:
    """The kind of container this process is in, or ""."""
    if sys.platform != "linux":
        return ""
    if declared := os.environ.get("container"):  # noqa: SIM112 - systemd's convention, podman and nspawn set it
        return declared
    for marker, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(marker).exists():
            return kind
    groups = _read("/proc/1/cgroup")
    for word, kind in (("kubepods", "kubernetes"), ("docker", "docker"), ("containerd", "containerd"), ("lxc", "lxc")):
        if word in groups:
            return kind
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
