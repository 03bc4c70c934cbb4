"""A program in a real pseudo-terminal, for tests."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any

ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[@-Z\\-_]|[=>])")


class TerminalProgram:
    """Started in a session and on a terminal of its own; :meth:`end` leaves nothing behind."""

    def __init__(
        self,
        argv: list[str],
        *,
        cols: int = 120,
        rows: int = 40,
        ignore_hangup: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.output = b""
        self.code: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | (environment or {})
                if ignore_hangup:
                    signal.signal(signal.SIGHUP, signal.SIG_IGN)
                os.execv(argv[0], argv)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    @classmethod
    def monitor(cls, session: Path, *options: str, **how: Any) -> TerminalProgram:
        """``llava-tui open SESSION``."""
        return cls([sys.executable, "-m", "llava_tui", "open", str(session), *options], **how)

    def read(self, seconds: float) -> None:
        """Takes what is written within ``seconds``."""
        end = time.monotonic() + seconds
        while self.fd >= 0 and (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                return
            try:
                self.output += os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                return

    def until(self, text: str, seconds: float = 30) -> None:
        """Reads until ``text`` was written, between escape sequences."""
        end = time.monotonic() + seconds
        while text.encode() not in ESCAPES.sub(b"", self.output):
            assert time.monotonic() < end, f"{text!r} never came: {ESCAPES.sub(b'', self.output)[-2000:]!r}"
            self.read(0.2)

    def write(self, keys: str) -> None:
        """Types."""
        os.write(self.fd, keys.encode())

    def hang_up(self) -> None:
        """The terminal is closed, as when a connection is lost."""
        os.close(self.fd)
        self.fd = -1

    def ended_within(self, seconds: float, *, reading: bool = True) -> float:
        """Waits for the end; how long it took. Fails if it does not come."""
        start = time.monotonic()
        while self.code is None:
            if reading:
                self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                break
            assert time.monotonic() - start < seconds, f"still there after {seconds} s"
            time.sleep(0.01)
        self.read(0.1)
        return time.monotonic() - start

    def end(self) -> None:
        """Kills what is left."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        if self.fd >= 0:
            self.hang_up()
