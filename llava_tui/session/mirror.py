"""Copies of sessions from elsewhere, while they are watched: a private folder, removed when its viewer ends.

A viewer that was killed cannot remove its own; the next one does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from llava_tui.events import Header
from llava_tui.session.reader import (
    EVENTS,
    HEADER,
    NOTES,
    TELEMETRY,
    SessionError,
    read_header,
    safe_text,
    stream_paths,
)

_ALIVE = ".viewer"
_STREAM = re.compile(rf"(?:{EVENTS}|{TELEMETRY})[A-Za-z0-9._+@-]{{0,100}}\.jsonl")
_DOCUMENTS = (HEADER, NOTES)
MOST_STREAMS = 256
"""A session with more is not one."""


class Copy:
    """A session's folder being filled: its streams appended to, its documents replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, name: str, offset: int, data: bytes) -> None:
        """Puts ``data`` at the end of a stream, which must be at ``offset``. Raises :class:`ValueError` for what cannot
        be in a session, :class:`OSError` where it cannot be written."""
        if not _STREAM.fullmatch(name):
            raise ValueError(f"{name} is no stream")
        if offset == 0 and len(self.sizes()) >= MOST_STREAMS:
            raise ValueError(f"more than {MOST_STREAMS} streams")
        fd = os.open(self.path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(fd, "ab", buffering=0) as file:
            if file.tell() != offset:
                raise ValueError(f"{name} goes on at byte {offset}, not at {file.tell()}")
            begun = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:  # the disk is full: what is not whole is asked for again
                file.truncate(begun)
                raise

    def replace(self, name: str, data: bytes) -> None:
        """Raises as :meth:`append`."""
        if name not in _DOCUMENTS:
            raise ValueError(f"{name} is no document")
        temporary = self.path / f".{name}"
        temporary.write_bytes(data)
        temporary.replace(self.path / name)

    def document(self, name: str) -> bytes | None:
        """``None`` while it has not come."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def sizes(self) -> dict[str, int]:
        """Bytes that each stream has."""
        return {path.name: path.stat().st_size for path in stream_paths(self.path)}

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Mirror:
    """A viewer's private folder. Several copies in turn: where another session begins, so does another copy."""

    def __init__(self, folder: Path | None = None) -> None:
        """Makes one in ``folder``, by default in the user's cache. Raises :class:`SessionError` where it cannot."""
        folder = folder or _cache()
        self._copies = 0
        self._fd = -1
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Held while one is made or swept: nobody takes what has just been made for left behind.
                fcntl.flock(lock, fcntl.LOCK_EX)
                sweep(folder)
                self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folder))
                self._fd = os.open(self.path / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            finally:
                os.close(lock)
        except OSError as error:
            raise SessionError(
                f"cannot keep what arrives in {safe_text(str(folder))}: {error.strerror}; "
                "name a folder for caches with XDG_CACHE_HOME"
            ) from None

    def copy(self, id_: str) -> Copy:
        """A new, empty copy of the session with that id, which comes from elsewhere."""
        self._copies += 1
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", id_)[:100].strip(".-") or "session"
        path = self.path / str(self._copies) / name
        path.mkdir(mode=0o700, parents=True)
        return Copy(path)

    def close(self) -> None:
        """Removes everything. May be called more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_copied_header(path: Path, where: str) -> Header:
    """The header of a copy. What is wrong with it is said of ``where`` it came from, which people know. Raises
    :class:`SessionError`, where it is of a newer version too."""
    try:
        return read_header(path)
    except SessionError as error:
        raise type(error)(str(error).replace(safe_text(str(path)), where)) from None


def sweep(folder: Path) -> None:
    """Removes what viewers that were killed have left in ``folder``."""
    for left in folder.glob("[0-9]*-*"):
        with contextlib.suppress(OSError):
            fd = os.open(left / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(fd)


def _cache() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("llava-tui", appauthor=False) / "watch"
