"""What every verb that takes SESSION does first: find it, or say in one line that it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click


def folder(ctx: click.Context) -> Path:
    """The folder of sessions that the user means."""
    from llava_tui.session import finding

    return finding.sessions_folder(ctx.obj)


def find(ctx: click.Context, reference: str) -> Path:
    """The folder of the session that ``reference`` names.

    Raises :class:`llava_tui.session.reader.SessionError` where there is none, or more than one.
    """
    from llava_tui.session import finding

    return finding.find(folder(ctx), reference)


def refuse(message: str) -> NoReturn:
    """Ends the command with one line on stderr and exit code 2."""
    click.echo(f"llava-tui: {message}", err=True)
    sys.exit(2)
