"""Reading what a session says: its header, its notes, its streams. Nothing here ever writes.

A session may be damaged, half-written, newer than this program, or hostile. Whatever can still be read is read; what
cannot is counted. Text comes from models, file names and other people: :func:`safe_text` makes it fit for a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from llava_tui import events
from llava_tui.session.finding import HEADER as HEADER
from llava_tui.session.finding import is_there as is_there
from llava_tui.session.text import SessionError as SessionError
from llava_tui.session.text import safe_text as safe_text
from llava_tui.session.text import safe_values as safe_values

NOTES = "notes.json"
EVENTS = "events"
TELEMETRY = "telemetry"
"""How the names of the two kinds of streams begin; they end in ``.jsonl``."""
CHUNK = 256 << 10
"""Bytes of a stream that are decoded at a time: what comes of them stays within a core's cache."""
MANY = 4 << 10
"""Bytes from which on lines are decoded together."""
LINE_LIMIT = 64 << 20
"""A longer line is damage, not an event: it is skipped and counted, so that memory stays bounded."""


class NewerSchema(SessionError):
    """The session was written by a newer major version of the format."""


_T = TypeVar("_T")


def safe_struct(value: _T) -> _T:
    """A msgspec struct with all its text through :func:`safe_values`."""
    return msgspec.convert(safe_values(msgspec.to_builtins(value)), type(value))


# --- the header and the notes ---------------------------------------------------------------------------------------


class _Schema(msgspec.Struct):
    schema: list[int]


def read_header(path: Path) -> events.Header:
    """The header of the session in folder ``path``. Its text is safe to draw, but for ``plan`` and ``argv``, which are
    kept as they were, to be run again.

    Raises :class:`NewerSchema` for a newer major version, :class:`SessionError` for anything that is not a session.
    Unknown fields, which a newer minor version may write, are ignored.
    """
    path = Path(path)
    name = safe_text(str(path))
    try:
        data = (path / HEADER).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if is_there(path):
            raise SessionError(f"{name} is not a session: it has no {HEADER}") from None
        raise SessionError(f"no session at {name}: no such folder") from None
    except OSError as error:
        raise SessionError(f"cannot read {name}/{HEADER}: {error.strerror}") from None
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if len(schema) < 2:
            raise ValueError("schema: major and minor version expected")
        if schema[0] > events.SCHEMA[0]:
            raise NewerSchema(
                f"{name} was written by a newer llava-tui (schema {schema[0]}.{schema[1]}; this one reads "
                f"{events.SCHEMA[0]}.x): update llava-tui to open it"
            )
        raw = msgspec.json.decode(data)
        raw["schema"] = schema[:2]
        kept = {key: raw.pop(key) for key in ("plan", "argv") if key in raw}
        return msgspec.convert({**safe_values(raw), **kept}, events.Header)
    except NewerSchema:
        raise
    except (ValueError, RecursionError) as error:
        raise SessionError(f"{name}/{HEADER} is damaged: {safe_text(str(error), 200)}") from None


def read_notes(path: Path) -> events.Notes:
    """What people said of the session in folder ``path``; empty notes where there are none or they cannot be read.
    Their text is safe to draw."""
    try:
        raw = msgspec.json.decode((Path(path) / NOTES).read_bytes())
        return msgspec.convert(safe_values(raw), events.Notes)
    except (OSError, ValueError, RecursionError):
        return events.Notes()


# --- streams ----------------------------------------------------------------------------------------------------------


def stream_paths(path: Path, *kinds: str) -> list[Path]:
    """The streams in the session folder ``path``, of these kinds or of all, in the order of their ranks and names."""
    kinds = kinds or (EVENTS, TELEMETRY)
    try:
        found = [entry.path for entry in os.scandir(path) if entry.name.startswith(kinds)]
    except OSError:
        return []
    streams = [Path(one) for one in sorted(found) if one.endswith(".jsonl")]
    return sorted(streams, key=lambda stream: rank_of(stream.name))


def rank_of(name: str) -> int:
    """Whose events a stream of that name holds: ``events-3.jsonl`` those of rank 3, all else belongs to rank 0."""
    told = name.removeprefix(f"{EVENTS}-").removesuffix(".jsonl")
    return int(told) if name.startswith(f"{EVENTS}-") and told.isascii() and told.isdecimal() and len(told) < 7 else 0


class _Tag(msgspec.Struct):
    type: str = ""


