"""Who answers viewers while the worker loads: a process forked from it before anything heavy is imported.

Importing torch holds the interpreter's lock inside the loader of shared libraries, for a second where the machine is
busy, and no thread of the worker gets a word in. The porter has an interpreter of its own: it reads the same commands
with the same :class:`Control`, and writes its answers to a stream of its own. When it is relieved, the worker goes
through the commands that have an answer there, and knows what the porter knew.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import traceback
from pathlib import Path

from llava_tui.events import Answer, Event
from llava_tui.session.control import CommandReader
from llava_tui.session.reader import StreamReader
from llava_tui.session.writer import StreamWriter
from llava_tui.worker.clock import Clock
from llava_tui.worker.control import POLL_NS, Control
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink, StreamLost, loss

STREAM = "events.porter.jsonl"
"""After ``events.jsonl`` in the order of names: the first stream of a session is the one that tells its states."""
GRACE_S = 3.0
"""How long a porter may take for its last look, on a disk that is busy."""
_RELIEVED = b"\n"
_STOP = b"\n"


class Porter:
    """The worker's end. :meth:`relieve` ends it; where the worker ends first, however it does, so does the porter."""

    def __init__(self, folder: Path, clock: Clock, schedule: Schedule, since: int = 0) -> None:
        """Forks it: while this process has one thread, and before anyone has looked at the commands to the session in
        ``folder``, of which the first ``since`` bytes were for a worker before this one. It takes the clock and the
        schedule along as they are. Raises ``OSError`` where there can be none.
        """
        self._stream = folder / STREAM
        self._before = len(StreamReader(self._stream, Answer).read())
        worker = os.getpid()
        self._line, theirs = socket.socketpair()
        try:
            self._pid = os.fork()
        except OSError:
            self._line.close()
            theirs.close()
            raise
        if self._pid == 0:
            code = 1
            try:
                self._line.close()
                _attend(folder, clock, schedule, since, theirs, worker)
                code = 0
            except BaseException:  # noqa: BLE001 - nothing may get out: there the worker's own course would go on, twice
                traceback.print_exc()
            finally:
                os._exit(code)
        theirs.close()

    def calls(self, seconds: float) -> bool:
        """Waits that long; whether it is to be relieved before: it was told to stop the session now, or has ended."""
        self._line.settimeout(seconds)
        try:
            self._line.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def relieve(self) -> int:
        """Lets it answer what has come in, and end. Returns how many commands it has answered: by its stream, for it
        may have been killed. Raises :class:`StreamLost` where that took no more."""
        said = b""
        self._line.settimeout(GRACE_S)
        with contextlib.suppress(OSError):  # It may have ended before.
            self._line.send(_RELIEVED)
        try:
            while some := self._line.recv(4096):
                said += some
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
        except OSError:
            pass
        self._line.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        if reason := said.decode().strip():
            raise StreamLost(reason)
        return len(StreamReader(self._stream, Answer).read()) - self._before


# --- in the porter's process ------------------------------------------------------------------------------------------


def _attend(folder: Path, clock: Clock, schedule: Schedule, since: int, line: socket.socket, worker: int) -> None:
    """Answers until it is relieved or the worker is gone."""
    # It ends with the worker, and not before: signals to the whole group are the worker's to heed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # A collection would touch, and so copy, every page that is shared with the worker.
    _let_go(line.fileno())
    # What is said here goes to worker.log; the worker, which reads the same lines, tells the session.
    logging.getLogger("llava_tui").handlers.clear()
    stream = _Stream(folder / STREAM)
    try:
        _answer(Control(CommandReader(folder, since), stream.write, clock, schedule), line, worker)
        stream.sync()
    except StreamLost as lost:
        line.send(f"{lost}\n".encode())


def _answer(control: Control, line: socket.socket, worker: int) -> None:
    told = False
    poller = select.poll()
    poller.register(line, select.POLLIN)
    while True:
        relieved = False
        if poller.poll(POLL_NS / 1e6):
            relieved = line.recv(1) == _RELIEVED
            if not relieved:
                return
        # Should some other child of the worker hold its end of the line open.
        if os.getppid() != worker:
            return
        control.look()
        if relieved:
            return
        if control.stop_now and not told:
            told = True
            line.send(_STOP)


def _let_go(kept: int) -> None:
    """Closes what was inherited: whoever waits for a lock or for the end of a pipe waits for the worker, not for us."""
    with contextlib.suppress(OSError):
        for fd in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
            if fd > 2 and fd != kept:
                with contextlib.suppress(OSError):
                    os.close(fd)


class _Stream:
    """The porter's stream, made with its first event: most sessions load without being asked for anything."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink: EventSink | None = None

    def write(self, event: Event) -> None:
        """One whole line. Raises :class:`StreamLost`."""
        if self._sink is None:
            try:
                self._sink = EventSink(StreamWriter(self._path))
            except OSError as error:
                raise StreamLost(loss(error)) from None
        self._sink.write(event)

    def sync(self) -> None:
        """On the disk. Raises :class:`StreamLost`."""
        if self._sink is not None:
            self._sink.sync()
