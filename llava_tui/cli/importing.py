"""Results of other programs as sessions: import."""

from __future__ import annotations

from pathlib import Path

import click

from llava_tui.cli.sessions import folder


@click.command(name="import")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--name", default="", help="A name for the session.")
@click.pass_context
def import_(ctx: click.Context, files: tuple[Path, ...], name: str) -> None:
    """Results of earlier benchmarks (JSON as AveragingProfiler writes it) as sessions; prints their ids."""
    from llava_tui.session.importing import import_file

    for file in files:
        click.echo(import_file(folder(ctx), file, name).name)
