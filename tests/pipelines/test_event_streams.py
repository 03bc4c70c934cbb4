"""Events become the pictures that EventGPT was trained on, and a file of them is never more than data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui.pipelines import event_streams
from llava_tui.pipelines.base import PipelineError
from llava_tui.pipelines.event_streams import EventStream, demo_stream, pictures, read, render, slices

pytestmark = pytest.mark.models  # PyAV and Pillow: what an input may be is told in one place


def slow_render(x: Any, y: Any, p: Any) -> np.ndarray:
    """Written out event by event: what the pictures are defined as."""
    image = np.full((int(max(y)) + 1, int(max(x)) + 1, 3), 255, np.uint8)
    for column, row, polarity in zip(x, y, p, strict=True):
        image[row, column] = (0, 0, 255) if polarity == 0 else (255, 0, 0)
    return image


def columns(events: int = 500, seed: int = 0) -> dict[str, np.ndarray]:
    """In the types that EventGPT's own samples have."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, 40, events).astype(np.uint16),
        "y": rng.integers(0, 30, events).astype(np.uint16),
        "t": np.sort(rng.integers(0, 60_000, events)).astype(np.uint16),
        "p": rng.integers(0, 2, events).astype(np.uint8),
    }


def write(folder: Path, kind: str, held: dict[str, np.ndarray]) -> Path:
    path = folder / f"events.{kind}"
    if kind == "npy":
        np.save(path, held, allow_pickle=True)  # type: ignore[arg-type]
    elif kind == "npz":
        np.savez(path, **held)
    elif kind == "csv":
        rows = zip(*(held[name] for name in "txyp"), strict=True)
        path.write_text("t, x, y, p\n" + "".join(f"{t},{x},{y},{p}\n" for t, x, y, p in rows))
    else:
        with h5py.File(path, "w") as file:
            for name, column in held.items():
                file["events/" + name] = column
    return path


def pickled(path: Path, held: Any, protocol: int) -> Path:
    """As np.save writes an array of objects, whatever ``held`` is."""
    array = np.empty((), dtype=object)
    array[()] = held
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, file, protocol=protocol)
    return path


def refused(path: str | Path) -> str:
    """What is said of it: one line that begins with the file."""
    with pytest.raises(PipelineError) as caught:
        read(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(path))
    return said


# --- pictures ------------------------------------------------------------------------------------------------------

EVENTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(-1, 2)), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_every_pixel_is_what_the_last_event_there_says(events: list[tuple[int, int, int]]) -> None:
    x, y, p = np.array(events, np.int64).T
    picture = render(x, y, p)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, slow_render(x, y, p))


def test_a_real_sensors_stream_is_rendered_to_the_pixel() -> None:
    """Many events a pixel, of both polarities: where the order of events decides."""
    stream = demo_stream(20_000, (64, 48))
    drawn = pictures(stream, 5)
    parts = slices(stream, 5)
    assert len(drawn) == 5
    for picture, part in zip(drawn, parts, strict=True):
        assert np.array_equal(picture, slow_render(stream.x[part], stream.y[part], stream.p[part]))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 12))
def test_slices_are_of_equal_count_and_lose_no_event(events: int, count: int) -> None:
    of = np.zeros(events, np.int64)
    stream = EventStream("any", of, of, of, of)
    if events < count:
        with pytest.raises(PipelineError, match="fewer --frames"):
            slices(stream, count)
        return
    parts = slices(stream, count)
    assert np.array_equal(np.concatenate([np.arange(events)[part] for part in parts]), np.arange(events))
    lengths = [part.stop - part.start for part in parts]
    assert len(lengths) == count
    assert set(lengths[:-1]) <= {events // count}
    assert lengths[-1] == events - (count - 1) * (events // count)


def test_a_picture_is_no_larger_than_its_slice_needs() -> None:
    """As upstream draws it: each slice has a canvas of its own."""
    of = EventStream("any", *(np.array(column) for column in ([1, 7], [2, 4], [0, 1], [0, 1])))
    assert [picture.shape for picture in pictures(of, 2)] == [(3, 2, 3), (5, 8, 3)]


def test_drawing_can_be_cut_between_slices() -> None:
    checks = []
    pictures(demo_stream(100), 5, lambda: checks.append(1))
    assert len(checks) == 5


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "h5", "hdf5"])
def test_every_format_gives_the_same_events(kind: str, tmp_path: Path) -> None:
    held = columns()
    stream = read(write(tmp_path, kind, held))
    for name, column in held.items():
        assert getattr(stream, name).dtype == np.int64
        assert getattr(stream, name).tolist() == column.tolist()
    assert stream.duration_us == int(held["t"][-1]) - int(held["t"][0])


