"""A session out of a pipe: ``cat session.json events.jsonl telemetry.jsonl | llava-tui watch -``, or the same with
``tail -f`` behind ``ssh``. Whatever order its lines come in, each goes to the stream where it belongs."""

from __future__ import annotations

import os
import re
import select
import threading
from pathlib import Path
from typing import Any, NoReturn, get_args

import msgspec

from llava_tui import events
from llava_tui.session import store
from llava_tui.session.mirror import MOST_STREAMS, Mirror, read_copied_header
from llava_tui.session.reader import EVENTS, HEADER, LINE_LIMIT, NOTES, TELEMETRY, SessionError

_TELEMETRY = {member.__struct_config__.tag for member in get_args(events.TelemetryEvent)}
_FINAL = ("finished", "stopped", "failed")
_FILE_NAME = re.compile(rb"==> .* <==\s*")
"""What ``tail`` and ``head`` print before what comes out of another file."""
_DOCUMENT_LIMIT = 1 << 20
"""Bytes of a document that is spread over lines, as session.json is."""


class _Any(msgspec.Struct):
    """As much of a line as says what it is."""

    type: str = ""
    rank: int = 0
    schema: msgspec.Raw = msgspec.Raw()
    verb: str = ""


_ANY = msgspec.json.Decoder(_Any)


class Sorter:
    """Takes a pipe's bytes and sorts them into the files of a session. However they are split, the files are the same.

    A line is an event or a document; a document may be spread over lines, from one that is ``{`` to one that is ``}``.
    Blank lines, file names of ``tail`` and commands are passed over; what is none of these goes to the events, where
    readers count it as corrupt.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.copy = mirror.copy("standard-input")
        self.header: bytes | None = None
        """As it came; ``None`` before it has."""
        self._tail = b""
        self._document: list[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Raises :class:`OSError` where the copy cannot be written."""
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        if len(self._tail) > LINE_LIMIT:
            self._tail = b""  # no event; its rest will count as one corrupt line
        waiting: dict[str, list[bytes]] = {}
        for line in lines:
            if (name := self._place(line, waiting)) is not None:
                waiting.setdefault(name, []).append(line)
        self._write(waiting)

    def end(self) -> None:
        """Nothing more comes: a last line without its end is whole."""
        if self._tail:
            self.feed(b"\n")

    def _place(self, line: bytes, waiting: dict[str, list[bytes]]) -> str | None:
        """The stream that a line belongs to; ``None`` for what is none of a stream's."""
        if self._document is not None:
            self._document.append(line)
            if line.rstrip() == b"}" or sum(map(len, self._document)) > _DOCUMENT_LIMIT:
                text, self._document = b"\n".join(self._document), None
                self._write(waiting)  # into the copy that they came for
                self._take_document(text)
            return None
        if line.rstrip() == b"{":
            self._document = [line]
            return None
        if not line.strip() or _FILE_NAME.fullmatch(line):
            return None
        try:
            found = _ANY.decode(line)
        except (ValueError, RecursionError):
            return _stream(EVENTS, 0)
        if not found.type and (found.schema or not found.verb):
            self._write(waiting)
            self._take_document(line)
            return None
        if not found.type:
            return None  # a command
        return _stream(TELEMETRY if found.type in _TELEMETRY else EVENTS, found.rank)

    def _take_document(self, text: bytes) -> None:
        try:
            is_header = bool(_ANY.decode(text).schema)
        except (ValueError, RecursionError):
            return
        if is_header and self.header is not None and _same(self.header, text):
            return
        if is_header:
            if self.header is not None:
                self.copy = self._mirror.copy("standard-input")
            self.header = text
        self.copy.replace(HEADER if is_header else NOTES, text + b"\n")

    def _write(self, waiting: dict[str, list[bytes]]) -> None:
        for name, lines in waiting.items():
            data = b"\n".join(lines) + b"\n"
            self.copy.append(name, self.copy.sizes().get(name, 0), data)
        waiting.clear()


def _stream(kind: str, rank: int) -> str:
    # Each rank writes a stream of its own, and readers tell their runs apart by that.
    return f"{kind}-{rank}.jsonl" if 0 < rank < MOST_STREAMS // 2 else f"{kind}.jsonl"


def _same(one: bytes, other: bytes) -> bool:
    try:
        known: list[Any] = [msgspec.json.decode(text) for text in (one, other)]
    except (ValueError, RecursionError):
        return False
    return bool(known[0] == known[1])


class PipedSource:
    """See :class:`~llava_tui.session.source.Source`. A daemon thread reads the pipe. There is no way back through it:
    the worker cannot be asked for anything."""

    controllable = False
    again = ""
    name = "standard input"

    def __init__(self, fd: int, mirrors: Path | None = None) -> None:
        """Use :meth:`open`, which waits for the session."""
        self._fd = fd
        self._mirror = Mirror(mirrors)
        self._sorter = Sorter(self._mirror)
        self._trouble = ""
        self._over = threading.Event()
        self._begun = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="watch-pipe", daemon=True)

    @classmethod
    def open(cls, fd: int, mirrors: Path | None = None) -> PipedSource:
        """Reads the session that comes out of ``fd``, which it closes in the end; returns when the header has come and,
        where it comes at once, all the rest. The copy is kept within ``mirrors``, by default in the user's cache.

        Raises :class:`SessionError` where no session comes, or one of a newer version.
        """
        source = cls(fd, mirrors)
        source._thread.start()
        try:
            while not source._begun.wait(0.2):
                pass
            source._over.wait(0.3)
            source._check()
        except BaseException:
            source.close()
            raise
        return source

    def _check(self) -> None:
        if self._sorter.header is None:
            why = self._trouble or (
                f"standard input held no session: {HEADER} must come, then its streams, as in "
                f"`cat {HEADER} events.jsonl telemetry.jsonl`"
            )
            raise SessionError(why)
        read_copied_header(self.path, self.name)

    @property
    def path(self) -> Path:
        return self._sorter.copy.path

    def status(self) -> store.Status:
        """By the last state; a session that is not closed is running as long as the pipe is open."""
        held = not self._over.is_set()
        known = store.status(self.path, held=False)
        return known if known in _FINAL else store.status(self.path, held=held)

    def line(self) -> str:
        return f"{self.name}: {self._trouble}" if self._trouble else ""

    def remarks(self) -> list[str]:
        return []

    def send(self, verb: str, *, case: str = "", rounds: int = 0) -> NoReturn:
        raise SessionError(f"cannot send {verb}: a pipe has no way back; watch ssh://HOST/PATH, or control it there")

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(5)
        self._mirror.close()

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                if not select.select([self._fd], [], [], 0.25)[0]:
                    continue
                data = os.read(self._fd, 256 << 10)
                if not data:
                    self._sorter.end()
                    break
                self._sorter.feed(data)
                if self._sorter.header is not None:
                    self._begun.set()
        except OSError as error:
            self._trouble = f"cannot keep what arrives: {error.strerror}"
        finally:
            self._over.set()
            self._begun.set()
            os.close(self._fd)
