"""Peaks that were measured on this machine: kept in the user's data folder, by the device's name.

Measuring needs torch, so it happens in a process of its own; reading needs nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from llava_tui.analysis.peaks import Peaks, key
from llava_tui.units import counted

SECONDS = 300
"""Importing torch, and measuring on a slow machine."""
FILE = "peaks.json"


class PeaksError(Exception):
    """Peaks could not be measured or kept: one line that says why."""


class Record(msgspec.Struct, frozen=True):
    """One device as it was measured."""

    device: str
    flops: dict[str, float]
    """FLOP/s by dtype."""
    bandwidth: float
    """Bytes a second."""
    torch: str = ""
    threads: int | None = None

    def peaks(self) -> Peaks:
        threads = f", {counted(self.threads, 'thread')}" if self.threads else ""
        how = f"measured here with torch {self.torch}{threads}"
        return Peaks(self.device, self.flops, self.bandwidth, how, measured=True)


def folder() -> Path:
    """The user's data folder of llava-tui."""
    import platformdirs

    return Path(platformdirs.user_data_dir("llava-tui"))


def load(where: Path | None = None) -> dict[str, Peaks]:
    """What was measured, by :func:`~llava_tui.analysis.peaks.key`; empty where nothing was or where it is damaged."""
    try:
        records = msgspec.json.decode(((where or folder()) / FILE).read_bytes(), type=dict[str, Record])
    except (OSError, msgspec.DecodeError):
        return {}
    return {
        name: record.peaks()
        for name, record in records.items()
        if record.bandwidth > 0 and all(value > 0 for value in record.flops.values())
    }


def measure(device: str = "auto") -> Record:
    """Measures ``device``; some seconds. Raises :class:`PeaksError`."""
    command = [sys.executable, "-m", "llava_tui.worker.peaks", device]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
        return msgspec.json.decode(answer.stdout, type=Record)
    except subprocess.TimeoutExpired:
        raise PeaksError(f"measuring did not end within {SECONDS} s") from None
    except (subprocess.CalledProcessError, msgspec.DecodeError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise PeaksError(f"torch could not measure: {said[-1] if said else 'no message'}") from None


def keep(record: Record, where: Path | None = None) -> Path:
    """Adds it to what is kept; returns the file. Raises :class:`PeaksError` where that cannot be written."""
    from llava_tui.session.writer import write_atomically

    file = (where or folder()) / FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept: dict[str, Any] = {}
        if file.exists():
            try:
                kept = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
            except msgspec.DecodeError:
                kept = {}  # damaged: what can be measured again is no loss
        write_atomically(file, kept | {key(record.device): msgspec.to_builtins(record)})
    except OSError as error:
        raise PeaksError(f"{file}: {error.strerror or error}; the figures are not kept") from None
    return file
