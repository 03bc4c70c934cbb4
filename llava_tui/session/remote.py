"""A session on another machine, carried here by plain ssh: nothing of ours is needed there but a POSIX shell.

One connection carries everything: ``remote.sh`` is sent over it and tells what is new in the folder, commands go back
over the same one. What has arrived is in a private copy (``mirror.py``); after a dropped line it goes on at the byte
where it was.
"""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llava_tui import events
from llava_tui.session import control, store
from llava_tui.session.frames import Frame, FrameParser, LineError
from llava_tui.session.mirror import Copy, Mirror, read_copied_header
from llava_tui.session.reader import HEADER, SessionError, safe_text
from llava_tui.session.ssh import Address, Ssh

PAUSE_S = 0.4
"""Between two looks at the other end."""
SILENCE_S = 20.0
"""The other end says something every few seconds; after this long without a word the line is taken for dead."""
BACK_OFF_S = (1.0, 30.0)
"""Before connecting again: at first, and at most."""
STEADY_S = 5.0
"""A connection that lasted this long was a good one: the next wait begins small again."""


class _Lost(Exception):
    """The line ended, or says nothing any more."""


class _Refused(Exception):
    """The other end cannot show this session."""


class _Anew(Exception):
    """Another session is in the place of the one that was watched."""


