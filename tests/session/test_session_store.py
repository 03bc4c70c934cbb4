"""A folder of sessions: found by any name, told how they are doing, listed whatever state they are in."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from session_making import Child, MakeSession, MountNamespace, append

from llava_tui import events
from llava_tui.session import store
from llava_tui.session.reader import SessionError, read_notes
from llava_tui.session.writer import StreamWriter, lock, set_aside

HOLD = """
    import sys
    from pathlib import Path
    from llava_tui.session.writer import lock
    held = lock(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.read()
    """


def state(name: str, t: int = 1, reason: str = "") -> events.StateChange:
    return events.StateChange(t=t, state=name, reason=reason)


def end(run: int, t: int) -> events.RunEnd:
    return events.RunEnd(t=t, run=run, outcome="ok", start=t - 1, wall=1)


def schedule(runs: int, t: int = 1) -> events.Schedule:
    return events.Schedule(t=t, cases=[], rounds=1, runs=runs)


# --- where --------------------------------------------------------------------------------------------------------


def test_the_folder_of_sessions_is_the_nearest_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("LLAVA_TUI_SESSIONS", raising=False)
    assert store.sessions_folder() == tmp_path / "home/.local/share/llava-tui/sessions"
    (tmp_path / "sessions").mkdir()
    assert store.sessions_folder() == tmp_path / "sessions"
    monkeypatch.setenv("LLAVA_TUI_SESSIONS", "elsewhere")
    assert store.sessions_folder() == tmp_path / "elsewhere"
    assert store.sessions_folder("~/mine") == tmp_path / "home/mine"


def test_a_new_session_is_private_named_by_its_time_and_never_anothers(tmp_path: Path) -> None:
    folder = tmp_path / "not/yet/there"
    now = datetime.datetime(2026, 11, 22, 9, 15, 30)
    paths = [store.create(folder, "llava hf/llava:1.5 7b!", now) for _ in range(3)]
    assert [path.name for path in paths] == [f"20261122-091530-llava-hf-llava-1.5-7b{n}" for n in ("", "-2", "-3")]
    assert paths[0].stat().st_mode & 0o777 == 0o700
    assert store.create(folder, "../../..", now).parent == folder


def test_a_folder_that_cannot_hold_a_session_is_refused_with_nothing_left(in_mount_namespace: MountNamespace) -> None:
    script = """
import os
from pathlib import Path
from llava_tui.session import store
from llava_tui.session.reader import SessionError
try:
    store.create(Path("/mnt/sessions"), "x")
except SessionError as error:
    print(error)
print(os.path.isdir("/mnt/sessions") and os.listdir("/mnt/sessions"))
"""
    full = in_mount_namespace("mount -t tmpfs -o size=32k none /mnt", script)
    assert full.stdout == (
        "the disk of /mnt/sessions is full: free some space, or give another folder (--sessions DIR)\n[]\n"
    ), full.stderr
    read_only = in_mount_namespace("mount -t tmpfs -o ro none /mnt", script)
    assert read_only.stdout == (
        "cannot create a session in /mnt/sessions: Read-only file system; give another folder (--sessions DIR)\nFalse\n"
    ), read_only.stderr


# --- which --------------------------------------------------------------------------------------------------------


def test_a_session_is_found_by_id_by_a_unique_part_by_path_and_as_the_latest(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = make_session("alpha", wall0=1), make_session("beta", wall0=2)
    folder = older.parent
    (folder / "zzz-not-a-session").mkdir()
    for ref in (older.name, "alpha", str(older), f"{older}/", f"{older}/session.json"):
        assert store.find(folder, ref) == older
    monkeypatch.chdir(folder.parent)
    assert store.find(Path("/nowhere"), f"sessions/{older.name}") == older
    assert store.find(folder, "@latest") == newer


def test_an_id_that_is_also_a_part_of_another_means_itself(make_session: MakeSession) -> None:
    first = make_session("same")
    longer = first.rename(first.with_name("abc")), make_session("same").rename(first.with_name("abcd"))
    assert store.find(first.parent, "abc") == longer[0]


@pytest.mark.parametrize(
    "ref",
    ["nothing-like-it", "", "@first", "./here", "/no/such/place", "x" * 5000, "/" + "x" * 5000, "a\0b", "\x1b[31mred"],
)
def test_what_means_no_session_is_said(make_session: MakeSession, ref: str) -> None:
    folder = make_session().parent
    with pytest.raises(SessionError) as caught:
        store.find(folder, ref)
    assert len(str(caught.value).splitlines()) == 1
    assert "\x1b" not in str(caught.value)
    assert ref.removeprefix("\x1b[31m")[:70].split("\0")[0] in str(caught.value)


def test_what_means_several_sessions_lists_them(make_session: MakeSession) -> None:
    paths = [make_session(f"llava-{n}") for n in range(8)]
    with pytest.raises(SessionError, match="could be 8 sessions: ") as caught:
        store.find(paths[0].parent, "llava")
    assert paths[0].name in str(caught.value)
    assert "Give more of the id." in str(caught.value)


def test_an_empty_folder_has_no_latest_and_a_folder_is_not_a_session(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"no sessions in .* yet"):
        store.find(tmp_path / "nothing", "@latest")
    with pytest.raises(SessionError, match=r"is not a session: it has no session\.json"):
        store.find(tmp_path, str(tmp_path))


# --- how it is doing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "alive", "then"),
    [
        ("measuring", "running", "interrupted"),
        ("paused", "paused", "interrupted"),
        ("closing", "running", "interrupted"),
        ("closed", "running", "finished"),
        ("stopped", "running", "stopped"),
        ("failed", "running", "failed"),
    ],
)
def test_the_status_is_what_the_lock_and_the_last_state_say(
    make_session: MakeSession, child: Child, last: str, alive: str, then: str
) -> None:
    path = make_session(happened=[state("loading"), state(last, 2), events.Log(t=3, level="info", text='"state"')])
    assert store.status(path) == then
    worker = child(HOLD, path)
    assert store.status(path) == alive
    worker.kill()  # SIGKILL: no chance to tidy up
    worker.wait()
    assert store.status(path) == then


def test_a_session_that_nothing_was_written_of_was_interrupted(make_session: MakeSession) -> None:
    path = make_session()
    assert store.status(path) == "interrupted"
    (path / "events.jsonl").unlink()
    assert store.status(path) == "interrupted"


def test_asking_writes_nothing(make_session: MakeSession) -> None:
    path = make_session(happened=[state("closed")])
    before = {entry.name: entry.stat().st_mtime_ns for entry in [path, *path.iterdir()]}
    store.status(path)
    store.info(path)
    store.list_sessions(path.parent)
    store.find(path.parent, "@latest")
    assert {entry.name: entry.stat().st_mtime_ns for entry in [path, *path.iterdir()]} == before


def test_info_says_how_far_a_session_came(make_session: MakeSession) -> None:
    path = make_session(
        happened=[
            *[schedule(6), end(0, 10), end(1, 20), schedule(4, 25), end(2, 30)],
            state("failed", 40, "out of \x1b[31mmemory"),
        ],
        t0=5,
    )
    append(path / "telemetry.jsonl", [events.HostSample(t=50)])
    found = store.info(path)
    assert (found.status, found.reason) == ("failed", "out of memory")
    assert (found.runs_done, found.runs_planned) == (2, 4)
    assert found.duration_ns == 45
    assert found.problem == ""


def test_what_was_said_long_ago_is_still_found(make_session: MakeSession) -> None:
    hint = events.TextHint(t=100, run=3, tokens=1, text="x" * 1000)
    path = make_session(happened=[schedule(7), end(2, 50), *[hint] * 500])
    found = store.info(path)
    assert (found.runs_done, found.runs_planned, found.duration_ns) == (2, 7, 100)


def test_a_torn_tail_and_damage_do_not_hide_how_a_session_ended(make_session: MakeSession) -> None:
    path = make_session(happened=[schedule(3), end(3, 20), state("closed", 30)])
    with (path / "events.jsonl").open("ab") as file:
        file.write(b'\x00\xff"state"\n{"type":"state","t":[]}\n{"type":"state","t":31,"state":"fai')
    found = store.info(path)
    assert (found.status, found.runs_done, found.duration_ns) == ("finished", 3, 30)


# --- the list -----------------------------------------------------------------------------------------------------


def test_the_list_has_live_sessions_first_then_the_newest_and_never_breaks(
    make_session: MakeSession, child: Child
) -> None:
    live = make_session("live", wall0=1, happened=[state("measuring")])
    old, new = (make_session(name, wall0=wall0, happened=[state("closed")]) for name, wall0 in (("old", 2), ("new", 3)))
    torn, newer, unborn = make_session("torn"), make_session("newer", schema=(2, 0)), make_session("unborn")
    (torn / "session.json").write_bytes(b"{")
    (unborn / "session.json").unlink()
    folder = live.parent
    (folder / "README.md").write_text("not a session")
    (folder / "somebody-elses").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    child(HOLD, live)
    found = store.list_sessions(folder)
    assert [one.path for one in found[:3]] == [live, new, old]
    assert [one.status for one in found[:3]] == ["running", "finished", "finished"]
    problems = {one.path: one.problem for one in found[3:]}
    assert problems.keys() == {torn, newer, unborn}
    assert "damaged" in problems[torn]
    assert "newer llava-tui" in problems[newer]
    assert "has no session.json" in problems[unborn]
    assert all(one.header is None for one in found[3:])


def test_another_users_session_is_listed_with_the_reason_why_not_more(child: Child) -> None:
    script = """
        import os, sys, tempfile
        from pathlib import Path
        from llava_tui.session import store
        from llava_tui.session.reader import SessionError, read_header
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            path = store.create(folder, "private")
            (path / "session.json").write_text("{}")
            path.chmod(0)
            (folder / "else").mkdir(mode=0)
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 0)  # who is nobody: root may read everything
            try:
                [found] = store.list_sessions(folder)
                assert found.problem.endswith("session.json: Permission denied"), found
                assert found.status == "interrupted"
                for ref in (path.name, str(path), "private"):
                    try:
                        read_header(store.find(folder, ref))
                    except SessionError:
                        pass
                    else:
                        raise AssertionError(ref)
            finally:
                if os.getresuid()[2] == 0:
                    os.setresuid(0, 0, 0)
                for entry in folder.iterdir():
                    entry.chmod(0o700)
        print("ready", flush=True)
        """
    child(script)


def test_no_folder_is_no_sessions(tmp_path: Path) -> None:
    assert store.list_sessions(tmp_path / "nothing") == []


# --- notes and the end --------------------------------------------------------------------------------------------


def test_notes_are_kept(make_session: MakeSession) -> None:
    path = make_session()
    notes = events.Notes(name="before the fix", tags=("a", "b"), note="two\nlines", baseline=True)
    store.set_notes(path, notes)
    assert read_notes(path) == notes
    assert store.info(path).notes == notes
    with pytest.raises(SessionError, match="cannot note anything"):
        store.set_notes(path / "gone", notes)


def test_a_running_session_is_not_deleted_and_an_ended_one_is(make_session: MakeSession, child: Child) -> None:
    path = make_session(happened=[state("measuring")])
    worker = child(HOLD, path)
    with pytest.raises(SessionError, match="is running: stop it first"):
        store.delete(path)
    assert store.info(path).problem == ""
    worker.kill()
    worker.wait()
    store.delete(path)
    assert not path.exists()


def test_only_sessions_are_deleted(make_session: MakeSession, tmp_path: Path) -> None:
    path = make_session()
    (path.parent / "link").symlink_to(path)
    (tmp_path / "precious").mkdir()
    for other in (path.parent, path.parent / "link", tmp_path / "precious", tmp_path / "nothing"):
        with pytest.raises(SessionError, match="is not a session: not deleted"):
            store.delete(other)
    assert path.exists()
    unborn = path.parent / "unborn"
    unborn.mkdir()
    set_aside(unborn)
    store.delete(unborn)
    assert not unborn.exists()


def test_the_worker_of_a_deleted_session_ends_without_harm(make_session: MakeSession) -> None:
    path = make_session()
    to, held = StreamWriter(path / "events.jsonl"), lock(path)
    for entry in path.iterdir():
        entry.unlink()
    os.rmdir(path)  # noqa: PTH106
    to.write(state("measuring"))
    held.release()