def test_a_table_with_named_fields_and_rows_of_four_are_read(tmp_path: Path) -> None:
    held = columns()
    table = np.zeros(len(held["x"]), [(name, column.dtype) for name, column in held.items()])
    for name, column in held.items():
        table[name] = column
    np.save(tmp_path / "table.npy", table)
    np.save(tmp_path / "rows.npy", np.stack([held[name] for name in "xytp"], axis=1))
    expected = read(write(tmp_path, "npz", held))
    for name in ("table.npy", "rows.npy"):
        assert np.array_equal(read(tmp_path / name).t, expected.t)
        assert np.array_equal(read(tmp_path / name).x, expected.x)


def test_a_stream_pickled_before_numpy_2_is_read(tmp_path: Path) -> None:
    """Upstream's samples were written by NumPy 1, whose pickles name modules that have moved since."""
    path = pickled(tmp_path / "old.npy", columns(), protocol=3)
    new = path.read_bytes()
    assert b"numpy._core.multiarray" in new
    path.write_bytes(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read(path).t.tolist() == columns()["t"].tolist()


def test_a_time_in_sixteen_bits_does_not_wrap(tmp_path: Path) -> None:
    """uint16 arithmetic would give 65 ms where 65.535 ms went by, and 1 µs after its end 0."""
    held = columns(2) | {"t": np.array([0, 65_535], np.uint16)}
    assert read(write(tmp_path, "npy", held)).duration_us == 65_535


@pytest.mark.parametrize(
    ("first", "last", "taken"), [(0, 99_999, True), (0, 100_000, False), (0, 10**9, False), (-(2**62), 2**62, False)]
)
def test_a_stream_of_100_ms_is_refused_as_upstream_refuses_it(
    first: int, last: int, taken: bool, tmp_path: Path
) -> None:
    path = write(tmp_path, "npz", columns(2) | {"t": np.array([first, last])})
    if taken:
        assert read(path).duration_us == last
    else:
        assert "EventGPT takes streams shorter than 100 ms" in refused(path)


# --- files that are none -------------------------------------------------------------------------------------------


class _Evil:
    """What a pickle may hold: a call of anything, made while it is read."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> Any:
        return self.call, self.given


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(protocol: int, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    calls = ((os.system, f"touch {victim}"), (eval, f"open({str(victim)!r}, 'w')"), (open, str(victim), "w"),
             (np.save, str(victim), 1))  # fmt: skip
    for number, call in enumerate(calls):
        path = pickled(tmp_path / f"evil{number}.npy", columns() | {"extra": _Evil(*call)}, protocol)
        assert "nothing of it was run" in refused(path)
        assert not victim.exists()
    # Read without care, the same bytes do write the file.
    np.load(path, allow_pickle=True)
    assert victim.with_suffix(".npy").exists()


def test_an_archive_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    np.savez(tmp_path / "evil.npz", **{**columns(), "x": np.array([_Evil(open, str(victim), "w")], dtype=object)})
    refused(tmp_path / "evil.npz")
    assert not victim.exists()


def test_a_table_in_an_h5_is_read(tmp_path: Path) -> None:
    held = columns()
    table = np.zeros(len(held["x"]), [(name, held[name].dtype) for name in "txyp"])
    for name, column in held.items():
        table[name] = column
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["events"] = table
    assert read(tmp_path / "table.h5").x.tolist() == held["x"].tolist()


@pytest.mark.parametrize("kind", ["link", "soft link", "group", "virtual", "external", "external table"])
def test_an_h5_reads_no_file_but_itself(kind: str, tmp_path: Path) -> None:
    """HDF5 has several ways to have another file's bytes for its own."""
    write(tmp_path, "h5", columns()).rename(tmp_path / "secret.h5")
    (tmp_path / "secret.bin").write_bytes(bytes(4000))
    with h5py.File(tmp_path / "evil.h5", "w") as file:
        if kind == "group":
            file["events"] = h5py.ExternalLink("secret.h5", "/events")
        elif kind == "soft link":
            file["elsewhere"] = h5py.ExternalLink("secret.h5", "/events")
            file["events"] = h5py.SoftLink("/elsewhere")
        elif kind == "external table":
            table = np.dtype([(name, "u2") for name in "xytp"])
            file.create_dataset("events", (500,), table, external=[("secret.bin", 0, 4000)])
        else:
            for name, column in columns().items():
                file[name] = column
            del file["x"]
            if kind == "link":
                file["x"] = h5py.ExternalLink("secret.h5", "/events/x")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((500,), "u2")
                layout[:] = h5py.VirtualSource("secret.h5", "events/x", (500,))
                file.create_virtual_dataset("x", layout)
            else:
                file.create_dataset("x", (500,), "u2", external=[("secret.bin", 0, 4000)])
    assert "no event stream" in refused(tmp_path / "evil.h5")


def test_a_small_file_does_not_unpack_to_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        for name in "xytp":
            file.create_dataset(name, (1 << 40,), "u8", chunks=(1 << 20,))
    assert "more than a sensor sends" in refused(tmp_path / "bomb.h5")
    monkeypatch.setattr(event_streams, "MOST", 1 << 16)
    np.savez_compressed(tmp_path / "bomb.npz", **dict.fromkeys("xytp", np.zeros(1 << 17, np.int64)))
    assert "more than a sensor sends" in refused(tmp_path / "bomb.npz")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_one_line_or_does_no_harm(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(
        tmp_path_factory.mktemp("damaged"), data.draw(st.sampled_from(["npy", "npz", "csv", "h5"])), columns(50)
    )
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    said, stream = "", None
    try:
        stream = read(path)
    except PipelineError as error:
        said = str(error)
    if stream is None:
        assert said.startswith(str(path))
        assert said.isprintable(), "one line, and nothing that a terminal would act upon"
    else:
        assert len(stream) == stream.x.size == stream.y.size == stream.p.size > 0
        assert pictures(stream, 1)[0].shape[2] == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"p": None}, "has no p; needs x, y, t, p"),
        ({"x": np.arange(3)}, "not columns of one length"),
        ({"x": np.zeros((500, 1))}, "not columns of one length"),
        ({"x": np.full(500, -1)}, "x = -1 is no pixel"),
        ({"y": np.full(500, 2**40)}, "is no pixel"),
        ({"p": np.full(500, -1)}, "p is to be 0 or 1"),
        ({"t": np.linspace(0, 0.05, 500)}, "t is in microseconds"),
        ({"t": np.full(500, np.nan)}, "no whole number"),
        ({"x": np.full(500, "a")}, "holds no numbers"),
        ({name: np.zeros(0) for name in "xytp"}, "holds no event"),
    ],
)
def test_columns_that_make_no_sense_are_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    held = {name: column for name, column in (columns() | changes).items() if column is not None}
    assert said in refused(write(tmp_path, "npz", held))


def test_what_is_no_event_file_is_refused_by_name(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "nothing.npy")
    assert ".npy, .npz, .h5 or .csv" in refused(tmp_path / "nothing.npy")
    assert "no event stream" in refused(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"video")
    assert "no event stream" in refused(tmp_path / "clip.mp4")
    (tmp_path / "empty.npy").touch()
    assert "empty" in refused(tmp_path / "empty.npy")
    np.save(tmp_path / "picture.npy", np.zeros((3, 3, 3)))
    assert "neither x, y, t and p" in refused(tmp_path / "picture.npy")
    np.save(tmp_path / "list.npy", np.array([[1], 2], dtype=object))
    assert "no dictionary" in refused(tmp_path / "list.npy")
    (tmp_path / "bare.csv").write_text("1,2,3,0\n")
    assert "first line does not name" in refused(tmp_path / "bare.csv")
    (tmp_path / "words.csv").write_text("x,y,t,p\n1,2,soon,0\n")
    assert "not an event stream that can be read" in refused(tmp_path / "words.csv")


def test_where_h5py_is_missing_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(event_streams.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'llava-tui[events]'" in refused(tmp_path / "events.h5")
