"""What survives: a killed writer, a full disk, a crash between two documents, a reader at the wrong moment."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import msgspec
import pytest
from session_making import Child, MakeSession, MountNamespace

from llava_tui import events
from llava_tui.session import writer
from llava_tui.session.reader import SessionError, StreamReader
from llava_tui.session.writer import StreamWriter, is_locked, lock, write_atomically


def log(text: str) -> events.Log:
    return events.Log(t=1, level="info", text=text)


def read(stream: Path) -> tuple[list[events.Log], int]:
    following = StreamReader(stream, events.AnyEvent)
    return following.read(), following.corrupt


def test_every_event_is_a_line_in_the_kernels_hands_when_write_returns(tmp_path: Path) -> None:
    stream = tmp_path / "events.jsonl"
    to = StreamWriter(stream)
    for number in range(3):
        to.write(log(f"line\n{number}"))
        assert len(stream.read_bytes().splitlines()) == number + 1
    to.close()
    to.close()
    assert stream.stat().st_mode & 0o777 == 0o600


def test_a_torn_tail_is_left_behind_and_swallows_nothing(tmp_path: Path) -> None:
    stream = tmp_path / "events.jsonl"
    stream.write_bytes(msgspec.json.encode(log("whole")) + b'\n{"type":"log","t":1,"lev')
    to = StreamWriter(stream)
    to.write(log("first"))
    to.write(log("second"))
    to.close()
    assert read(stream) == ([log("whole"), log("first"), log("second")], 1)


def test_a_name_that_is_not_utf8_does_not_end_the_recording(tmp_path: Path) -> None:
    stream = tmp_path / "events.jsonl"
    to = StreamWriter(stream)
    to.write(log(os.fsdecode(b"clip-\xff.mp4")))
    to.close()
    assert read(stream) == ([log("clip-?.mp4")], 0)


@pytest.mark.parametrize("stop_at", range(5))
def test_a_writer_killed_at_any_moment_loses_at_most_the_line_it_was_writing(
    tmp_path: Path, child: Child, stop_at: int
) -> None:
    stream = tmp_path / "events.jsonl"
    process = child(
        """
        import sys
        from pathlib import Path
        from llava_tui import events
        from llava_tui.session.writer import StreamWriter
        to = StreamWriter(Path(sys.argv[1]))
        print("ready", flush=True)
        number = 0
        while True:
            to.write(events.Log(t=number, level="info", text="x" * (number % 5000)))
            number += 1
        """,
        stream,
    )
    while not stream.exists() or stream.stat().st_size < 1000 + 100_000 * stop_at:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    found, corrupt = read(stream)
    assert [event.t for event in found] == list(range(len(found)))
    assert len(found) > 10
    assert corrupt == 0


# --- a full disk --------------------------------------------------------------------------------------------------

FULL = """
import errno
from pathlib import Path
from llava_tui import events
from llava_tui.session import store, writer
from llava_tui.session.reader import StreamReader
path = store.create(Path("/mnt/sessions"), "full")
to = writer.StreamWriter(path / "STREAM")
kept = 0
try:
    while True:
        to.write(events.Log(t=kept, level="info", text="x" * 1000))
        kept += 1
except OSError as error:
    assert error.errno == errno.ENOSPC, error
"""


def test_on_a_full_disk_the_last_words_still_fit(in_mount_namespace: MountNamespace) -> None:
    script = (
        FULL.replace("STREAM", "events.jsonl")
        + """
