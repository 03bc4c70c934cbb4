"""A session elsewhere, drawn here: watch."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from llava_tui.cli.monitors import monitor, read_only_option, screen_options
from llava_tui.cli.sessions import folder
from llava_tui.cli.ssh import connect, ssh_option

if TYPE_CHECKING:
    from llava_tui.session.source import Source


@click.command()
@click.argument("where", metavar="ssh://HOST/PATH|-")
@ssh_option
@click.option("--headless", is_flag=True, help="Print progress lines instead of opening the monitor.")
@click.option("--json", "json_", is_flag=True, help="One JSON document when it has ended; implies --headless.")
@read_only_option
@screen_options
@click.pass_context
def watch(
    ctx: click.Context,
    where: str,
    ssh: str,
    headless: bool,
    json_: bool,
    read_only: bool,
    fps: float,
    ascii_: bool,
    low_bandwidth: bool,
) -> None:
    """The monitor on a session of another machine, or on one that comes through a pipe.

    ssh://[USER@]HOST[:PORT]/PATH is carried by plain ssh: nothing is needed there but a POSIX shell. PATH is a
    session's folder; ~ in front is the home folder there. @latest or a part of an id, behind a folder of sessions or
    alone, mean what they mean here. A dropped line is taken up again by itself.

    - reads session.json and streams from standard input, as from `cat session.json events.jsonl telemetry.jsonl`.
    """
    headless = headless or json_ or not sys.stdout.isatty()
    source = _open(where, ssh, headless, pause=1.5 if low_bandwidth else 0.4)
    try:
        if headless:
            from llava_tui.report.watching import watch as follow

            sys.exit(follow(source, json_=json_))
        how = {"source": source, "folder": folder(ctx), "read_only": read_only or not source.controllable}
        monitor(source.path, fps, ascii_, low_bandwidth, **how)
    finally:
        source.close()


def _open(where: str, ssh: str, headless: bool, pause: float) -> Source:
    from llava_tui.session.reader import SessionError

    if where == "-":
        from llava_tui.session.piped import PipedSource

        if sys.stdin.isatty():
            raise SessionError(
                "standard input is a terminal: pipe a session in, as in "
                "`cat session.json events.jsonl telemetry.jsonl | llava-tui watch -`"
            )
        return PipedSource.open(os.dup(0) if headless else _keys_from_the_terminal())
    if not where.startswith("ssh://"):
        raise SessionError(
            "watch takes ssh://HOST/PATH or -; `llava-tui attach SESSION` is for sessions of this machine"
        )
    return connect(where, ssh, pause)


def _keys_from_the_terminal() -> int:
    """Makes the terminal standard input, and returns another descriptor of what it was."""
    from llava_tui.session.reader import SessionError

    try:
        terminal = os.open(os.ttyname(2) if os.isatty(2) else "/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        raise SessionError(
            "the monitor needs a terminal for its keys, and there is none; --headless goes without"
        ) from None
    piped = os.dup(0)
    os.dup2(terminal, 0)
    os.close(terminal)
    return piped
