"""A running session asked for something: control."""

from __future__ import annotations

import sys

import click

from llava_tui.cli.sessions import find


@click.command()
@click.argument("session")
@click.argument("verb", type=click.Choice(["pause", "resume", "stop", "stop-now", "skip", "repeat", "extend"]))
@click.option("--case", default="", help="For skip and repeat. [default: the case that is running]")
@click.option("--rounds", type=int, default=1, show_default=True, help="For extend: how many more.")
@click.pass_context
def control(ctx: click.Context, session: str, verb: str, case: str, rounds: int) -> None:
    """Ask a running session's worker for something, and print its answer."""
    from llava_tui.report.progress import ask

    sys.exit(ask(find(ctx, session), verb, case=case, rounds=rounds if verb == "extend" else 0))
