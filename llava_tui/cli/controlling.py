"""A running session asked for something: control."""

from __future__ import annotations

import sys

import click

from llava_tui.cli.sessions import find
from llava_tui.cli.ssh import connect, ssh_option


@click.command()
@click.argument("session", metavar="SESSION|ssh://HOST/PATH")
@click.argument("verb", type=click.Choice(["pause", "resume", "stop", "stop-now", "skip", "repeat", "extend"]))
@click.option("--case", default="", help="For skip and repeat. [default: the case that is running]")
@click.option("--rounds", type=int, default=1, show_default=True, help="For extend: how many more.")
@ssh_option
@click.pass_context
def control(ctx: click.Context, session: str, verb: str, case: str, rounds: int, ssh: str) -> None:
    """Ask a running session's worker for something, and print its answer.

    A session of another machine is named as for `watch`.
    """
    from llava_tui.report.progress import ask
    from llava_tui.session.source import LocalSource

    source = connect(session, ssh) if session.startswith("ssh://") else LocalSource(find(ctx, session))
    try:
        sys.exit(ask(source, verb, case=case, rounds=rounds if verb == "extend" else 0))
    finally:
        source.close()
