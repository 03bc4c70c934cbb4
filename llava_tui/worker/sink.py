"""Where the worker's events go: one stream, any thread, and a disk that may fill up."""

from __future__ import annotations

import errno
import logging
import os
import threading

import msgspec

from llava_tui.events import Event, Log
from llava_tui.session.reader import safe_text
from llava_tui.session.writer import StreamWriter
from llava_tui.worker.clock import Clock

LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


class StreamLost(Exception):
    """The session's folder takes no more events: nothing can be measured on. The message is the session's reason."""


class EventSink:
    """Writes events of any thread to one stream, each with one system call.

    The first write that fails raises :class:`StreamLost`, and :meth:`require` does from then on; what is written after
    that (the closing events, into the reserve that the writer freed) is tried and not insisted on.
    """

    def __init__(self, writer: StreamWriter, rank: int = 0) -> None:
        self._writer = writer
        self._rank = rank
        self._lock = threading.Lock()
        self.lost = ""

    def write(self, event: Event) -> None:
        """One whole line, which says of which rank it is."""
        if self._rank:
            msgspec.structs.force_setattr(event, "rank", self._rank)
        with self._lock:
            try:
                self._writer.write(event)
            except OSError as error:
                if not self.lost:
                    self.lost = loss(error)
                    raise StreamLost(self.lost) from None

    def sync(self) -> None:
        """What was written is on the disk when this returns. Not for the timed path."""
        with self._lock:
            try:
                self._writer.sync()
            except OSError as error:
                if not self.lost:
                    self.lost = loss(error)
                    raise StreamLost(self.lost) from None

    def require(self) -> None:
        """Raises :class:`StreamLost` if a write failed where nobody could be told (a log record of a library), or the
        session's folder was moved or deleted: nobody could watch or stop this worker any more."""
        if not self.lost and not self._writer.is_in_place():
            self.lost = "the session's folder was moved or deleted while it ran"
        if self.lost:
            raise StreamLost(self.lost)

    def close(self) -> None:
        self._writer.close()


def loss(error: OSError) -> str:
    """Why a session cannot be written on, in a line that says how to mend it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk full: the sessions folder takes no more; free space there and run again"
    return f"the session cannot be written: {os.strerror(error.errno or 0)}; check the disk of the sessions folder"


class LogEvents(logging.Handler):
    """Log records as :class:`~llava_tui.events.Log` events."""

    def __init__(self, sink: EventSink, clock: Clock) -> None:
        super().__init__()
        self._sink = sink
        self._clock = clock

    def emit(self, record: logging.LogRecord) -> None:
        """One event a record; a traceback stays in worker.log."""
        level = "error" if record.levelno >= logging.ERROR else LEVELS.get(record.levelno, "info")
        source = record.name.removeprefix("llava_tui.").split(".")[0]
        try:
            text = safe_text(record.getMessage(), 4000)
            self._sink.write(Log(t=self._clock.now(), level=level, text=text, source=source))  # type: ignore[arg-type]
        except StreamLost:
            pass  # The sink remembers; the course asks it after every run.