class RemoteSource:
    """See :class:`~llava_tui.session.source.Source`. A daemon thread reads the line and writes the copy; everything
    else only looks at what it left."""

    controllable = True

    def __init__(
        self,
        address: Address,
        *,
        ssh: Sequence[str] = ("ssh",),
        again: str = "",
        may_ask: bool = False,
        pause: float = PAUSE_S,
        silence: float = SILENCE_S,
        back_off: tuple[float, float] = BACK_OFF_S,
        mirrors: Path | None = None,
    ) -> None:
        """Use :meth:`open`, which connects as well. ``ssh`` is the command and its options, ``again`` what watches this
        session once more. With ``may_ask`` the first connection may ask for a password on the terminal; later ones
        never do. ``pause`` is between two looks at the other end, in seconds; after ``silence`` seconds without a word
        a line is taken for dead; ``back_off`` are the first and the longest wait before connecting again. The copy is
        kept within ``mirrors``, by default in the user's cache."""
        self._address = address
        self._ssh = tuple(ssh)
        self._again = again
        self._may_ask = may_ask
        self._pause = pause
        self._silence = silence
        self._back_off = back_off
        self._mirror = Mirror(mirrors)
        self._where = address.path  # as given, until the other end has said which folder that is
        self._filling: Copy | None = None
        self._shown: Copy | None = None
        self._held = ""
        self._may_control = True
        self._line: Ssh | None = None
        self._up = threading.Lock()  # around the line's coming and going, for who writes to it
        self._trouble = "connecting"
        self._remarks: deque[str] = deque(maxlen=20)
        self._failure: SessionError | None = None
        self._ready = threading.Event()
        self._closing = threading.Event()
        self.received = 0
        """Bytes that came over the line, before ssh compressed them."""
        self._thread = threading.Thread(target=self._follow, name="watch-ssh", daemon=True)

    @classmethod
    def open(
        cls, url: str, *, ssh: str = "ssh", progress: Callable[[str], None] | None = None, **how: Any
    ) -> RemoteSource:
        """Connects, and returns when everything that was there has arrived. ``ssh`` is the command, with options where
        some are needed; ``progress`` is told how it goes while it waits; ``how``: see the class.

        Raises :class:`SessionError` where it cannot be reached, is no session, or was written by a newer version.
        """
        address = Address.parse(url)
        try:
            words = shlex.split(ssh) or ["ssh"]
        except ValueError as error:
            raise SessionError(f"cannot read the ssh command {safe_text(ssh, 80)!r}: {error}") from None
        option = "" if words == ["ssh"] else f"--ssh {shlex.quote(ssh)} "
        source = cls(address, ssh=words, again=safe_text(f"llava-tui watch {option}{shlex.quote(url)}"), **how)
        source._thread.start()
        try:
            while not source._ready.wait(0.5):
                if progress is not None and source.received:
                    progress(f"{source.received / 1e6:.1f} MB have come so far")
            if source._failure is not None:
                raise source._failure
            read_copied_header(source.path, source._place)
        except BaseException:
            source.close()
            raise
        return source

    # --- for whoever watches ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"{self._address.at}:{self.path.name}"

    @property
    def path(self) -> Path:
        assert self._shown is not None
        return self._shown.path

    @property
    def again(self) -> str:
        return self._again

    @property
    def _place(self) -> str:
        return safe_text(f"{self._address.at}:{self._where}", 300)

    def status(self) -> store.Status:
        """By the worker's lock at the other end. Where that cannot be asked, a session that is not closed is running as
        long as its streams were written to within a minute."""
        if self._held in ("1", "0"):
            return store.status(self.path, held=self._held == "1")
        known = store.status(self.path, held=False)
        return store.status(self.path, held=True) if known == "interrupted" and self._held == "f" else known

    def line(self) -> str:
        trouble = self._trouble
        return f"{self._address.at}: {trouble}; connecting again" if trouble else ""

    def remarks(self) -> list[str]:
        return [f"{self._address.at}: {self._remarks.popleft()}" for _ in range(len(self._remarks))]

    def send(self, verb: str, *, case: str = "", rounds: int = 0) -> events.Command:
        command = control.command(verb, case=case, rounds=rounds)
        if not self._may_control:
            raise SessionError(f"cannot send {verb}: this user may not write to {self._place}")
        data = msgspec.json.encode(command) + b"\n"
        with self._up:
            line = self._line if not self._trouble else None
            try:
                if line is None:
                    raise BrokenPipeError("there is no connection")
                line.write(data)
            except OSError as error:
                why = error.strerror or str(error)
                raise SessionError(f"cannot send {verb} to {self._address.at}: {why}") from None
        return command

    def close(self) -> None:
        self._closing.set()
        with self._up:
            if self._line is not None:
                self._line.hang_up()
        if self._thread.ident is not None:
            self._thread.join(5)
        self._mirror.close()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Connects, again and again."""
        try:
            self._keep_connected()
        except BaseException:
            self._trouble = "not followed any more, for an error in llava-tui"
            raise
        finally:
            if not self._ready.is_set():
                self._failure = SessionError(self._trouble)
                self._ready.set()

    def _keep_connected(self) -> None:
        first, longest = self._back_off
        wait = first
        while not self._closing.is_set():
            began = time.monotonic()
            begun = False
            try:
                self._connect()
                return
            except _Anew:
                trouble = "another session has begun there"
            except _Lost as error:
                trouble = safe_text(str(error), 300)
                begun = self._filling is not None  # the rest will come
            except (LineError, ValueError, _Refused) as error:
                trouble = safe_text(str(error), 300)
            except SessionError as error:
                trouble = str(error)
            except OSError as error:  # the copy cannot be written
                trouble = f"cannot keep what arrives: {error.strerror}"
            if not begun and not self._ready.is_set():
                self._trouble = trouble
                return
            wait = first if time.monotonic() - began >= STEADY_S else wait
            self._trouble = trouble
            self._closing.wait(wait)
            wait = min(wait * 2, longest)

    def _connect(self) -> None:
        """Follows one connection; returns when this source is closed, raises when the connection is of no use."""
        may_ask, self._may_ask = self._may_ask, False
        script = _script()
        line = Ssh(self._ssh, self._address, _command(script), may_ask=may_ask)
        try:
            with contextlib.suppress(OSError):  # it has ended already: why, it says itself
                line.write(script + self._request())
            with self._up:
                self._line = line
            self._listen(line, patience=math.inf if may_ask else self._silence + 15)
        finally:
            with self._up:
                self._line = None
            line.end()
        if not self._closing.is_set():
            raise _Lost(_explained(line.said, self._address.at))

    def _listen(self, line: Ssh, patience: float) -> None:
        """Takes in what comes until the line ends. ``patience``: how long until the first word, in seconds."""
        parser = FrameParser()
        heard = time.monotonic()
        said = ""
        while not self._closing.is_set():
            data = line.read(0.25)
            if data:
                heard = time.monotonic()
                self.received += len(data)
                for frame in parser.feed(data):
                    self._take_in(frame)
            elif data is not None:
                return
            elif time.monotonic() - heard > (self._silence if parser.begun else patience):
                raise _Lost("nothing comes any more")
            if parser.begun and line.said != said:
                said = line.said
                self._remarks.append(said)

    def _request(self) -> bytes:
        """What ``remote.sh`` reads after itself: where, how often, and what is here already."""
        sizes = self._filling.sizes() if self._filling is not None else {}
        lines = [self._where, f"{self._pause:g}", *(f"{name}={size}" for name, size in sizes.items()), ""]
        return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")

    def _take_in(self, frame: Frame) -> None:
        match frame.kind:
            case "path":
                text = frame.data.decode("utf-8", "surrogateescape")
                if text.startswith("/") and not re.search(r"[\x00-\x1f\x7f]", text):
                    self._where = text  # @latest is another one tomorrow
            case "control":
                self._may_control = frame.data == b"yes"
            case "whole":
                if frame.name == HEADER:
                    self._begin(frame.data)
                self._copy().replace(frame.name, frame.data)
            case "part":
                self._copy().append(frame.name, frame.offset, frame.data)
            case "lock":
                self._caught_up(frame.data.decode("ascii", "replace"))
            case "shrunk":
                self._filling = None
                raise _Anew
            case "gone":
                raise _Refused(f"{self._where} is gone")
            case "refuse":
                raise _Refused(_refusal(frame, self._address.at))
            case _:
                pass  # a newer version's

    def _begin(self, header: bytes) -> None:
        known = self._filling.document(HEADER) if self._filling is not None else None
        if known is not None and known != header:
            self._filling = None
            raise _Anew
        if self._filling is None:
            self._filling = self._mirror.copy(Path(self._where).name)

    def _copy(self) -> Copy:
        if self._filling is None:
            raise LineError(f"it sends no {HEADER}")
        return self._filling

    def _caught_up(self, held: str) -> None:
        """Everything that was there when the worker was looked for has arrived."""
        copy = self._copy()
        old = self._shown
        self._held = held
        self._shown = copy
        if old is not None and old is not copy:
            self._remarks.append("another session has begun there")
            old.remove()
        self._trouble = ""
        self._ready.set()


def _script() -> bytes:
    """``remote.sh`` without its comments."""
    lines = (Path(__file__).with_name("remote.sh")).read_text("utf-8").split("\n")
    kept = (line.strip() for line in lines)
    return "".join(line + "\n" for line in kept if line and not line.startswith("#")).encode()


def _command(script: bytes) -> str:
    """What the login shell at the other end is given, be it bash, fish or csh: no more than to read ``script`` from
    standard input, byte by byte so that what follows it is left there."""
    return f"exec sh -c 'eval \"$(dd ibs=1 count={len(script)} 2>/dev/null)\"'"


def _refusal(frame: Frame, at: str) -> str:
    text = frame.data.decode("utf-8", "replace")
    place = safe_text(f"{at}:{text}", 300)
    match frame.name:
        case "bare":
            return f"{place} is not a session: it has no {HEADER}; of a folder of sessions, give .../@latest or .../ID"
        case "many":
            ids = [safe_text(id_, 100) for id_ in text.split("\n") if id_]
            return f"that could be several sessions at {at}: {', '.join(ids[:5])}{', …' if len(ids) > 5 else ''}"
        case "unknown":
            return f"no such session in {place}"
        case "closed":
            return f"{place} may not be read"
        case _:
            return f"no session at {place}: no such folder"


def _explained(said: str, at: str) -> str:
    """Why a line ended, from ssh's last words."""
    if not said:
        return f"the connection to {at} was lost"
    hint = ""
    if said.endswith(").") and "Permission denied" in said:
        hint = "; where ssh asks for a password, set up a key or an agent, or keep a connection open (ControlPersist)"
    elif "Host key verification failed" in said:
        hint = f"; run `ssh {at}` once to accept its key"
    return (said.rstrip(".") if hint else said) + hint