class StreamReader:
    """Follows one JSON-lines file: each :meth:`read` gives what is new since the last.

    Only whole lines count; a partial tail waits for the rest of it. ``corrupt`` counts lines that could not be read,
    ``unknown`` lines of a ``type`` that this version does not know (a newer minor version wrote them). The file need
    not exist yet, is opened only to read, and is not held open in between. However the file grew, the same bytes give
    the same events.
    """

    def __init__(self, path: Path, kind: Any, chunk: int = CHUNK, skip: Collection[str] = ()) -> None:
        """``kind`` is a struct, or a union of tagged structs; ``chunk`` the bytes read at a time.

        Lines of the types ``skip`` are passed over unread where they begin as our writer begins them, but for the last
        of each chunk, which tells how late it is: damaged ones among them are not counted. Such lines in another form
        are decoded as all others are.
        """
        self.path = Path(path)
        self.corrupt = 0
        self.unknown = 0
        self._chunk = chunk
        self._skip = [f'{{"type":"{tag}",'.encode() for tag in skip]
        self._decoder = msgspec.json.Decoder(kind)
        tags = {member.__struct_config__.tag for member in (get_args(kind) or (kind,))}
        self._tags = tags - {None}
        self._offset = 0  # where the first line that has not been read begins
        self._seen = 0  # the file's length when it was last read to its end
        self._overlong = False  # inside a line longer than LINE_LIMIT

    @property
    def seen(self) -> int:
        """Bytes of the file when it was last read to its end."""
        return self._seen

    def restore(self, seen: int, corrupt: int, unknown: int) -> None:
        """Goes on from where another reader had come to, which only tells whether anything :meth:`changed`."""
        self._seen, self.corrupt, self.unknown = seen, corrupt, unknown

    def begin_at(self, offset: int) -> None:
        """Leaves out what is before ``offset``, where a line begins."""
        self._offset = offset

    def changed(self) -> bool:
        """Whether the file is longer or shorter than it was when it was last read to its end."""
        try:
            return self.path.stat().st_size != self._seen
        except OSError:
            return self._seen > 0

    def read(self) -> list[Any]:
        """Everything new, decoded, in the file's order."""
        return [event for batch in self.batches() for event in batch]

    def batches(self) -> Iterator[list[Any]]:
        """Everything new, decoded, a chunk of the file at a time: bounded memory however long the file.

        Raises :class:`SessionError` where the file is there and may not be read.
        """
        try:
            if self.path.stat().st_size == self._seen:
                return
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise SessionError(f"cannot read {safe_text(str(self.path))}: {error.strerror}") from None
        with file:
            file.seek(self._offset)
            tail = b""
            while block := file.read(self._chunk):
                end = block.rfind(b"\n") + 1
                if end == 0:
                    tail += block
                    if len(tail) > LINE_LIMIT:
                        self._overlong = True
                        self._offset += len(tail)
                        tail = b""
                    continue
                lines, tail = tail + block[:end], block[end:]
                self._offset += len(lines)
                first = lines.index(b"\n") + 1
                if self._overlong or first > LINE_LIMIT + 1:
                    self._overlong = False
                    self.corrupt += 1
                    lines = lines[first:]
                yield self._decode(self._sifted(lines) if self._skip else lines)
            self._seen = self._offset + len(tail)

    def _sifted(self, lines: bytes) -> bytes:
        # A line whose first key says its type is of that type or damaged: a second "type" that says another makes it
        # no event. So what is passed over is never an event that is wanted.
        import numpy as np

        text = np.frombuffer(lines + bytes(max(map(len, self._skip))), np.uint8)
        starts = np.append(0, np.flatnonzero(text == 10) + 1)
        skipped = np.zeros(starts.size - 1, np.bool_)
        for begin in self._skip:
            of_type = np.arange(skipped.size)
            for place in (*range(8, len(begin)), *range(8)):  # what sets types apart first
                of_type = of_type[text[starts[of_type] + place] == begin[place]]
            skipped[of_type] = True
        if not skipped.any():
            return lines
        skipped[np.flatnonzero(skipped)[-1]] = False
        # From each line that is kept after one that is not, to the next that is not.
        edges = starts[np.flatnonzero(np.diff(skipped, prepend=True, append=True))].tolist()
        return b"".join([lines[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)])

    def _decode(self, lines: bytes) -> list[Any]:
        if len(lines) >= MANY:
            found = self._decode_at_once(lines)
            if found is not None:
                return found
        return [event for line in lines.split(b"\n") if line.strip() for event in self._decode_line(line)]

    def _decode_at_once(self, lines: bytes) -> list[Any] | None:
        # One call for the whole chunk, where that gives exactly what a call a line would. JSON allows no raw newline
        # within a string and no "}\n{" within an object: so where every line begins and ends with a brace, no object
        # spans two, and as many objects as lines means one a line.
        import numpy as np  # here: who reads a few lines does without, and importing it takes 0.2 s

        text = np.frombuffer(lines, np.uint8)
        ends = np.flatnonzero(text == 10)
        if lines[:1] == b"{" and (text[ends - 1] == 125).all() and (text[ends[:-1] + 1] == 123).all():
            try:
                found: list[Any] = self._decoder.decode_lines(lines)
            except (ValueError, RecursionError):
                return None
            if len(found) == len(ends):
                return found
        return None

    def _decode_line(self, line: bytes) -> tuple[Any, ...]:
        try:
            return (self._decoder.decode(line),)
        except (ValueError, RecursionError):
            if self._tags and self._is_unknown(line):
                self.unknown += 1
            else:
                self.corrupt += 1
            return ()

    def _is_unknown(self, line: bytes) -> bool:
        try:
            tag = msgspec.json.decode(line, type=_Tag).type
        except (ValueError, RecursionError):
            return False
        return tag != "" and tag not in self._tags
