"""EventGPT's step 1: files of events become pictures, a picture a slice.

An event says that the brightness of one pixel changed: x, y, the time t in microseconds, and its polarity p, 0 or 1.
A file is data and never code: the pickle that upstream's ``.npy`` files hold is read by an unpickler that knows four
names of NumPy and nothing else.
"""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from llava_tui.pipelines.base import BrokenInput, PipelineError, first_line, shown
from llava_tui.pipelines.frames import resolve_input
from llava_tui.plan import DEMO
from llava_tui.units import counted

Ints = npt.NDArray[np.int64]
Picture = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""

LIMIT_US = 100_000
"""Streams that last this long and longer are refused, as EventGPT's own program refuses them."""
LARGEST = 4096
"""Pixels a side that an event may lie in: a damaged coordinate must not ask for gigabytes."""

MOST = 1 << 27
"""Events that a stream may have, more than any sensor sends in 100 ms: a small file must not unpack to fill memory."""

_FIELDS = ("x", "y", "t", "p")
_NOTHING = 2
"""Beside the polarities 0 and 1: a pixel without an event."""
_KINDS = "an .npy, .npz, .h5 or .csv file of events"


@dataclass(frozen=True, slots=True)
class EventStream:
    """Events in the order of the file. All columns have one length, at least 1."""

    name: str
    x: Ints
    y: Ints
    t: Ints
    """Microseconds."""
    p: Ints
    """0 or 1."""

    def __len__(self) -> int:
        return int(self.t.size)

    @property
    def duration_us(self) -> int:
        """From the earliest event to the latest."""
        return int(self.t.max()) - int(self.t.min())  # As int64 their difference may wrap.


def read(path: str | Path) -> EventStream:
    """The events of the file at ``path``; ``demo`` is a stream that is made on this machine.

    A ``.npy`` holds a pickled dictionary of x, y, t and p, a table with these fields, or N × 4 numbers in that order; a
    ``.npz`` and an ``.h5`` (at its root, or as the group or the table ``events``) these four arrays; a ``.csv`` names
    its columns in its first line. Raises :class:`BrokenInput` for what is no such stream, or lasts 100 ms and more.
    """
    if path == DEMO:
        return demo_stream()
    source = resolve_input(path, _KINDS)
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise BrokenInput(path, f"no event stream; give {_KINDS}")
    try:
        return _checked(shown(path), {name: np.asarray(column) for name, column in reader(source).items()})
    except PipelineError as error:
        raise BrokenInput(path, f"{error}") from None
    except Exception as error:  # noqa: BLE001 - foreign bytes make the readers raise what they like
        why = shown(first_line(error))[:120]
        raise BrokenInput(path, f"not an event stream that can be read ({why}); copy or export it again") from None


def slices(stream: EventStream, count: int) -> list[slice]:
    """``count`` slices of equally many events, the last with what remains, as EventGPT's own program cuts them.

    Raises :class:`BrokenInput` where there are fewer events than slices.
    """
    each = len(stream) // count
    if not each:
        raise BrokenInput(
            stream.name,
            f"{counted(len(stream), 'event')} cannot be cut into {counted(count, 'slice')}; "
            "give a longer stream or fewer --frames",
        )
    return [slice(i * each, (i + 1) * each if i < count - 1 else len(stream)) for i in range(count)]


def render(x: Ints, y: Ints, p: Ints) -> Picture:
    """One slice as a picture on white: blue where the last event has polarity 0, red where it has any other.

    The columns are (n,), n ≥ 1, coordinates from 0; the picture is (y.max() + 1, x.max() + 1, 3).
    """
    height, width = int(y.max()) + 1, int(x.max()) + 1
    # One byte a pixel first: of equal indices NumPy assigns the last, so that the last event wins.
    seen = np.full(height * width, _NOTHING, np.uint8)
    seen[y * width + x] = p != 0
    picture = np.empty((height * width, 3), np.uint8)
    for channel, bright in enumerate((seen != 0, seen == _NOTHING, seen != 1)):
        picture[:, channel] = bright * np.uint8(255)  # five times as fast as a table of three colours
    return picture.reshape(height, width, 3)


def pictures(stream: EventStream, count: int, check: Callable[[], None] = lambda: None) -> list[Picture]:
    """The stream's ``count`` slices rendered. ``check`` is called before each. Raises :class:`BrokenInput`."""
    rendered = []
    for part in slices(stream, count):
        check()
        rendered.append(render(stream.x[part], stream.y[part], stream.p[part]))
    return rendered


def demo_stream(events: int = 60_000, size: tuple[int, int] = (240, 180), seed: int = 0) -> EventStream:
    """A disc that crosses a sensor of ``size`` (width, height) within 50 ms, and noise; the same from the same seed."""
    rng = np.random.default_rng(seed)
    width, height = size
    t = np.sort(rng.integers(0, 50_000, events))
    angle = rng.uniform(0, 2 * np.pi, events)
    radius = height / 5 * (1 + 0.02 * rng.standard_normal(events))
    x = width * (0.25 + 0.5 * t / 50_000) + radius * np.cos(angle)
    y = height * 0.5 + radius * np.sin(angle)
    p = np.cos(angle) > 0  # Its front becomes brighter, what it leaves behind darker.
    noise = rng.random(events) < 0.1
    x = np.where(noise, rng.uniform(0, width, events), x).clip(0, width - 1)
    y = np.where(noise, rng.uniform(0, height, events), y).clip(0, height - 1)
    p = np.where(noise, rng.random(events) < 0.5, p)
    return EventStream(DEMO, x.astype(np.int64), y.astype(np.int64), t.astype(np.int64), p.astype(np.int64))


