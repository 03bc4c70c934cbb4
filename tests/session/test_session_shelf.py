"""What was read once and kept: the same as the session's streams say, whatever happens to either."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_session import contents, happenings, session_in, write
from hypothesis import given, settings
from hypothesis import strategies as st
from session_making import MakeSession, append, make_header

from llava_tui import events
from llava_tui.session import packing, several, shelf, store
from llava_tui.session.reader import SessionError
from llava_tui.session.timeline import Timeline

FIXTURE = Path(__file__).parent.parent / "fixtures/schema-1.1"
CLOSED = events.StateChange(t=10**6, state="closed")


@pytest.fixture(autouse=True)
def _every_session_is_worth_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "WORTH", 1)
    monkeypatch.setattr(shelf, "SETTLED_NS", -(10**18))
    monkeypatch.setenv("LLAVA_TUI_CACHE", str(tmp_path / "cache"))


@contextmanager
def reading_streams() -> Iterator[list[Path]]:
    """Whose streams are read meanwhile."""
    read: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Timeline, "poll", lambda self, poll=Timeline.poll: (read.append(self.path), poll(self))[1])
        yield read


def kept() -> list[Path]:
    return list(shelf.folder().iterdir()) if shelf.folder().exists() else []


def exactly(timeline: Timeline) -> dict[str, Any]:
    """All that a timeline holds, numbers as their bytes."""
    found: dict[str, Any] = {"counts": (timeline.end, timeline.corrupt, timeline.unknown), "rows": contents(timeline)}
    for name, table in timeline.tables.items():
        for column, kind in table.kinds.items():
            values = table[column]
            told = values.tolist() if kind in "op" else values.tobytes()
            found[name, column] = (values.dtype, told, table.names(column) if kind == "c" else None)
            assert not values.flags.writeable
    return found


@settings(deadline=None, max_examples=25)
@given(happened=happenings(), later=happenings(), t=st.integers(-1, 60), cut=st.integers(1, 200))
def test_from_the_shelf_a_session_is_what_its_streams_say(
    happened: list[tuple[str, Any]], later: list[tuple[str, Any]], t: int, cut: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = session_in(folder, "any")
        write(path, [*happened, ("events-0.jsonl", CLOSED)])
        (path / "events-1.jsonl").open("ab").write(b'damaged\n{"type":"newer"}\n{"type":"log",')
        expected = exactly(Timeline.open(path, hints=False))
        assert exactly(shelf.read(path)) == expected
        with reading_streams() as read:
            again = shelf.read(path)
            # As one would, column by column, and at a moment before all.
            assert contents(again.at(t)) == contents(Timeline.open(path, hints=False).at(t))
            assert exactly(again) == expected
            assert not again.poll()
        assert read.count(path) == 2, "the one that is compared with, and the poll"

        stream, more = path / "events-0.jsonl", path / "telemetry-b.jsonl"
        for change in (
            lambda: write(path, later),
            lambda: os.truncate(stream, max(stream.stat().st_size - cut, 0)),
            lambda: more.write_bytes(b'{"type":"host","t":3,"cpu":1}\n'),
            more.unlink,
        ):
            with reading_streams() as read:
                held = shelf.read(path)
            change()
            fresh = exactly(Timeline.open(path, hints=False))
            assert exactly(shelf.read(path)) == fresh
            if not read:  # was on the shelf: not after a cut that took the closing event with it
                held.poll()
                assert exactly(held) == fresh


@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_never_shown_and_replaced(place: float, bit: int, cut: bool) -> None:
    expected = exactly(Timeline.open(FIXTURE, hints=False))
    shelf.read(FIXTURE)
    (file,) = kept()
    whole = file.read_bytes()
    at = int(place * len(whole))
    file.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    assert exactly(shelf.read(FIXTURE)) == expected
    assert kept() == [file]
    assert file.read_bytes() == whole


def test_a_file_of_another_version_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(shelf, "__version__", "0.0.1")
        shelf.read(FIXTURE)
    with reading_streams() as read:
        shelf.read(FIXTURE)
        shelf.read(FIXTURE)
    assert read == [FIXTURE]


def test_what_changes_within_a_stream_without_a_trace_in_its_size_and_time_is_seen(make_session: MakeSession) -> None:
    path = make_session(happened=[events.Log(t=1, level="info", text="before" + "x" * 300_000), CLOSED])
    stream = path / "events.jsonl"
    assert shelf.read(path).log["text"][0].startswith("before")
    told = stream.stat()
    stream.write_bytes(stream.read_bytes().replace(b"x" * 10, b"y" * 10))
    os.utime(stream, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert "y" * 10 in shelf.read(path).log["text"][0]


def test_the_header_and_the_notes_are_always_the_sessions_own(make_session: MakeSession) -> None:
    path = make_session(happened=[CLOSED])
    shelf.read(path)
    from llava_tui.session.writer import write_atomically

    write_atomically(path / "session.json", make_header(path.name, model="another"))
    assert shelf.read(path).header.model == "another"
    (path / "session.json").unlink()
    with pytest.raises(SessionError, match="no session"):
        shelf.read(path)


def test_only_long_sessions_that_have_ended_are_kept(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = make_session("on", happened=[events.StateChange(t=1, state="measuring")])
    ended = make_session("ended", happened=[CLOSED])
    shelf.read(going_on)
    with monkeypatch.context() as change:
        change.setattr(shelf, "WORTH", 1 << 20)
        shelf.read(ended)
    with monkeypatch.context() as change:
        change.setattr(shelf, "SETTLED_NS", 3600 * 10**9)
        shelf.read(ended)
    with monkeypatch.context() as change:
        change.setenv("LLAVA_TUI_SHELF", "0")
        shelf.read(ended)
    assert not kept()
    shelf.read(ended)
    assert len(kept()) == 1


def test_nothing_is_written_into_a_sessions_folder_and_nobody_else_may_read_the_shelf(
    make_session: MakeSession,
) -> None:
    path = make_session(happened=[CLOSED])
    before = {one: one.stat().st_mtime_ns for one in (path, *path.iterdir())}
    shelf.read(path)
    shelf.read(path)
    assert {one: one.stat().st_mtime_ns for one in (path, *path.iterdir())} == before
    (file,) = kept()
    assert (file.stat().st_mode & 0o777, shelf.folder().stat().st_mode & 0o777) == (0o600, 0o700)


def test_without_a_place_for_the_shelf_sessions_open_all_the_same(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LLAVA_TUI_CACHE", str(tmp_path / "file"))
    path = make_session(happened=[CLOSED])
    for _ in range(2):
        assert shelf.read(path).now().state == "closed"
    shelf.forget(path)


def test_what_a_shelf_cannot_hold_is_read_from_its_streams(make_session: MakeSession) -> None:
    huge = events.RunEnd(t=2, run=1, outcome="ok", start=1, wall=1, facts={"digits": 10**30})
    path = make_session(happened=[events.RunStart(t=1, run=1, kind="measured"), huge, CLOSED])
    for _ in range(2):
        assert shelf.read(path).runs["facts"].tolist() == [{"digits": 10**30}]
    assert not kept()


def test_the_shelf_stays_within_its_bounds_and_keeps_what_was_opened_last(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = random.Random(1)
    paths = []
    for name in "abc":
        text = "".join(noise.choices("abcdefgh", k=100_000))
        paths.append(make_session(name, happened=[events.Log(t=1, level="info", text=text), CLOSED]))
    monkeypatch.setattr(shelf, "MOST", 250_000)
    for age, path in enumerate(paths[:2]):
        shelf.read(path)
        os.utime(shelf._file(path), (1000 + age, 1000 + age))
    left_behind = shelf.folder() / ".half"
    left_behind.write_bytes(b"a killed writer's")
    os.utime(left_behind, (1000, 1000))
    shelf.read(paths[0])  # opened again: the other one gives way
    shelf.read(paths[2])
    assert set(kept()) == {shelf._file(paths[0]), shelf._file(paths[2])}
    monkeypatch.setattr(shelf, "MOST", 50_000)
    shelf.forget(paths[0])
    shelf.read(paths[0])
    assert set(kept()) == {shelf._file(paths[2])}, "one that is larger than the shelf is not kept"


def test_a_deleted_session_is_forgotten(make_session: MakeSession) -> None:
    path = make_session(happened=[CLOSED])
    shelf.read(path)
    assert len(kept()) == 1
    store.delete(path)
    assert not kept()


def test_readers_at_once_disturb_each_other_in_nothing(make_session: MakeSession) -> None:
    logs = [events.Log(t=t, level="info", text=str(t)) for t in range(2000)]
    path = make_session(happened=[*logs, CLOSED])
    append(path / "events-1.jsonl", logs)
    script = """
