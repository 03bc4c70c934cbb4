"""Commands from any number of viewers, all whole, each once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from session_making import Child

from llava_tui.session import control
from llava_tui.session.control import CommandReader, send
from llava_tui.session.reader import SessionError


def test_the_worker_gets_what_a_viewer_sent_and_who_it_was(tmp_path: Path) -> None:
    commands = CommandReader(tmp_path)
    assert commands.read() == []
    sent = [send(tmp_path, "pause"), send(tmp_path, "extend", rounds=3, author="someone@elsewhere")]
    assert commands.read() == sent
    assert commands.read() == []
    sent = [send(tmp_path, "skip", case="f4-b1-n64")]
    assert commands.read() == sent
    assert sent[0].author.endswith("@" + socket.gethostname())
    commands.close()
    commands.close()


def test_what_is_no_command_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"'explode' is no command; one of pause, resume, stop, "):
        send(tmp_path, "\x1b[31mexplode")
    assert not (tmp_path / control.CONTROL).exists()
    with pytest.raises(SessionError, match=r"cannot send pause to .*/nowhere: No such file"):
        send(tmp_path / "nowhere", "pause")


def test_damage_in_the_file_costs_the_damaged_line_alone(tmp_path: Path) -> None:
    commands = CommandReader(tmp_path)
    with (tmp_path / control.CONTROL).open("ab") as file:
        file.write(b'[]\n{"id":"a","verb":"stop"')  # a viewer that died within its write
    sent = send(tmp_path, "stop")
    with (tmp_path / control.CONTROL).open("ab") as file:
        file.write(b'{"id":"b","verb":"fly","author":"x","wall":1,"novelty":2}\n')
    found = commands.read()
    assert found[0] == sent
    assert found[1].verb == "fly"  # the worker refuses it, aloud
    assert commands.corrupt == 2


def test_many_viewers_at_once_lose_nothing(tmp_path: Path, child: Child) -> None:
    script = """
        import sys
        from pathlib import Path
        from llava_tui.session.control import send
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(100):
            send(Path(sys.argv[1]), "extend", rounds=number, author=sys.argv[2])
        """
    viewers = [child(script, tmp_path, name) for name in "abc"]
    commands = CommandReader(tmp_path)
    for viewer in viewers:
        assert viewer.stdin is not None
        viewer.stdin.write("go\n")
        viewer.stdin.flush()
    found = []
    while any(viewer.poll() is None for viewer in viewers):
        found += commands.read()
    found += commands.read()
    commands.close()
    assert commands.corrupt == 0
    assert len({command.id for command in found}) == 300
    for name in "abc":
        assert [command.rounds for command in found if command.author == name] == list(range(100))


def test_a_viewer_without_a_name_in_the_user_database_still_has_an_author(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert send(tmp_path, "pause").author == f"54321@{socket.gethostname()}"
