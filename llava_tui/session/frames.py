"""What ``remote.sh`` says at the other end of a line, taken apart. Nothing that comes is trusted."""

from __future__ import annotations

import re
from typing import NamedTuple

MAGIC = b"llava-tui-watch 1\n"
"""The first thing said. What a login shell prints before it is skipped."""
LARGEST = 8 << 20
"""Bytes of a frame. Streams come in pieces of 1 MiB; a document is some kB."""
NOISE = 64 << 10
"""Bytes that may come before :data:`MAGIC`."""
_MARK = b"\n.\n"
_HEADER = re.compile(rb"([a-z]{1,16}) ([A-Za-z0-9._+@-]{1,200}) (\d{1,18}) (\d{1,18})")
_LONGEST_HEADER = 300


class LineError(Exception):
    """What came is not what the other end says: the line is of no use any more."""


class Frame(NamedTuple):
    """``data`` is the file ``name`` from byte ``offset`` on, or the text that ``kind`` tells."""

    kind: str
    name: str
    offset: int
    data: bytes


class FrameParser:
    """Makes frames of bytes, however they are split. Holds at most one frame's worth."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the other end has said its first word."""
        return self._begun

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises :class:`LineError`; what came after that is lost."""
        self._buffer += data
        if not self._begun and not self._begin():
            return []
        frames = []
        at = 0
        while (found := self._frame(at)) is not None:
            frame, at = found
            frames.append(frame)
        del self._buffer[:at]
        return frames

    def _begin(self) -> bool:
        at = self._buffer.find(MAGIC)
        if at < 0:
            if len(self._buffer) > NOISE:
                raise LineError("it answers with something else")
            return False
        del self._buffer[: at + len(MAGIC)]
        self._begun = True
        return True

    def _frame(self, at: int) -> tuple[Frame, int] | None:
        """The frame that begins at byte ``at`` and where it ends; ``None`` while it is not whole."""
        line = self._buffer.find(b"\n", at, at + _LONGEST_HEADER)
        if line < 0:
            if len(self._buffer) - at >= _LONGEST_HEADER:
                raise LineError("a frame begins with something else")
            return None
        header = _HEADER.fullmatch(self._buffer, at, line)
        if header is None:
            raise LineError("a frame begins with something else")
        length = int(header[4])
        if length > LARGEST:
            raise LineError(f"a frame of {length >> 20} MiB is too large")
        end = line + 1 + length
        if len(self._buffer) < end + len(_MARK):
            return None
        if self._buffer[end : end + len(_MARK)] != _MARK:
            raise LineError("a file changed while it was read")
        frame = Frame(header[1].decode(), header[2].decode(), int(header[3]), bytes(self._buffer[line + 1 : end]))
        return frame, end + len(_MARK)
