"""Writing a session: append-only streams, small documents replaced at once, and the lock that proves life."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from llava_tui.session.reader import EVENTS, SessionError, safe_text

LOCK = "lock"
RESERVE = ".reserve"
RESERVE_BYTES = 64 << 10
"""Kept free for the worker's last words on a full disk."""


def set_aside(session: Path) -> None:
    """Creates the reserve of the session in folder ``session``. Raises :class:`OSError` where it does not fit."""
    # Random bytes: a file system that compresses would not set zeros aside.
    (session / RESERVE).write_bytes(os.urandom(RESERVE_BYTES))


class StreamWriter:
    """The one writer of one stream. An event is in the kernel's hands when :meth:`write` returns: killing this process
    loses at most the line being written; :meth:`sync` is for a machine that loses power.

    On a full disk the writer of an ``events`` stream gives the session's reserve back (:func:`set_aside`) before it
    raises, so that why it ended can still be written; other streams leave it alone.
    """

    def __init__(self, path: Path) -> None:
        """Opens ``path`` to append, creating it (mode 0600). Raises :class:`OSError`."""
        self.path = Path(path)
        self._encoder = msgspec.json.Encoder()
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        # What a killed writer left unfinished must not swallow our first line.
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def write(self, event: msgspec.Struct) -> None:
        """Appends one line with one system call. Raises :class:`OSError`; for ENOSPC and EDQUOT see the class."""
        try:
            line = self._encoder.encode(event) + b"\n"
        except UnicodeEncodeError:  # a lone surrogate: a file name that is not UTF-8
            line = _encode(event) + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # the disk filled up within the line: the next call says so
                self._torn = True
                written += os.write(self._fd, line[written:])
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and self.path.name.startswith(EVENTS):
                (self.path.parent / RESERVE).unlink(missing_ok=True)
            raise
        self._torn = False

    def is_in_place(self) -> bool:
        """Whether the stream is still where it was opened: its folder may have been moved or deleted meanwhile."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except OSError:
            return False

    def sync(self) -> None:
        """Returns when everything written so far is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """May be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def append_line(path: Path, line: bytes) -> None:
    """Appends ``line`` (no newline in it) to a file that several processes append to, with one system call."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, (b"\n" if torn else b"") + line + b"\n")
    finally:
        os.close(fd)


def write_atomically(path: Path, obj: Any) -> None:
    """Replaces ``path`` by ``obj`` as JSON, on the disk before it returns: whoever reads sees the old document or the
    new one, whole. Raises :class:`OSError`, with the old one untouched."""
    path = Path(path)
    data = msgspec.json.format(_encode(obj), indent=2) + b"\n"
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _encode(obj: Any) -> bytes:
    try:
        return msgspec.json.encode(obj)
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(msgspec.to_builtins(obj)))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(v) for v in value]
    return value


# --- the lock ----------------------------------------------------------------------------------------------------


class Lock:
    """The worker's proof of life: held until :meth:`release`, or until the kernel ends the process."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        _held.append(self)

    def release(self) -> None:
        """Gives the lock up, and the session's reserve with it. May be called more than once."""
        if self._fd < 0:
            return
        (self._path / RESERVE).unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _held.remove(self)


_held: list[Lock] = []


def _forget_all() -> None:
    # A forked child (a data loader) shares the lock's descriptor; left open there, it would outlive a killed worker.
    for held in _held:
        held._forget()


os.register_at_fork(after_in_child=_forget_all)


def lock(path: Path, patience: float = 2.0) -> Lock:
    """Takes the lock of the session in folder ``path``; raises :class:`SessionError` if another process holds it or it
    cannot be created.

    A reader that asks for the status holds a shared lock for an instant; so it is tried for ``patience`` seconds.
    """
    path = Path(path)
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SessionError(f"cannot write in {safe_text(str(path))}: {error.strerror}") from None
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Lock(path, fd)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                os.close(fd)
                raise SessionError(
                    f"cannot lock {safe_text(str(path))}: {error.strerror}; record on a local disk (--sessions DIR)"
                ) from None
            if time.monotonic() >= until:
                os.close(fd)
                raise SessionError(f"{safe_text(path.name)} is being recorded by another process") from None
        time.sleep(0.002)


def is_locked(path: Path) -> bool:
    """Whether a living worker holds the lock of the session in folder ``path``. Writes nothing, creates nothing."""
    try:
        fd = os.open(Path(path) / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK  # where there are no locks at all there was no worker either
    finally:
        os.close(fd)
    return False
