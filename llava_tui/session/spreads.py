"""How much identical sessions differ on a machine: the A/A spread, kept per machine and model beside the sessions."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import msgspec

from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.writer import write_atomically

_ENVIRONMENT = "LLAVA_TUI_DATA"
_FILE = "calibration.json"


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What ``llava-tui calibrate`` found."""

    machine: str
    model: str
    created: str
    """ISO 8601 with offset."""
    sessions: list[str]
    """Ids of the identical sessions that it is from."""
    runs: int
    """Measured runs in all."""
    spread: dict[str, float]
    """By row (a stage's path, ``wall``, a metric): standard deviation of the difference of two sessions' medians,
    relative."""


def data_folder() -> Path:
    """Where the spread is kept: $LLAVA_TUI_DATA, else the user's data folder."""
    if chosen := os.environ.get(_ENVIRONMENT):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("llava-tui", appauthor=False)


def read_all() -> list[Spread]:
    """Every stored spread. Raises :class:`SessionError` where the file is damaged."""
    path = data_folder() / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Spread])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise SessionError(
            f"cannot read {safe_text(str(path))}: {error}\nDelete it and run `llava-tui calibrate` again."
        ) from None


def find(machine: str, model: str) -> Spread | None:
    """The spread of that machine and model; ``None`` where it was never calibrated."""
    return next((one for one in read_all() if (one.machine, one.model) == (machine, model)), None)


def keep(machine: str, model: str, sessions: list[str], runs: int, spread: dict[str, float]) -> Path:
    """Stores a spread in the place of an older one of the same machine and model; returns the file. Raises
    :class:`SessionError`."""
    created = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    new = Spread(machine=machine, model=model, created=created, sessions=sessions, runs=runs, spread=spread)
    others = [one for one in read_all() if (one.machine, one.model) != (machine, model)]
    path = data_folder() / _FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, [*others, new])
    except OSError as error:
        raise SessionError(f"cannot write {safe_text(str(path))}: {error.strerror}; set {_ENVIRONMENT}") from None
    return path
