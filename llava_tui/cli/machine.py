"""What is on this machine: models, doctor."""

from __future__ import annotations

from pathlib import Path

import click

from llava_tui.cli.sessions import folder


@click.command(name="models")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
def models_(folders: tuple[Path, ...], json_: bool) -> None:
    """Local checkpoints (Hugging Face cache, and FOLDERS) and presets."""
    from llava_tui import models
    from llava_tui.report import listing

    for missing in (path for path in folders if not path.expanduser().is_dir()):
        raise models.ModelError(f"{missing}: no such folder")
    entries = models.scan(folders)
    click.echo(listing.models_as_json(entries) if json_ else listing.models_as_text(entries))


@click.command()
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.option(
    "--measure-peaks", is_flag=True, help="Measure what this machine reaches at best, for the roofline; some seconds."
)
@click.pass_context
def doctor(ctx: click.Context, json_: bool, measure_peaks: bool) -> None:
    """What was found on this machine, and how to mend what is missing."""
    from llava_tui import doctor as room

    findings = room.peaks() if measure_peaks else room.examine(folder(ctx))
    click.echo(room.as_json(findings) if json_ else room.as_text(findings))