def _checked(name: str, columns: Mapping[str, npt.NDArray[Any]]) -> EventStream:
    missing = [field for field in _FIELDS if field not in columns]
    if missing:
        raise PipelineError(f"no event stream: has no {', '.join(missing)}; needs {', '.join(_FIELDS)}")
    lengths = {columns[field].shape for field in _FIELDS}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise PipelineError("x, y, t and p are not columns of one length; export it again")
    _check_size(columns["t"].size)
    whole = {field: _whole(field, columns[field]) for field in _FIELDS}
    if not whole["t"].size:
        raise PipelineError("holds no event; record it again")
    for field in ("x", "y"):
        least, most = int(whole[field].min()), int(whole[field].max())
        if least < 0 or most >= LARGEST:
            odd = least if least < 0 else most
            raise PipelineError(f"{field} = {odd} is no pixel (0…{LARGEST - 1}); is the file damaged?")
    if not np.isin(whole["p"], (0, 1)).all():
        raise PipelineError("p is to be 0 or 1; write 0 for events that became darker")
    stream = EventStream(name, **whole)
    if stream.duration_us >= LIMIT_US:
        raise PipelineError(
            f"lasts {stream.duration_us / 1000:,.1f} ms, and EventGPT takes streams shorter than "
            f"{LIMIT_US // 1000} ms (t in microseconds): cut it"
        )
    return stream


def _check_size(events: int) -> None:
    if events > MOST:
        raise PipelineError(f"{events:,} events are more than a sensor sends in {LIMIT_US // 1000} ms; cut it")


def _whole(field: str, column: npt.NDArray[Any]) -> Ints:
    """As int64: as the uint16 that it may come in, a time would wrap after 65.5 ms."""
    if column.dtype.kind not in "biuf":
        raise PipelineError(f"{field} holds no numbers; export it again")
    with np.errstate(invalid="ignore"):
        whole = column.astype(np.int64)
    if column.dtype.kind in "fu" and not np.array_equal(whole.astype(column.dtype), column):
        unit = " (t is in microseconds)" if field == "t" else ""
        raise PipelineError(f"{field} holds what is no whole number{unit}; export it again")
    return whole


# --- formats -------------------------------------------------------------------------------------------------------


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # By the names that their module had before NumPy 2 and has since: what this NumPy makes arrays and numbers of.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): np.int64(0).__reduce__()[0] for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    """Makes arrays, and refuses every other name before anything of it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise PipelineError(
                f"its pickle asks for {shown(f'{module}.{name}')}, which is no data; nothing of it was run"
            ) from None


def _npy(source: Path) -> Mapping[str, Any]:
    with source.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = header(file)
        if dtype.hasobject:
            return _pickled(file)
        file.seek(0)
        table = np.load(file, allow_pickle=False)
    if table.dtype.names:
        return {name: table[name] for name in table.dtype.names}
    if table.ndim == 2 and table.shape[1] == len(_FIELDS):
        return dict(zip(_FIELDS, table.T, strict=True))
    raise PipelineError("no event stream: holds neither x, y, t and p by name nor rows of these four")


def _pickled(file: BinaryIO) -> Mapping[str, Any]:
    held = _Unpickler(file).load()
    if isinstance(held, np.ndarray) and held.dtype.hasobject and held.size == 1:
        held = held.item()
    if not isinstance(held, dict):
        raise PipelineError("no event stream: holds no dictionary of x, y, t and p")
    return {name: held[name] for name in _FIELDS if name in held}


def _npz(source: Path) -> Mapping[str, Any]:
    with np.load(source, allow_pickle=False) as archive:
        for member in archive.zip.infolist():
            _check_size(member.file_size // np.dtype(np.int64).itemsize)
        return {name: archive[name] for name in _FIELDS if name in archive}


def _h5(source: Path) -> Mapping[str, Any]:
    if importlib.util.find_spec("h5py") is None:
        raise PipelineError("reading .h5 needs h5py: pip install 'llava-tui[events]', or export it as .npz")
    import h5py

    with h5py.File(source, "r") as file:
        held = _of_this_file(file, "events") if "events" in file else file
        if isinstance(held, h5py.Dataset):
            if held.is_virtual or held.external:
                raise PipelineError("no event stream: events is to be a table of this file itself")
            _check_size(held.size)
            return {name: held[name] for name in _FIELDS if name in (held.dtype.names or ())}
        columns = {name: _of_this_file(held, name) for name in _FIELDS if name in held}
        for column in columns.values():
            if not isinstance(column, h5py.Dataset) or column.is_virtual or column.external:
                raise PipelineError("no event stream: x, y, t and p are to be data sets of this file itself")
            _check_size(column.size)
        return {name: column[()] for name, column in columns.items()}


def _of_this_file(group: Any, name: str) -> Any:
    """A link may lead to any file that this user can read, and a data file is not to choose what is read."""
    import h5py

    if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
        raise PipelineError(f"no event stream: {name} is a link to elsewhere; export it with its data")
    return group[name]


def _csv(source: Path) -> Mapping[str, Any]:
    with source.open(encoding="utf-8-sig") as file:
        names = [name.strip().strip('"').lower() for name in file.readline(1000).split(",")]
        where = {field: names.index(field) for field in _FIELDS if field in names}
        if len(where) < len(_FIELDS):
            raise PipelineError("no event stream: its first line does not name the columns x, y, t and p")
        with warnings.catch_warnings(action="ignore"):  # Of a file without a row, which is refused below.
            table = np.loadtxt(file, delimiter=",", usecols=list(where.values()), ndmin=2)
    return dict(zip(where, table.T, strict=True))


_READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _h5,
    ".hdf5": _h5,
    ".csv": _csv,
}
