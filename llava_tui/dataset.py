"""Many inputs: a data set's file, or folders of videos, as a list of items; and which of them a run takes.

A file is JSON lines or CSV with the columns ``path``, ``prompt`` and ``id``. Nothing of what the paths name is opened:
whether an item can be read turns out when its turn comes.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import msgspec

from llava_tui.plan import DEMO, Plan, PlanError, expanded
from llava_tui.session_files import Item

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".m2ts",
        ".mts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".gif",
    ]
)
IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"])
EVENT_SUFFIXES = frozenset([".npy", ".npz", ".h5", ".hdf5", ".csv"])
_DELIMITERS = ",;\t"
_FIELD_LIMIT = 1 << 20
"""Characters of a CSV field: a prompt may be long."""


class DatasetError(PlanError):
    """A data set that cannot be used: the message names the file, the line, and how to mend it."""


# --- which items a run takes ------------------------------------------------------------------------------------------


def rounds_of(count: int, batch: int, world: int = 1) -> int:
    """Rounds that one pass over ``count`` items takes, in batches of ``batch``, shared by ``world`` ranks."""
    return -(-count // (batch * world))


def chunk(round_: int, count: int, batch: int, rank: int = 0, world: int = 1) -> range:
    """The items that a rank's run of a round takes: chunk k of a pass is the items [k·batch, (k+1)·batch), the last one
    what remains; rank r of w has the chunks r, r + w, r + 2w … in this order. A pass follows the one before it. Empty
    where the pass ends before this rank's turn."""
    place = round_ % rounds_of(count, batch, world) * world + rank
    return range(min(place * batch, count), min((place + 1) * batch, count))


# --- from a plan ------------------------------------------------------------------------------------------------------


def items_of(plan: Plan) -> list[Item]:
    """The items of the plan's data set, or of the folders among its inputs that hold several; empty where it has
    neither: its inputs are then a few things that are measured again and again.

    Raises :class:`DatasetError`.
    """
    if plan.dataset:
        return read(Path(plan.dataset))
    found: list[Item] = []
    is_many = False
    for path in plan.inputs:
        within = [] if path == DEMO else within_folder(expanded(path), plan.pipeline == "eventgpt")
        is_many |= bool(within)
        found += [Item(str(each)) for each in within] or [Item(path)]
    return found if is_many else []


def within_folder(folder: Path, events: bool = False) -> list[Path]:
    """The items in a folder, in the order a person counts: its videos and its folders of frames (``events``: its event
    streams). Empty for what is no such folder: images alone are the frames of one clip."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
    wanted = EVENT_SUFFIXES if events else VIDEO_SUFFIXES
    files = [entry for entry in shown if _suffix(entry.name) in wanted and entry.is_file()]
    clips = [] if events else [entry for entry in shown if entry.is_dir() and _holds_images(entry.path)]
    if not files and any(_suffix(entry.name) in IMAGE_SUFFIXES for entry in shown):
        return []
    return [Path(folder).absolute() / entry.name for entry in sorted([*files, *clips], key=lambda e: counted(e.name))]


def counted(name: str) -> list[int | str]:
    """What to sort names by in the order a person counts: clip2 before clip10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _holds_images(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_suffix(entry.name) in IMAGE_SUFFIXES for entry in entries)
    except OSError:
        return False


# --- from a file ------------------------------------------------------------------------------------------------------


