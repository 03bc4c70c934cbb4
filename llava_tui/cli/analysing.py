"""What a session says, and what to do about it: analyze, advise."""

from __future__ import annotations

import sys

import click

from llava_tui.cli.sessions import find, folder


@click.command()
@click.argument("session")
@click.option("--case", help="Analyse one case only.")
@click.option("--beside", metavar="SESSION", help="Show that session's steps beside. [default: the newest of EventGPT]")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.option("--markdown", is_flag=True, help="For a report or an issue.")
@click.pass_context
def analyze(
    ctx: click.Context, session: str, case: str | None, beside: str | None, json_: bool, markdown: bool
) -> None:
    """What a session says: steps, extremes, frames, batch, trust, roofline, and advice with its evidence."""
    from llava_tui.report import analysis

    path = find(ctx, session)
    view, found = analysis.read(path, folder(ctx), case, find(ctx, beside) if beside else None)
    form = analysis.as_json if json_ else analysis.as_markdown if markdown else analysis.as_text
    click.echo(form(view, found))


@click.command()
@click.argument("session")
@click.option("--verify", is_flag=True, help="Run the change beside its baseline in a new session.")
@click.option("--only", metavar="ADVICE", help="The advice to verify, by its id. [default: the first that can be]")
@click.option("--case", help="Advise on this case. [default: the one that takes longest]")
@click.option("--rounds", type=click.IntRange(6, 1000), default=12, show_default=True, help="With --verify.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout and nothing else.")
@click.pass_context
def advise(
    ctx: click.Context, session: str, verify: bool, only: str | None, case: str | None, rounds: int, json_: bool
) -> None:
    """What would make a run faster, by how much at most, and, with --verify, whether it does.

    --verify runs the first advice that needs no more than a sweep axis (or the one named by --only) and its baseline as
    interleaved cases of one new session, and tells the predicted beside the measured gain. Where figures are too
    doubtful for advice, what --only names is tried even so, and the doubt is told.
    """
    from llava_tui.report import advice, analysis

    view, found = analysis.read(find(ctx, session), folder(ctx), case)
    if verify or only:
        from llava_tui import preflight

        tried = advice.chosen(found, only)
        plan = preflight.prepare(advice.trial(view, tried, rounds))
        sys.exit(advice.verify(folder(ctx), plan, view, found, tried, json_=json_))
    click.echo(advice.as_json(view, found) if json_ else advice.as_text(view, found))
