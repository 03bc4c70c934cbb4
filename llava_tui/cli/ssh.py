"""Sessions of other machines, as commands name them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llava_tui.session.source import Source

ssh_option = click.option(
    "--ssh",
    metavar="COMMAND",
    default="ssh",
    show_default=True,
    envvar="LLAVA_TUI_SSH",
    help="How to connect: 'ssh -C' compresses, 'ssh -J BASTION' goes through another host.",
)


def connect(url: str, ssh: str, pause: float = 0.4) -> Source:
    """The session at an address like ``ssh://HOST/PATH``, when what there is of it has come; meanwhile a terminal is
    told how much has. ``pause``: seconds between two looks. Raises
    :class:`~llava_tui.session.reader.SessionError`."""
    from llava_tui.session.remote import RemoteSource

    terminal = sys.stderr.isatty()
    told = False

    def progress(text: str) -> None:
        nonlocal told
        if terminal:
            told = True
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    try:
        return RemoteSource.open(url, ssh=ssh, may_ask=terminal and sys.stdin.isatty(), progress=progress, pause=pause)
    finally:
        if told:
            click.echo("\r\x1b[K", err=True, nl=False)
