"""Watching over ssh. Where there is an sshd, over a real one on the loopback interface with a worker that is recording;
in any case the shell's end in every POSIX shell that is here."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_making import Child, MakeSession, append, make_header
from ssh_server import NONE, CannotServe, SshServer, find_sshd

from llava_tui import events
from llava_tui.plan import from_dict
from llava_tui.session import remote, store, writer
from llava_tui.session.frames import LARGEST, MAGIC, Frame, FrameParser, LineError
from llava_tui.session.launch import launch
from llava_tui.session.mirror import Mirror
from llava_tui.session.reader import NewerSchema, SessionError
from llava_tui.session.remote import RemoteSource
from llava_tui.session.ssh import Address
from llava_tui.session.timeline import Timeline

PATIENCE_S = 20.0
ODD = """it's; a "$(touch hacked)" `folder` & 100% more\\"""
FILES = ("session.json", "notes.json", "events.jsonl", "telemetry.jsonl")
Watch = Callable[..., RemoteSource]


def until(condition: Callable[[], Any], what: str) -> None:
    """Waits for something that other processes bring about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


def happened(*states: str, runs: int = 0) -> list[Any]:
    found: list[Any] = [events.StateChange(t=index + 1, state=state) for index, state in enumerate(states)]
    for run in range(1, runs + 1):
        found.append(events.RunStart(t=10 * run, run=run, kind="measured", case="f4"))
        found.append(events.RunEnd(t=10 * run + 9, run=run, outcome="ok", start=10 * run, wall=9))
    return found


def files(path: Path) -> dict[str, bytes]:
    """What a viewer reads of the session in a folder."""
    return {name: (path / name).read_bytes() for name in FILES if (path / name).exists()}


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if find_sshd() is None:
        pytest.skip(NONE)
    try:
        server = SshServer(tmp_path_factory.mktemp("sshd"))
    except CannotServe as error:
        pytest.skip(f"sshd cannot be run by this user: {error}")
    yield server
    server.end()


@pytest.fixture
def server(running_server: SshServer) -> Iterator[SshServer]:
    yield running_server
    if not running_server.running:
        running_server.start()


@pytest.fixture
def opened(mirrors: Path) -> Iterator[Callable[..., RemoteSource]]:
    """Opens sources with short waits; closes them."""
    sources: list[RemoteSource] = []

    def make(url: str, ssh: str, **how: Any) -> RemoteSource:
        quick: dict[str, Any] = {"pause": 0.05, "back_off": (0.05, 0.2), "mirrors": mirrors}
        source = RemoteSource.open(url, ssh=ssh, **(quick | how))
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


@pytest.fixture
def watch(server: SshServer, opened: Callable[..., RemoteSource]) -> Watch:
    """Watches a folder through the real sshd."""
    return lambda path, **how: opened(server.url(path), server.ssh, **how)


SHELLS = {
    os.path.realpath(found): shell
    for shell in ("dash", "bash", "busybox", "mksh", "yash", "sh")
    if (found := shutil.which(shell))
}


@pytest.fixture(params=SHELLS.values())
def here(request: pytest.FixtureRequest, tmp_path: Path, opened: Callable[..., RemoteSource]) -> Watch:
    """Watches a folder of this machine as if by ssh, the other end run by each shell: in place of ssh a program that
    does what sshd does with the command, with ``home`` as the home folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to(shutil.which(request.param) or "")
    (tmp_path / "home").mkdir()
    program = tmp_path / "instead-of-ssh"
    program.write_text(
        f'export PATH={tools}:"$PATH" HOME={tmp_path}/home; unset LLAVA_TUI_SESSIONS XDG_DATA_HOME; cd "$HOME"\n'
        'for command; do :; done\nexec sh -c "$command"\n'
    )
    return lambda path, **how: opened(f"ssh://elsewhere{path}", f"sh {shlex.quote(str(program))}", **how)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Callable[..., tuple[Path, subprocess.Popen[bytes]]]]:
    """Starts real workers on simulated plans; ends what is left."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: str = "sessions", **values: Any) -> tuple[Path, subprocess.Popen[bytes]]:
        fixed = {"pipeline": "simulated", "warmup": 1, "self_test": False, "cool_down": False, "frames": [1]}
        plan = from_dict(fixed | {"rounds": 500, "time_scale": 0.2, "new_tokens": [16]} | values)
        path = store.create(tmp_path / folder, "simulated")
        process = launch(path, plan.to_json(), ["llava-tui", "run"])
        started.append(process)
        return path, process

    yield start
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def ssh_processes(source: RemoteSource) -> list[int]:
    line = source._line
    return [line.pid] if line is not None else []


def processes_in(folder: Path) -> list[int]:
    """Those whose working folder is ``folder``, as the shell's at the other end is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink() == folder:
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ssh://gpu1/data/runs/20261122-x", Address("gpu1", "/data/runs/20261122-x")),
        ("ssh://me@GPU-1.lab:2222/a/", Address("GPU-1.lab", "/a", "me", 2222)),
        ("ssh://[fe80::1%25eth0]/a", Address("fe80::1%25eth0", "/a")),
        ("ssh://h/~/my%20runs/100%", Address("h", "/~/my runs/100%")),
        ("ssh://h/%C3%A4", Address("h", "/ä")),
        ("ssh://h", Address("h", "/@latest")),
        ("ssh://h/", Address("h", "/@latest")),
        (f"ssh://h/{ODD}", Address("h", f"/{ODD}")),
    ],
)
def test_an_address_is_read_as_it_is_written(url: str, address: Address) -> None:
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=touch%20hacked/a",
        "ssh://-l@h/a",
        "ssh://h;x/a",
        "ssh://$(x)/a",
        "ssh:///a",
        "ssh://@h/a",
        "ssh://h:0/a",
        "ssh://h:99999/a",
        "ssh://h:x/a",
        "ssh://a b/a",
        "ssh://h/a\nb",
        "ssh://h/a%0Ab",
        "ssh://h/a%00b",
        "ssh://h/\x1b]0;x\x07",
        "h:/a",
        "ssh://",
    ],
)
def test_what_ssh_or_a_shell_could_take_for_something_else_is_refused_in_a_line(url: str) -> None:
    with pytest.raises(SessionError) as error:
        Address.parse(url)
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()


