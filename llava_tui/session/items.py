"""``items.jsonl``: what a session's data set consists of, so that the session needs its file no more."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session_files import Item

ITEMS = "items.jsonl"
_ITEM = msgspec.json.Decoder(Item)


def write_items(session: Path, items: Sequence[Item]) -> str:
    """Writes the items into the session folder ``session``, a line each, the first being item 0; returns the file's
    SHA-256. Raises :class:`OSError`."""
    lines = b"".join(map(_line, items))
    path = session / ITEMS
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(lines)
        file.flush()
        os.fsync(fd)
    return hashlib.sha256(lines).hexdigest()


def read_items(session: Path, digest: str = "") -> list[Item]:
    """The items of the session in folder ``session``, as they are in its file: their text is not safe to draw. Empty
    where it has none.

    Raises :class:`SessionError` for a file that is damaged, or, where ``digest`` is given, has another one.
    """
    path = session / ITEMS
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SessionError(f"cannot read {safe_text(str(path))}: {error.strerror}") from None
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise SessionError(f"{safe_text(str(path))} is not what it was when the session began")
    try:
        return [_ITEM.decode(line) for line in data.split(b"\n") if line]
    except (ValueError, RecursionError) as error:
        raise SessionError(f"{safe_text(str(path))} is damaged: {safe_text(str(error), 200)}") from None


def _line(item: Item) -> bytes:
    try:
        return msgspec.json.encode(item) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate: a file name that is not UTF-8
        kept = [path.encode("utf-8", "replace").decode() for path in item.paths]
        path = kept[0] if len(kept) == 1 else tuple(kept)
        return msgspec.json.encode(msgspec.structs.replace(item, path=path)) + b"\n"
