"""A session out of a pipe: real pipes, and what `cat` and `tail` put into them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_making import MakeSession, append, make_header

from llava_tui import events
from llava_tui.session import writer
from llava_tui.session.mirror import Mirror
from llava_tui.session.piped import PipedSource, Sorter
from llava_tui.session.reader import NewerSchema, SessionError
from llava_tui.session.timeline import Timeline

FIXTURE = Path(__file__).parents[1] / "fixtures" / "schema-1.1"
STREAMS = ("events.jsonl", "telemetry.jsonl")
PATIENCE_S = 20.0
Watch = Callable[[int], PipedSource]


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


@pytest.fixture
def watch(mirrors: Path) -> Iterator[Watch]:
    """Watches what comes out of a descriptor."""
    sources: list[PipedSource] = []

    def make(fd: int) -> PipedSource:
        source = PipedSource.open(fd, mirrors)
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


@pytest.fixture
def piped() -> Callable[[bytes], int]:
    """A descriptor out of which these bytes come, then the end."""

    def make(data: bytes) -> int:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            return os.dup(file.fileno())

    return make


def fixture_bytes(*names: str) -> bytes:
    return b"".join((FIXTURE / name).read_bytes() for name in names)


def test_a_session_out_of_cat_is_the_session(watch: Watch, piped: Callable[[bytes], int]) -> None:
    source = watch(piped(fixture_bytes("session.json", *STREAMS)))
    for name in ("session.json", *STREAMS):
        assert (source.path / name).read_bytes() == (FIXTURE / name).read_bytes()
    assert source.status() == "finished"
    assert source.line() == ""
    assert not source.controllable
    with pytest.raises(SessionError, match="a pipe has no way back"):
        source.send("pause")


def test_files_may_come_in_any_order_with_the_names_that_tail_prints(
    watch: Watch, piped: Callable[[bytes], int]
) -> None:
    header = json.dumps(json.loads(fixture_bytes("session.json"))).encode() + b"\n"
    for document in (header, fixture_bytes("session.json")):
        data = b"\n\n".join(
            [
                b"==> telemetry.jsonl <==\n" + fixture_bytes("telemetry.jsonl"),
                b"==> control.jsonl <==\n" + fixture_bytes("control.jsonl"),
                b"==> notes.json <==\n" + fixture_bytes("notes.json"),
                b"==> events.jsonl <==\n" + fixture_bytes("events.jsonl"),
                b"==> session.json <==\n" + document,
            ]
        )
        source = watch(piped(data))
        assert json.loads((source.path / "session.json").read_bytes()) == json.loads(header)
        assert json.loads((source.path / "notes.json").read_bytes())["name"] == "first light"
        for name in STREAMS:
            assert (source.path / name).read_bytes() == (FIXTURE / name).read_bytes()
        assert Timeline.open(source.path).corrupt == 0


LINES = st.lists(
    st.sampled_from(
        [
            *fixture_bytes("session.json", *STREAMS, "notes.json").splitlines(keepends=True),
            b"\n",
            b"==> events.jsonl <==\n",
            b"{\n",
            b"}\n",
            b"nonsense \xff\n",
            b'{"type":"state","t":3,"rank":2,"state":"paused"}\n',
            b'{"type":"state","t":3,"rank":-9,"state":"paused"}\n',
            b'{"type":7}\n',
            b"[]\n",
            b'{"id":"a","verb":"pause"}\n',
        ]
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(LINES, st.lists(st.integers(0, 5000), max_size=20))
def test_the_files_are_the_same_however_the_bytes_were_split(lines: list[bytes], cuts: list[int]) -> None:
    data = fixture_bytes("session.json") + b"".join(lines)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    ways = [[data], [data[a:b] for a, b in itertools.pairwise(places)], [bytes([byte]) for byte in data]]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for pieces in ways:
            mirror = Mirror(Path(folder))
            sorter = Sorter(mirror)
            for piece in pieces:
                sorter.feed(piece)
            sorter.end()
            found.append({path.name: path.read_bytes() for path in sorter.copy.path.iterdir()})
            mirror.close()
    assert found[0] == found[1] == found[2]


def test_each_rank_has_a_stream_of_its_own_and_damage_is_counted(watch: Watch, piped: Callable[[bytes], int]) -> None:
    both = b'{"type":"run","t":1,"run":1,"kind":"measured","case":"a"}\n' + (
        b'{"type":"run","t":1,"rank":1,"run":1,"kind":"measured","case":"b"}\n'
        b'{"type":"end","t":2,"run":1,"outcome":"ok","start":1,"wall":1}\n'
        b'{"type":"end","t":2,"rank":1,"run":1,"outcome":"ok","start":1,"wall":1}\n'
    )
    source = watch(piped(fixture_bytes("session.json") + both + b'{"type":"state","t":\n{"type":"later","t":1}\n'))
    timeline = Timeline.open(source.path)
    assert sorted(row["case"] for row in timeline.runs.rows()) == ["a", "b"]
    assert (timeline.corrupt, timeline.unknown) == (1, 1)
    assert source.status() == "interrupted"


def test_a_session_is_watched_as_it_grows(watch: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=[events.StateChange(t=1, state="measuring")])
    append(path / "telemetry.jsonl", [events.HostSample(t=1, cpu=1.0)])
    names = ["session.json", *STREAMS]
    with subprocess.Popen(["tail", "-n", "+1", "-f", *names], cwd=path, stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        source = watch(os.dup(tail.stdout.fileno()))
        timeline = Timeline.open(source.path)
        until(lambda: timeline.poll() or timeline.host.n == 1, "the first sample")
        assert source.status() == "running"
        append(path / "events.jsonl", [events.StateChange(t=2, state="paused")])
        append(path / "telemetry.jsonl", [events.HostSample(t=3, cpu=1.0)])
        until(lambda: source.status() == "paused", "the pause")
        until(lambda: timeline.poll() or timeline.host.n == 2, "the next sample")
        tail.kill()
        until(lambda: source.status() == "interrupted", "the end of the pipe")


def test_another_session_behind_the_first_is_shown_instead(watch: Watch, tmp_path: Path) -> None:
    writer.write_atomically(tmp_path / "other.json", make_header("other"))
    reading, writing = os.pipe()
    os.write(writing, fixture_bytes("session.json", "events.jsonl"))
    source = watch(reading)
    first = source.path
    os.write(writing, fixture_bytes("session.json"))  # once more: nothing new
    os.write(writing, (tmp_path / "other.json").read_bytes() + fixture_bytes("events.jsonl"))
    until(lambda: source.path != first, "the other")
    assert Timeline.open(source.path).header.id == "other"
    os.close(writing)
    until(lambda: (source.path / "events.jsonl").exists(), "its events")
    assert (source.path / "events.jsonl").read_bytes() == fixture_bytes("events.jsonl")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "standard input held no session"),
        (b"hello\n", "standard input held no session"),
        (fixture_bytes("events.jsonl"), "session.json must come"),
        (fixture_bytes("session.json")[:300], "standard input held no session"),
        (b'{"schema":[1,0]}\n', "standard input/session.json is damaged"),
    ],
)
def test_what_is_no_session_is_said_in_a_line(
    data: bytes, why: str, watch: Watch, piped: Callable[[bytes], int]
) -> None:
    with pytest.raises(SessionError) as error:
        watch(piped(data))
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_newer_session_is_refused(watch: Watch, piped: Callable[[bytes], int]) -> None:
    with pytest.raises(NewerSchema, match=r"^standard input was written by a newer llava-tui"):
        watch(piped(b'{"schema":[9,0]}\n'))


def test_the_command_prints_a_session_out_of_a_pipe(tmp_path: Path) -> None:
    def watched(*arguments: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "llava_tui", "watch", "-", *arguments]
        return subprocess.run(
            command, input=given, capture_output=True, timeout=60, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        )

    session = fixture_bytes("session.json", *STREAMS)
    assert b"3 generate" in watched("--headless", given=session).stdout
    assert json.loads(watched("--json", given=session).stdout)["status"] == "finished"
    failed = watched(given=b"nothing\n")
    assert failed.returncode == 2
    assert failed.stderr.startswith(b"llava-tui: standard input held no session")
    assert failed.stderr.count(b"\n") == 1
    assert [one.name for one in (tmp_path / "llava-tui" / "watch").iterdir()] == [".lock"]