# --- frames -----------------------------------------------------------------------------------------------------------

FRAMES = st.lists(
    st.builds(
        Frame,
        st.sampled_from(["part", "whole", "lock", "newer"]),
        st.sampled_from(["events.jsonl", "telemetry-gpu1.jsonl", "session.json", "-"]),
        st.integers(0, 10**17),
        st.binary(max_size=40) | st.sampled_from([b"\n.\n", b"part a 0 3\nabc\n.\n", MAGIC]),
    ),
    max_size=6,
)


def said(frames: list[Frame]) -> bytes:
    return b"".join(
        b"%s %s %d %d\n" % (f.kind.encode(), f.name.encode(), f.offset, len(f.data)) + f.data + b"\n.\n" for f in frames
    )


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.sampled_from([b"", b"motd\nllava-tui-wat", b"x" * 3000]), st.lists(st.integers(0, 400), max_size=30))
def test_frames_come_out_the_same_however_the_bytes_were_split(
    frames: list[Frame], noise: bytes, cuts: list[int]
) -> None:
    data = noise + MAGIC + said(frames)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parser = FrameParser()
    found = [frame for a, b in itertools.pairwise(places) for frame in parser.feed(data[a:b])]
    assert found == frames
    one_by_one = FrameParser()
    assert [frame for byte in data for frame in one_by_one.feed(bytes([byte]))] == frames


@pytest.mark.parametrize(
    "data",
    [
        b"part events.jsonl 0 5\nabcpart events.jsonl 5 3\nabc\n.\n",  # the file shrank while it was read
        b"part ../../x 0 1\na\n.\n",
        b"part events.jsonl -1 1\na\n.\n",
        b"part events.jsonl 0 %d\n" % (LARGEST + 1),
        b"part events.jsonl 0\n",
        b"\xff" * 1000,
    ],
)
def test_a_line_that_says_anything_else_is_given_up(data: bytes) -> None:
    with pytest.raises(LineError):
        FrameParser().feed(MAGIC + data)


def test_an_answer_that_never_begins_is_given_up_before_it_fills_the_memory() -> None:
    parser = FrameParser()

    def talk() -> None:
        for _ in range(1000):
            parser.feed(b"ls: command not found\n" * 10)

    with pytest.raises(LineError):
        talk()


