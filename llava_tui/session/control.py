"""Asking the worker for something: viewers append commands to ``control.jsonl``, the worker polls them."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import time
from pathlib import Path
from typing import get_args

import msgspec

from llava_tui import events
from llava_tui.session.reader import SessionError, StreamReader, safe_text
from llava_tui.session.writer import append_line

CONTROL = "control.jsonl"


def send(path: Path, verb: str, *, case: str = "", rounds: int = 0, author: str | None = None) -> events.Command:
    """Appends a command to the session in folder ``path`` and returns it; the worker's :class:`~events.Answer` will
    carry its ``id``. ``author`` is user@host of this process unless given.

    Raises :class:`SessionError` for an unknown verb and where the session cannot be written to.
    """
    asked = command(verb, case=case, rounds=rounds, author=author)
    try:
        append_line(Path(path) / CONTROL, msgspec.json.encode(asked))
    except OSError as error:
        raise SessionError(f"cannot send {verb} to {safe_text(str(path))}: {error.strerror}") from None
    return asked


def command(verb: str, *, case: str = "", rounds: int = 0, author: str | None = None) -> events.Command:
    """A new command, as :func:`send` writes it. Raises :class:`SessionError` for an unknown verb."""
    verbs = get_args(events.Verb)
    if verb not in verbs:
        raise SessionError(f"{safe_text(verb, 40)!r} is no command; one of {', '.join(verbs)}")
    return events.Command(
        id=os.urandom(6).hex(),
        verb=verb,
        author=author if author is not None else _author(),
        wall=time.time_ns(),
        case=case,
        rounds=rounds,
    )


def _author() -> str:
    user = str(os.getuid())
    with contextlib.suppress(OSError, KeyError):  # no entry in the user database: a bare container
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"


class CommandReader:
    """The worker's end: commands as they come. Polling costs a microsecond while there is nothing new."""

    def __init__(self, path: Path, since: int = 0) -> None:
        """Follows the commands to the session in folder ``path``; the first ``since`` bytes of them were for a worker
        before this one. Creates the file: only the worker reads this way. Raises :class:`OSError`."""
        self._reader = StreamReader(Path(path) / CONTROL, events.Command)
        self._reader.begin_at(since)
        self._fd = os.open(self._reader.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0

    @property
    def corrupt(self) -> int:
        """Lines that were no command."""
        return self._reader.corrupt

    def read(self) -> list[events.Command]:
        """The commands that are new since the last call, in the order they were sent. The verb may be any text."""
        size = os.lseek(self._fd, 0, os.SEEK_END)  # cheaper than fstat
        if size == self._size:
            return []
        self._size = size
        return self._reader.read()

    def close(self) -> None:
        """May be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