import sys
from pathlib import Path
from llava_tui.session import shelf
shelf.WORTH, shelf.SETTLED_NS = 1, -(10**18)
path = Path(sys.argv[1])
for _ in range(20):
    assert shelf.read(path).log["text"][-1] == "1999"
    shelf._file(path).unlink(missing_ok=True)
    assert shelf.read(path).log.n == 4000
"""
    readers = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(3)]
    assert [reader.wait(60) for reader in readers] == [0, 0, 0]
    assert [file for file in kept() if file.name.startswith(".")] == []


@pytest.fixture
def two_long(make_session: MakeSession) -> list[Path]:
    """As long as a process of their own is worth."""
    text = "x" * (1 << 20)
    logs = [events.Log(t=t, level="info", text=text) for t in range(several.WORTH >> 20)]
    return [make_session(name, happened=[*logs, CLOSED]) for name in "ab"]


def test_of_two_long_sessions_another_process_reads_one(two_long: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "SETTLED_NS", 1_000_000_000)  # as it is for the other process
    until = time.monotonic() + 10
    while not all(shelf.is_new(path, several.WORTH) for path in two_long) and time.monotonic() < until:
        time.sleep(0.05)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with reading_streams() as read:
        found = several.read([*two_long, two_long[0]])
    assert read == two_long[:1]
    assert [found[path].log.n for path in two_long] == [several.WORTH >> 20] * 2
    assert [found[path].path for path in two_long] == two_long
    assert len(kept()) == 2


@pytest.mark.parametrize("hindrance", ["one core", "a process that fails"])
def test_with_one_core_or_no_process_sessions_are_read_one_after_the_other(
    two_long: list[Path], hindrance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0} if hindrance == "one core" else {0, 1, 2})
    monkeypatch.setattr(several.sys, "executable", shutil.which("false"))
    with reading_streams() as read:
        several.read(two_long)
        several.read(two_long)
    assert read == two_long


@pytest.mark.parametrize(
    ("values", "bytes_"),
    [([0, 127], 1), ([-129, 5], 2), ([-(2**31), 2**31 - 1], 4), ([2**31], 8), ([-1, 2**63 - 1], 8), ([-(2**63)], 8)],
)
def test_integers_take_as_few_bytes_as_hold_them(values: list[int], bytes_: int) -> None:
    narrow = packing._narrowed(np.array(values, np.int64))
    assert narrow.tolist() == values
    assert narrow.itemsize == bytes_