@pytest.mark.parametrize(
    "hostile",
    [
        "part - 0 1\\na\\n.\\n",
        "part events/../../escaped.jsonl 0 1\\na\\n.\\n",
        "part ..jsonl 0 1\\na\\n.\\n",
        "part escaped.jsonl 0 1\\na\\n.\\n",
        "whole .bashrc 0 1\\na\\n.\\n",
        "part events.jsonl 7 1\\na\\n.\\n",
        "lock - 0 1\\n1\\n.\\n",
        "path - 0 9\\n/../../..\\n.\\nwhole session.json 0 2\\n{}\\n.\\npart evil 0 1\\na\\n.\\n",
    ],
)
def test_a_hostile_other_end_writes_nothing_but_a_session(hostile: str, tmp_path: Path, mirrors: Path) -> None:
    liar = tmp_path / "liar"
    liar.write_text(f"printf 'llava-tui-watch 1\\n{hostile}'\n")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SessionError) as error:
        RemoteSource.open("ssh://h/a", ssh=f"sh {liar}", mirrors=mirrors)
    assert "\n" not in str(error.value)
    assert set(tmp_path.rglob("*")) - before <= {mirrors, mirrors / ".lock"}


# --- the shell's end --------------------------------------------------------------------------------------------------


def test_what_is_written_there_arrives_here_byte_for_byte(
    here: Watch, make_session: MakeSession, tmp_path: Path
) -> None:
    made = make_session(happened=happened("starting", "measuring", runs=3))
    path = made.rename(tmp_path / ODD)
    worker = writer.lock(path)
    try:
        append(path / "telemetry-gpu1.jsonl", [events.HostSample(t=5, cpu=1.0)])
        source = here("/" + str(path).lstrip("/"))
        assert files(source.path) == files(path)
        assert source.status() == "running"
        assert source.line() == ""
        store.set_notes(path, events.Notes(name="ä first\nlook"))
        append(path / "events.jsonl", happened("paused", runs=2))
        append(path / "telemetry.jsonl", [events.HostSample(t=6, cpu=2.0)])  # a stream that appears later
        with open(path / "events.jsonl", "ab") as stream:
            stream.write(b'{"type":"state","t":7')  # a line that is being written
        until(lambda: files(source.path) == files(path), "what was written meanwhile")
        until(lambda: source.status() == "paused", "the new state")
        with open(path / "events.jsonl", "ab") as stream:
            stream.write(b',"state":"closed"}\n')
    finally:
        worker.release()
    until(lambda: source.status() == "finished", "the end")
    assert files(source.path) == files(path)
    assert (source.path / "telemetry-gpu1.jsonl").read_bytes() == (path / "telemetry-gpu1.jsonl").read_bytes()
    assert not list(tmp_path.rglob("hacked"))


