"""Plain ``ssh``, with the user's own configuration: where to, and one process of it with what goes in and comes out."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from llava_tui.session.reader import SessionError, safe_text

_URL = re.compile(
    r"ssh://(?:(?P<user>[^@/]*)@)?(?P<host>\[[0-9A-Za-z:.%_-]+\]|[^@/:\[\]]*)(?::(?P<port>\d{1,5}))?(?P<path>/.*)?",
    re.S,
)
_NAME = re.compile(r"[A-Za-z0-9_.%+][A-Za-z0-9_.%+:-]*")
"""A host, its alias in the user's configuration, or a user: nothing that a shell or an option would begin with."""
_OPTIONS = {
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",  # what the user forwards is in use already
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "LogLevel": "ERROR",  # no banners: the last line is the reason
}
_FORM = "give ssh://[USER@]HOST[:PORT]/PATH, ssh://HOST/~/PATH below your home folder there, or ssh://HOST/@latest"


@dataclass(frozen=True)
class Address:
    """Where a session is: ``path`` is absolute at the other end, or begins with ``/~``; ``/@latest`` or ``/PART`` of an
    id mean a session in the user's folder of sessions there."""

    host: str
    path: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises :class:`SessionError` for what is no such address, and for what ssh or a shell could take for
        something else. In the path, ``%20`` and the like stand for bytes."""
        found = _URL.fullmatch(url)
        shown = safe_text(url, 200)
        if found is None:
            raise SessionError(f"{shown!r} is no address: {_FORM}")
        host, user = found["host"].strip("[]"), found["user"]
        for what, text in (("host", host), ("user", user)):
            if text is not None and not _NAME.fullmatch(text):
                raise SessionError(f"{shown!r} names no {what} that ssh could reach: {_FORM}")
        port = int(found["port"]) if found["port"] else None
        if port is not None and not 0 < port < 65536:
            raise SessionError(f"{shown!r} has no port between 1 and 65535: {_FORM}")
        path = os.fsdecode(unquote_to_bytes(os.fsencode(found["path"] or ""))).rstrip("/")
        if re.search(r"[\x00-\x1f\x7f]", path):
            raise SessionError(f"{shown!r} has a control character in its path; such a folder cannot be watched")
        return cls(host, path or "/@latest", user or "", port)

    @property
    def at(self) -> str:
        """``user@host``, as far as they are given."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def arguments(self) -> list[str]:
        """For ssh."""
        port = ["-p", str(self.port)] if self.port is not None else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host]


class Ssh:
    """One ssh process. Not more than one thread reads and ends it; :meth:`write` is for any."""

    def __init__(self, ssh: Sequence[str], address: Address, command: str, *, may_ask: bool) -> None:
        """Starts ``command`` at the other end, through the user's login shell there. With ``may_ask``, ssh may ask for
        passwords on the terminal; else it fails instead. Raises :class:`SessionError` where there is no ssh."""
        options = dict(_OPTIONS, BatchMode="no" if may_ask else "yes")
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        try:
            self._process = subprocess.Popen(
                [*ssh, "-T", *given, *address.arguments(), command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Without a terminal of its own nothing can ask for anything in the middle of a screen.
                start_new_session=not may_ask,
            )
        except OSError as error:
            raise SessionError(
                f"cannot start {safe_text(ssh[0])}: {error.strerror}; install the OpenSSH client"
            ) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.pid = self._process.pid
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        self._err = self._process.stderr.fileno()
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._selector.register(self._err, selectors.EVENT_READ)
        self._said = b""

    def write(self, data: bytes) -> None:
        """Sends all of ``data`` or raises :class:`OSError`: a line that is stalled is not waited for."""
        if os.write(self._in, data) < len(data):
            raise BrokenPipeError("the line is stalled")

    def hang_up(self) -> None:
        """Closes the command's standard input, so that it ends. May be called more than once."""
        assert self._process.stdin is not None
        self._in = -1  # the number may soon be another file's
        self._process.stdin.close()

    def read(self, timeout: float) -> bytes | None:
        """What the command has printed; b"" at its end, ``None`` where nothing came within ``timeout`` seconds."""
        until = time.monotonic() + timeout
        while True:
            ready = {key.fd for key, _ in self._selector.select(max(until - time.monotonic(), 0))}
            if self._err in ready:
                self._hear()
            if self._out in ready:
                return os.read(self._out, 256 << 10)
            if time.monotonic() >= until:
                return None

    def _hear(self) -> None:
        try:
            data = os.read(self._err, 64 << 10)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(self._err)
        self._said = (self._said + data)[-4096:]

    @property
    def said(self) -> str:
        """The last line on ssh's standard error; "" where there is none."""
        lines = self._said.decode("utf-8", "replace").replace("\r", "\n").split("\n")
        return next((text for line in reversed(lines) if (text := safe_text(line, 300).strip())), "")

    def end(self) -> None:
        """Ends ssh, and with it the command at the other end: its standard input is closed. What was still said is
        heard first."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.hang_up()
        try:
            self._process.wait(0.3)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        # Not up to its end: a connection that ssh keeps open for later (ControlPersist) holds it too.
        if self._err in self._selector.get_map():
            self._hear()
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