def read(file: Path) -> list[Item]:
    """The items of a data set's file, paths made absolute: those that are relative count from the file's folder.

    JSON lines where it is called so or begins with a brace, else CSV. Raises :class:`DatasetError`.
    """
    file = expanded(file).absolute()
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"dataset: {_shown(file)}: no such file; give a .jsonl or .csv file") from None
    except IsADirectoryError:
        raise DatasetError(f"dataset: {_shown(file)} is a folder; give a folder of videos with --input") from None
    except OSError as error:
        raise DatasetError(f"dataset: {_shown(file)}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong(file, line, "not UTF-8 text; save it as UTF-8") from None
    begins = text.lstrip()[:1]
    is_json = begins in ("{", "[") or file.suffix.lower() in (".jsonl", ".ndjson", ".json")
    records = _json_lines(file, text) if is_json else _csv_lines(file, text)
    items = [_item(file, line, record) for line, record in records]
    if not items:
        raise DatasetError(f'dataset: {_shown(file)}: no item in it; write one a line, like {{"path": "clip.mp4"}}')
    return items


_Record = tuple[Any, Any, Any]
"""Path, prompt, id, as they were given."""


class _Line(msgspec.Struct, gc=False):
    path: Any = None
    prompt: Any = None
    id: Any = None


def _json_lines(file: Path, text: str) -> Iterator[tuple[int, _Record]]:
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip()):
            continue
        if number == 1 and line.startswith("["):
            raise _wrong(file, number, "one JSON array; write an object a line: jq -c '.[]' FILE > FILE.jsonl")
        try:
            given = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise _wrong(file, number, f'not a JSON object ({error}); write it like {{"path": "clip.mp4"}}') from None
        yield number, (given.path, given.prompt, given.id)


def _csv_lines(file: Path, text: str) -> Iterator[tuple[int, _Record]]:
    csv.field_size_limit(_FIELD_LIMIT)
    lines = list(io.StringIO(text, newline=""))
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if first == len(lines):
        return
    # By its header, which has to be there: a guess from the rows would fall for the commas of a prompt.
    delimiter, columns = ",", [""]
    for delimiter in _DELIMITERS:
        columns = [name.strip().lower() for name in next(csv.reader([lines[first]], delimiter=delimiter))]
        if "path" in columns:
            break
    else:
        raise _wrong(file, first + 1, "no column is called path; the first line names the columns: path,prompt,id")
    if len(set(columns)) != len(columns):
        raise _wrong(file, first + 1, "two columns have the same name; give each its own")
    places = [columns.index(name) if name in columns else None for name in ("path", "prompt", "id")]
    reader = csv.reader(lines[first + 1 :], delimiter=delimiter, strict=True)
    line = first + 1
    while True:
        line = first + 2 + reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _wrong(
                file, line, f'not CSV ({error}); put "…" around a text with commas, and write " as ""'
            ) from None
        if not any(row):
            continue
        if len(row) > len(columns):
            raise _wrong(
                file,
                line,
                f'{len(row)} fields under {len(columns)} columns; put "…" around a text that has {delimiter!r} in it',
            )
        path, prompt, id_ = (row[place] if place is not None and place < len(row) else None for place in places)
        yield line, (path, prompt, id_)


def _item(file: Path, line: int, record: _Record) -> Item:
    path, prompt, id_ = record
    several = path if isinstance(path, list) else [path]
    if path is None or not several or not all(isinstance(each, str) and each.strip() for each in several):
        raise _wrong(file, line, "no path; give a text, or a list of texts for several images of one prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise _wrong(file, line, "prompt is no text; leave it out for the plan's")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, (str, int))):
        raise _wrong(file, line, "id is neither a text nor a whole number; leave it out")
    paths = tuple(_absolute(each, file.parent) for each in several)
    return Item(paths[0] if len(paths) == 1 else paths, prompt or "", "" if id_ is None else str(id_))


def _absolute(path: str, folder: Path) -> str:
    if path == DEMO:
        return path
    return str(folder / (expanded(path) if path.startswith("~") else PurePath(path)))


def _wrong(file: Path, line: int, what: str) -> DatasetError:
    return DatasetError(f"dataset: {_shown(file)}, line {line}: {what}")


def _shown(path: Path) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))


def longest_prompt(items: Iterable[Item], otherwise: str) -> str:
    """Of these items; those without one have the plan's, ``otherwise``."""
    return max((item.prompt or otherwise for item in items), key=len, default=otherwise)


def source(plan: Plan) -> str:
    """Where the plan's items come from, for the header."""
    return plan.dataset or ", ".join(plan.inputs)