def test_without_flock_there_the_kernels_own_list_of_locks_is_asked(
    tmp_path: Path, make_session: MakeSession, opened: Callable[..., RemoteSource]
) -> None:
    path = make_session(happened=happened("starting"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "ls", "tail", "head", "cat", "wc", "sleep", "dd"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    program = tmp_path / "bare"
    program.write_text(f'PATH={tools}; for command; do :; done\nexec sh -c "$command"\n')
    worker = writer.lock(path)
    try:
        source = opened(f"ssh://h{path}", f"sh {program}")
        assert source.status() == "running"
    finally:
        worker.release()
    until(lambda: source.status() == "interrupted", "that it ended without a word")


def test_where_no_lock_can_be_asked_a_session_is_running_while_it_is_written(
    tmp_path: Path,
    make_session: MakeSession,
    opened: Callable[..., RemoteSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = remote._script().replace(b"command -v flock", b"false").replace(b"/proc/locks", b"/nowhere")
    monkeypatch.setattr(remote, "_script", lambda: script)
    program = tmp_path / "elsewhere"
    program.write_text('for command; do :; done\nexec sh -c "$command"\n')
    path = make_session(happened=happened("starting"))
    (path / "lock").touch()
    source = opened(f"ssh://h{path}", f"sh {program}")
    assert source.status() == "running"
    os.utime(path / "events.jsonl", (1, 1))
    until(lambda: source.status() == "interrupted", "that nothing has been written for long")
    append(path / "events.jsonl", [events.StateChange(t=9, state="closed")])
    until(lambda: source.status() == "finished", "its last word")


def test_a_command_is_one_line_at_the_end_even_behind_a_torn_one(here: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("measuring"))
    worker = writer.lock(path)
    try:
        (path / "control.jsonl").write_bytes(b'{"id":"torn')
        source = here(path)
        sent = [source.send("skip", case="it's \\n \"; touch hacked"), source.send("extend", rounds=2)]
        until(lambda: (path / "control.jsonl").read_bytes().count(b"\n") == 3, "both commands")
        torn, *lines = (path / "control.jsonl").read_text().splitlines()
        assert torn == '{"id":"torn'
        assert [json.loads(line)["id"] for line in lines] == [command.id for command in sent]
        assert json.loads(lines[0])["case"] == "it's \\n \"; touch hacked"
        assert "@" in json.loads(lines[0])["author"]
        assert sorted(one.name for one in path.iterdir()) == sorted(
            [".reserve", "control.jsonl", "events.jsonl", "lock", "session.json"]
        )
    finally:
        worker.release()


def test_a_session_is_found_by_part_of_its_id_by_latest_and_below_the_home_folder(
    here: Watch, make_session: MakeSession, tmp_path: Path
) -> None:
    data = tmp_path / "home" / ".local" / "share" / "llava-tui"
    data.mkdir(parents=True)
    older, newer = (make_session().rename(tmp_path / "sessions" / f"2026010{day}-101010-a") for day in (1, 2))
    shutil.copytree(tmp_path / "sessions", data / "sessions")
    assert here(f"{tmp_path}/sessions/@latest").path.name == newer.name
    assert here(f"{tmp_path}/sessions/0101-10").path.name == older.name
    assert here("/~/.local/share/llava-tui/sessions/" + older.name).path.name == older.name
    assert here(f"{older}/session.json").path.name == older.name
    assert here("").path.name == newer.name
    assert here("/0101-").path.name == older.name


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("{folder}", "is not a session: it has no session.json"),
        ("{folder}/2026", "could be several sessions at elsewhere: 20260101-101010-a, 20260102-101010-a"),
        ("{folder}/eventgpt", "no such session in"),
        ("{folder}/nowhere/at/all", "no session at"),
        ("/eventgpt", "no session at elsewhere:/eventgpt: no such folder"),
    ],
)
def test_what_is_no_session_is_said_in_a_line(
    where: str, why: str, here: Watch, make_session: MakeSession, tmp_path: Path
) -> None:
    for day in (1, 2):
        make_session().rename(tmp_path / "sessions" / f"2026010{day}-101010-a")
    with pytest.raises(SessionError) as error:
        here(where.format(folder=tmp_path / "sessions"))
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_header_that_is_damaged_or_newer_is_told_by_its_own_place(here: Watch, make_session: MakeSession) -> None:
    path = make_session()
    (path / "session.json").write_text('{"schema": [1')
    with pytest.raises(SessionError, match=f"^elsewhere:{path}/session.json is damaged"):
        here(path)
    (path / "session.json").write_text('{"schema": [9, 0]}')
    with pytest.raises(NewerSchema, match=f"^elsewhere:{path} was written by a newer llava-tui"):
        here(path)


def test_another_session_in_its_place_is_shown_anew(here: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("starting", "measuring", runs=5))
    worker = writer.lock(path)  # what is running is looked at more often
    source = here(path)
    old = source.path
    shutil.rmtree(path)
    worker.release()
    until(lambda: "is gone" in source.line(), "word that it is gone")
    assert files(old), "what was seen of it stays while nothing else is there"
    path.mkdir()
    append(path / "events.jsonl", happened("starting", runs=1))
    writer.write_atomically(path / "session.json", make_header("another"))
    until(lambda: source.path != old, "the other session")
    assert files(source.path) == files(path)
    assert Timeline.open(source.path).header.id == "another"
    assert source.remarks() == ["elsewhere: another session has begun there"]
    assert source.remarks() == []


def test_a_stream_that_became_shorter_is_read_anew(here: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("starting", "measuring", runs=5))
    worker = writer.lock(path)
    try:
        source = here(path)
        old = source.path
        os.truncate(path / "events.jsonl", 100)
        until(lambda: source.path != old, "the copy begun anew")
        assert files(source.path) == files(path)
    finally:
        worker.release()


def test_every_ranks_stream_comes_over_as_it_grows(here: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("starting", runs=1))
    append(path / "events-1.jsonl", happened("starting", runs=1))
    source = here(path)
    timeline = Timeline.open(source.path)
    assert timeline.ranks == [0, 1]
    append(path / "events-11.jsonl", happened("starting", runs=2))
    until(lambda: timeline.poll() and timeline.ranks == [0, 1, 11], "the third rank")
    until(lambda: timeline.poll() or timeline.of(11).runs.n == 2, "its runs")
    assert files(source.path) == files(path)


def test_things_that_are_no_streams_do_no_harm(here: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("starting"))
    (path / "events-folder.jsonl").mkdir()
    (path / "events of a cat.jsonl").write_text("{}\n")
    (path / "events-gone.jsonl").symlink_to("nowhere")
    (path / "telemetry\n0 -rw 1 0 0 9 x x x events-forged.jsonl").write_text("{}\n")
    os.mkfifo(path / "events-pipe.jsonl")
    source = here(path)
    assert files(source.path) == files(path)
    assert sorted(one.name for one in source.path.iterdir()) == ["events.jsonl", "session.json"]


def test_a_login_shell_that_talks_does_not_matter(
    tmp_path: Path, make_session: MakeSession, opened: Callable[..., RemoteSource]
) -> None:
    path = make_session(happened=happened("starting"))
    program = tmp_path / "talkative"
    program.write_text('echo Welcome to gpu1; for command; do :; done\nexec sh -c "$command"\n')
    assert files(opened(f"ssh://gpu1{path}", f"sh {program}").path) == files(path)


def test_an_end_without_a_shell_is_told_by_its_own_words(tmp_path: Path, mirrors: Path) -> None:
    program = tmp_path / "no-shell"
    program.write_text("echo \"'exec' is not recognized\x1b[31m as a command\" >&2; exit 1\n")
    with pytest.raises(SessionError, match="'exec' is not recognized as a command"):
        RemoteSource.open("ssh://windows/a", ssh=f"sh {program}", mirrors=mirrors)
    with pytest.raises(SessionError, match="install the OpenSSH client"):
        RemoteSource.open("ssh://h/a", ssh=str(tmp_path / "not-there"), mirrors=mirrors)


def test_the_copy_of_a_killed_viewer_is_swept_by_the_next_one(mirrors: Path, child: Child) -> None:
    viewer = child(
        """
        import sys
        from pathlib import Path
        from llava_tui.session.mirror import Mirror
        mirror = Mirror(Path(sys.argv[1]))
        mirror.copy("x").append("events.jsonl", 0, b"{}\\n")
        print("ready", flush=True)
        sys.stdin.read()
        """,
        mirrors,
    )
    left = next(mirrors.glob("*-*"))
    Mirror(mirrors).close()
    assert left.exists(), "it belongs to a viewer that lives"
    viewer.kill()
    viewer.wait()
    Mirror(mirrors).close()
    assert not left.exists()


# --- a real sshd ------------------------------------------------------------------------------------------------------


def test_a_run_is_watched_as_it_is_recorded_over_a_line_that_drops(
    watch: Watch, recording: Callable[..., tuple[Path, subprocess.Popen[bytes]]]
) -> None:
    path, worker = recording(ODD)
    source = watch(path)
    timeline = Timeline.open(source.path)
    for _ in range(3):
        seen = timeline.runs.n
        for pid in ssh_processes(source):
            os.kill(pid, signal.SIGKILL)
        until(lambda: source.line(), "word of the line")
        until(lambda: timeline.poll() and timeline.runs.n > seen and not source.line(), "runs after the line dropped")  # noqa: B023
        assert source.status() == "running"
    source.send("stop-now")
    worker.wait(60)
    until(lambda: source.status() == "stopped", "the end")
    assert files(source.path) == files(path)
    assert source.received < 1.5 * sum(map(len, files(path).values())), "it went on where it was, not from the start"


def test_the_worker_answers_what_is_asked_over_the_line(
    watch: Watch, recording: Callable[..., tuple[Path, subprocess.Popen[bytes]]]
) -> None:
    path, _ = recording()
    source = watch(path)
    timeline = Timeline.open(source.path)
    for verb, status in (("pause", "paused"), ("resume", "running"), ("stop-now", "stopped")):
        command = source.send(verb)
        until(lambda: timeline.poll() and command.id in list(timeline.answers["id"]), f"the answer to {verb}")  # noqa: B023
        until(lambda: source.status() == status, status)  # noqa: B023
    answered = timeline.answers.rows()
    assert [row["accepted"] for row in answered] == [True, True, True]
    assert {row["author"] for row in answered} == {command.author}


def test_a_killed_worker_is_seen_as_one(
    watch: Watch, recording: Callable[..., tuple[Path, subprocess.Popen[bytes]]]
) -> None:
    path, worker = recording()
    source = watch(path)
    assert source.status() == "running"
    worker.kill()
    worker.wait()
    until(lambda: source.status() == "interrupted", "its end")


def test_while_nothing_can_be_heard_that_is_said_and_nothing_is_lost(
    watch: Watch, server: SshServer, make_session: MakeSession
) -> None:
    path = make_session(happened=happened("starting", "measuring", runs=3))
    worker = writer.lock(path)
    try:
        source = watch(path)
        server.stop()
        for pid in ssh_processes(source):
            os.kill(pid, signal.SIGKILL)
        until(lambda: "Connection refused" in source.line(), "why there is no connection")
        assert source.line().startswith("127.0.0.1: ")
        assert source.status() == "running", "as it was when it was last heard of"
        with pytest.raises(SessionError, match=r"cannot send pause to 127\.0\.0\.1: there is no connection"):
            source.send("pause")
        append(path / "events.jsonl", happened("paused", runs=3))
        assert server.start()
        until(lambda: source.status() == "paused", "what happened meanwhile")
        assert files(source.path) == files(path)
        assert source.line() == ""
        source.send("resume")
    finally:
        worker.release()


def test_a_line_that_says_nothing_any_more_is_taken_for_dead(watch: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("starting"))
    worker = writer.lock(path)
    stalled: list[int] = []
    try:
        source = watch(path, silence=1.0)
        stalled = ssh_processes(source)
        for pid in stalled:
            os.kill(pid, signal.SIGSTOP)
        append(path / "events.jsonl", happened("measuring", runs=2))
        until(lambda: files(source.path) == files(path), "what was written while it stood still")
        assert ssh_processes(source) != stalled
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stalled), "the end of the dead ssh")
    finally:
        worker.release()