assert not (path / ".reserve").exists()
to.write(events.Log(t=kept, level="error", text="the disk is full"))
to.write(events.StateChange(t=kept + 1, state="failed", reason="disk full"))
to.sync()
to.close()
following = StreamReader(path / "events.jsonl", events.AnyEvent)
found = following.read()
assert [event.t for event in found] == list(range(kept + 2)), (kept, found[-3:])
assert following.corrupt <= 1  # the line within which the disk filled up
assert store.status(path) == "failed"
print(kept)
"""
    )
    result = in_mount_namespace("mount -t tmpfs -o size=512k none /mnt", script)
    assert result.returncode == 0, result.stderr
    assert 300 < int(result.stdout) < 512


def test_telemetry_does_not_spend_the_reserve(in_mount_namespace: MountNamespace) -> None:
    script = FULL.replace("STREAM", "telemetry.jsonl") + 'assert (path / ".reserve").exists()\n'
    result = in_mount_namespace("mount -t tmpfs -o size=512k none /mnt", script)
    assert result.returncode == 0, result.stderr


def test_a_document_that_does_not_fit_leaves_the_old_one(in_mount_namespace: MountNamespace) -> None:
    script = """
import errno, json, os
from pathlib import Path
from llava_tui.session.writer import write_atomically
path = Path("/mnt/notes.json")
write_atomically(path, {"note": "old"})
try:
    write_atomically(path, {"note": os.urandom(300_000).hex()})
except OSError as error:
    assert error.errno == errno.ENOSPC
else:
    raise AssertionError("it fitted")
assert json.loads(path.read_text()) == {"note": "old"}
assert os.listdir("/mnt") == ["notes.json"]
"""
    result = in_mount_namespace("mount -t tmpfs -o size=512k none /mnt", script)
    assert result.returncode == 0, result.stderr


# --- documents ----------------------------------------------------------------------------------------------------


def test_whoever_reads_a_document_sees_all_of_one_version(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    write_atomically(path, events.Notes(note="0" * 5000))
    done = threading.Event()
    seen: list[set[str]] = []

    def look() -> None:
        while not done.is_set():
            seen.append(set(msgspec.json.decode(path.read_bytes(), type=events.Notes).note))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for number in range(60):
            write_atomically(path, events.Notes(note=str(number % 10) * 5000))
    finally:
        done.set()
        looking.join()
    assert seen
    assert all(len(digits) == 1 for digits in seen)
    assert list(tmp_path.iterdir()) == [path]


# --- the lock -----------------------------------------------------------------------------------------------------


def test_a_session_has_one_recorder_and_its_end_takes_the_reserve_along(make_session: MakeSession) -> None:
    path = make_session()
    assert not is_locked(path)
    held = lock(path)
    assert is_locked(path)
    assert (path / writer.RESERVE).stat().st_size == writer.RESERVE_BYTES
    with pytest.raises(SessionError, match="being recorded by another process"):
        lock(path, patience=0.01)
    held.release()
    held.release()
    assert not is_locked(path)
    assert not (path / writer.RESERVE).exists()
    lock(path).release()


def test_readers_asking_for_the_status_never_keep_a_worker_from_its_lock(
    make_session: MakeSession, child: Child
) -> None:
    path = make_session()
    (path / "lock").touch()
    ask = """
        import sys
        from pathlib import Path
        from llava_tui.session.writer import is_locked
        print("ready", flush=True)
        while True:
            is_locked(Path(sys.argv[1]))
        """
    askers = [child(ask, path) for _ in range(2)]
    for _ in range(200):
        lock(path).release()
    assert all(asker.poll() is None for asker in askers)


def test_a_forked_child_does_not_keep_a_killed_workers_lock(make_session: MakeSession, child: Child) -> None:
    path = make_session()
    worker = child(
        """
        import os, sys, time
        from pathlib import Path
        from llava_tui.session.writer import lock
        held = lock(Path(sys.argv[1]))
        if (forked := os.fork()) == 0:
            sys.stdin.read()  # until the test lets go of the pipe
            os._exit(0)
        print("ready", flush=True)
        time.sleep(60)
        """,
        path,
    )
    assert is_locked(path)
    worker.kill()
    worker.wait()
    assert not is_locked(path)


def test_what_cannot_be_written_is_said_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"cannot write in .*nowhere: No such file or directory"):
        lock(tmp_path / "nowhere")
