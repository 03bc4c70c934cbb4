"""Text from anywhere, headers in every state of damage, and streams however they grew."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from session_making import MakeSession

from llava_tui import events
from llava_tui.session import reader
from llava_tui.session.reader import NewerSchema, SessionError, StreamReader, read_header, read_notes, safe_text

# --- text ---------------------------------------------------------------------------------------------------------

HOSTILE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain, é, 猫, 🐈", "plain, é, 猫, 🐈"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x9b2Jgone", "gone"),
        ("\x1b]0;title\x07kept", "kept"),
        ("\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP$q\x1b\\after", "after"),
        ("\x1b]52;c;never ended", "52;c;never ended"),
        ("\x1b\x1b[31mtwice", "twice"),
        ("\x1b(0\x1b=\x1bccharset", "charset"),
        ("10%\r20%\r\ndone\u2028more", "10%\n20%\ndone\nmore"),
        ("a\tb\x00\x08c\x7f", "a bc"),
        ("file\u202egpj.exe", "filegpj.exe"),
        ("lone \ud83d end", "lone \ufffd end"),
        ("[bold]markup is text[/]", "[bold]markup is text[/]"),
    ],
)
def test_safe_text_keeps_what_is_written_and_nothing_that_a_terminal_obeys(text: str, safe: str) -> None:
    assert safe_text(text) == safe


@settings(deadline=None)
@given(st.text(st.characters(codec=None) | st.sampled_from("\x1b\x9b\x9d[]P;m\\\x07\n\r\t\u202e")))
def test_safe_text_is_safe_and_settled_for_any_text(text: str) -> None:
    safe = safe_text(text)
    assert not HOSTILE.search(safe)
    assert safe_text(safe) == safe


def test_safe_text_takes_linear_time_on_introducers_without_an_end() -> None:
    assert safe_text("\x9d" * 1_000_000 + "\x1b]" * 500_000) == ""


def test_safe_text_cuts_visibly() -> None:
    assert safe_text("abcdef", 4) == "abc…"
    assert safe_text("abcd", 4) == "abcd"
    assert safe_text("\x1b[31mabcd\x1b[0m", 4) == "abcd"


# --- the header ---------------------------------------------------------------------------------------------------


def change_header(path: Path, **changes: Any) -> None:
    header = json.loads((path / "session.json").read_text())
    (path / "session.json").write_text(json.dumps(header | changes))


def test_a_newer_major_is_refused_by_name_and_with_the_mend(make_session: MakeSession) -> None:
    path = make_session()
    # Nothing else about it need be as we know it.
    (path / "session.json").write_text('{"schema": [2, 3, 9], "everything": "else"}')
    with pytest.raises(NewerSchema, match=r"schema 2\.3.*update llava-tui") as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_newer_minor_opens_whatever_else_it_says(make_session: MakeSession) -> None:
    path = make_session()
    change_header(path, schema=[1, 99], novelty={"a": 1})
    assert read_header(path).schema == (1, 99)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schema": "1.0"}',
        b'{"schema": [1]}',
        b'{"schema": [1, 0]}',
        b'{"schema": [1, 0], "id": "\xff"}',
        b'{"schema": [1, 0], "id": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_a_damaged_header_is_said_in_a_line(make_session: MakeSession, content: bytes) -> None:
    path = make_session()
    (path / "session.json").write_bytes(content)
    with pytest.raises(SessionError, match=r"session\.json is damaged: ") as caught:
        read_header(path)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_session_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="no such folder"):
        read_header(tmp_path / "nothing")
    with pytest.raises(SessionError, match=r"is not a session: it has no session\.json"):
        read_header(tmp_path)
    (tmp_path / "session.json").mkdir()
    with pytest.raises(SessionError, match="cannot read"):
        read_header(tmp_path)


def test_a_headers_text_is_safe_but_its_plan_is_kept_to_be_run_again(make_session: MakeSession) -> None:
    prompt = "tab\there \x1b[31m"
    path = make_session(model="\x1b]0;x\x07llava", plan={"prompt": prompt}, versions={"torch\n\x1b[2J": "2\u202e"})
    header = read_header(path)
    assert header.model == "llava"
    assert header.versions == {"torch\n": "2"}
    assert header.plan == {"prompt": prompt}


def test_notes_are_safe_and_empty_where_there_are_none(make_session: MakeSession) -> None:
    path = make_session()
    assert read_notes(path) == events.Notes()
    (path / "notes.json").write_text('{"name": "a\\u001b[31m", "tags": ["x"], "new": 1}')
    assert read_notes(path) == events.Notes(name="a", tags=("x",))
    (path / "notes.json").write_text("{torn")
    assert read_notes(path) == events.Notes()


# --- streams ------------------------------------------------------------------------------------------------------

EVENT = st.one_of(
    st.builds(events.Log, t=st.integers(0, 99), level=st.just("info"), text=st.text(max_size=8)),
    st.builds(events.StateChange, t=st.integers(0, 99), state=st.sampled_from(["cold", "héé", "猫🐈"])),
    st.builds(events.GpuSample, t=st.integers(0, 99), gpu=st.integers(0, 3), power_mw=st.none() | st.integers(0, 9)),
).map(msgspec.json.encode)
DAMAGE = st.sampled_from(
    [
        b'{"type":"log","t":1,"level":"info","te',  # torn
        b'{"type":"log","t":1,"level":"info","text":"\xff"}',
        b'{"type":"log","t":1,"level":"info","text":"\xe7\x8c"}',
        b'{"type":"log","t":"soon","level":"info","text":""}',
        b'{"type":"log","t":1}{"type":"log","t":1}',
        b'{"type":"state","t":1,"state":"a"}{"type":"state","t":2,"state":"b"}',
        b'{"type":"state","t":1,',  # together one valid object over two lines
        b'"state":"over two lines"}',
        b'{"t":1,"state":"no type"}',
        b'{"type":7}',
        b"[1,2]",
        b"null",
        b"}",
        b"{",
        b"\x00\x00\x00\x00",
        b'{"type":"end","facts":' + b'{"a":' * 3000,
    ]
)
NEWER = st.sampled_from([b'{"type":"novelty","t":1,"x":[{}]}', b'{"type":"","t":1}', b'{"t":1,"type":"gpu.new"}'])
LINE = st.one_of(
    EVENT, EVENT, EVENT, DAMAGE, NEWER, st.sampled_from([b"", b" ", b"\r"]), EVENT.map(lambda e: e + b"\r")
)
STREAM = st.tuples(st.lists(LINE, max_size=12), st.sampled_from([b"", b'{"type":"sta', b"\xf0\x9f"])).map(
    lambda parts: b"".join(line + b"\n" for line in parts[0]) + parts[1]
)


def line_by_line(data: bytes) -> tuple[list[Any], int]:
    """What a stream says, by the law: each whole line on its own; and how many lines say nothing."""
    decoder = msgspec.json.Decoder(events.AnyEvent)
    found, skipped = [], 0
    for line in data.split(b"\n")[:-1]:
        if line.strip():
            try:
                found.append(decoder.decode(line))
            except (ValueError, RecursionError):
                skipped += 1
    return found, skipped


@settings(deadline=None)
@given(
    data=STREAM,
    cuts=st.lists(st.integers(0, 400), max_size=6),
    chunk=st.sampled_from([1, 7, 64, reader.CHUNK]),
    many=st.sampled_from([0, 0, 100, reader.MANY]),
)
@example(
    data=b'{"type":"state","t":1,\n"state":"x"}\n{"type":"state","t":1,"state":"x"}\n', cuts=[25], chunk=64, many=0
)
@example(data=b'{"type":"state","t":1,"state":"x"}{"type":"state","t":1,"state":"x"}\n', cuts=[], chunk=999, many=0)
@example(data=b'{"type":"state","t":1,\n"state":"x"}{"type":"state","t":1,"state":"x"}\n', cuts=[], chunk=999, many=0)
def test_however_a_stream_grew_it_says_the_same(data: bytes, cuts: list[int], chunk: int, many: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "MANY", many)  # lines together, or each on its own
        stream = Path(folder) / "events.jsonl"
        following = StreamReader(stream, events.AnyEvent, chunk=chunk)
        assert following.read() == []  # not there yet
        followed = []
        stream.touch()
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
            with stream.open("ab") as file:
                file.write(data[start:end])
            followed += following.read()
        at_once = StreamReader(stream, events.AnyEvent)
        expected, skipped = line_by_line(data)
        assert at_once.read() == expected
        assert followed == expected
        assert following.read() == []
        assert (following.corrupt, following.unknown) == (at_once.corrupt, at_once.unknown)
        assert following.corrupt + following.unknown == skipped


def test_newer_events_are_told_from_damage(tmp_path: Path) -> None:
    stream = tmp_path / "events.jsonl"
    stream.write_bytes(
        b'{"type":"novelty","t":1}\n{"type":"state","t":1,"state":"cold","novelty":{}}\n{"type":"state","t":1}\n'
    )
    following = StreamReader(stream, events.AnyEvent)
    assert following.read() == [events.StateChange(t=1, state="cold")]
    assert (following.unknown, following.corrupt) == (1, 1)


@pytest.mark.parametrize("chunk", [16, 100, 1 << 20])
@pytest.mark.parametrize("step", [1000, 50, 7])
def test_an_endless_line_costs_no_memory_and_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, step: int
) -> None:
    monkeypatch.setattr(reader, "LINE_LIMIT", 80)
    good = [events.StateChange(t=1, state="a"), events.StateChange(t=2, state="b" * 30)]
    lines = [msgspec.json.encode(good[0]), b"x" * 81, msgspec.json.encode(good[1]), b'{"type":"state"' + b" " * 300]
    data = b"\n".join(lines) + b"\n" + msgspec.json.encode(good[0]) + b"\n"
    stream = tmp_path / "events.jsonl"
    stream.touch()
    following, followed = StreamReader(stream, events.AnyEvent, chunk=chunk), []
    for start in range(0, len(data), step):
        with stream.open("ab") as file:
            file.write(data[start : start + step])
        followed += following.read()
    assert followed == [*good, good[0]]
    assert following.corrupt == 2


def test_a_stream_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(SessionError, match=r"cannot read .*/events\.jsonl: Is a directory"):
        StreamReader(tmp_path / "events.jsonl", events.AnyEvent).read()


def test_a_stream_that_shrank_or_went_away_says_nothing_new(tmp_path: Path) -> None:
    stream = tmp_path / "events.jsonl"
    stream.write_bytes(b'{"type":"state","t":1,"state":"a"}\n')
    following = StreamReader(stream, events.AnyEvent)
    assert len(following.read()) == 1
    stream.write_bytes(b"")
    assert following.read() == []
    stream.unlink()
    assert following.read() == []