def test_closing_leaves_nothing_running_at_either_end(watch: Watch, make_session: MakeSession) -> None:
    path = make_session(happened=happened("starting"))
    source = watch(path)
    begun = ssh_processes(source)
    assert len(begun) == 1
    assert processes_in(path)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 2
    assert not Path(f"/proc/{begun[0]}").exists()
    until(lambda: not processes_in(path), "the end of the shell there")


def test_nobody_is_asked_for_a_password_in_the_middle_of_a_screen(
    server: SshServer, make_session: MakeSession, mirrors: Path, tmp_path: Path
) -> None:
    path = make_session()
    wrong = tmp_path / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", wrong], check=True)
    config = (server.folder / "ssh_config").read_text().replace(str(server.folder / "user"), str(wrong))
    (tmp_path / "config").write_text(config)
    with pytest.raises(SessionError) as error:
        RemoteSource.open(server.url(path), ssh=f"ssh -F {tmp_path}/config", mirrors=mirrors)
    assert "Permission denied" in str(error.value)
    assert "set up a key or an agent" in str(error.value)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_session_from_elsewhere_as_it_goes(
    cli: Callable[..., subprocess.CompletedProcess[str]],
    server: SshServer,
    recording: Callable[..., tuple[Path, subprocess.Popen[bytes]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, _ = recording(rounds=8)
    shown = cli("watch", "--headless", "--ssh", server.ssh, server.url(path))
    assert shown.returncode == 0, shown.stderr
    assert f"session 127.0.0.1:{path.name}" in shown.stdout
    assert shown.stdout.count("  measured  ") == 8
    assert "3 generate" in shown.stdout
    told = cli("watch", "--json", "--ssh", server.ssh, server.url(path))
    assert json.loads(told.stdout)["status"] == "finished"
    assert [one.name for one in (tmp_path / "cache" / "llava-tui" / "watch").iterdir()] == [".lock"]


def test_control_asks_a_worker_elsewhere_and_prints_its_answer(
    cli: Callable[..., subprocess.CompletedProcess[str]],
    recording: Callable[..., tuple[Path, subprocess.Popen[bytes]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, worker = recording()
    program = tmp_path / "instead-of-ssh"
    program.write_text('for command; do :; done\nexec sh -c "$command"\n')
    there = ("control", "--ssh", f"sh {program}", f"ssh://elsewhere{path}", "stop-now")
    asked = cli(*there)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("stop-now: accepted")
    worker.wait(60)
    again = cli(*there)
    assert again.returncode == 2
    assert again.stderr == f"llava-tui: elsewhere:{path.name} is stopped: there is no worker to stop-now\n"
    assert [one.name for one in (tmp_path / "cache" / "llava-tui" / "watch").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("ssh://127.0.0.1:1/a",), "Connection refused"),
        (("ssh://-x/a",), "names no host that ssh could reach"),
        (("20261122",), "llava-tui attach SESSION"),
        (("--ssh", "'", "ssh://h/a"), "cannot read the ssh command"),
    ],
)
def test_what_cannot_be_watched_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    why: str,
    cli: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("there is no ssh here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = cli("watch", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("llava-tui: ")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
