"""Sessions against each other: compare, and what it needs of earlier ones: pin, calibrate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from llava_tui.cli.plans import plan_options, read_plan
from llava_tui.cli.sessions import find, folder, refuse


def _share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """An option's share, like ``1%`` or ``0.01``."""
    try:
        share = float(value) if not value.strip().endswith("%") else float(value.strip()[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise click.BadParameter(f"{value!r} is no share between 0 and 1; write it like 1% or 0.01")
    return share


@click.command()
@click.argument("references", nargs=-1, metavar="BASELINE OTHER…")
@click.option("--baseline", metavar="SESSION", help="The baseline; @pinned is what `llava-tui pin` marked.")
@click.option("--threshold", callback=_share, default="1%", show_default=True, help="Effect that is worth a claim.")
@click.option("--fail-on", type=click.Choice(["slower"]), help="Exit with 1 if the run, a step or a metric is slower.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.option("--markdown", is_flag=True, help="For a pull request.")
@click.pass_context
def compare(
    ctx: click.Context,
    references: tuple[str, ...],
    baseline: str | None,
    threshold: float,
    fail_on: str | None,
    json_: bool,
    markdown: bool,
) -> None:
    """Which of two is faster, step by step, and whether that can be claimed at all.

    Each side is a SESSION, one case of it (SESSION:f4-b1-n64), or sessions that belong together (A1,A2,A3). One session
    alone: its cases against its first. Cases of one session are compared round by round; three or more sessions a side
    session by session; a single session a side claims large effects only.
    """
    from llava_tui.analysis import comparison
    from llava_tui.report import comparison as report
    from llava_tui.report.sides import read_sides, stored_spread
    from llava_tui.session.reader import SessionError

    named = [*([baseline] if baseline else []), *references]
    if not named or (baseline and not references):
        raise SessionError("name what to compare: llava-tui compare BASELINE OTHER…")
    sides = read_sides(folder(ctx), named)
    try:
        found = comparison.compare(sides, delta=threshold, spread=stored_spread(sides))
    except ValueError as error:
        raise SessionError(str(error)) from None
    click.echo(report.as_json(found) if json_ else report.as_markdown(found) if markdown else report.as_text(found))
    if fail_on and any(one.slower for one in found):
        sys.exit(1)
    if fail_on and any(one.reasons for one in found):
        refuse("not comparable, so nothing is known to be slower or not")


@click.command()
@click.argument("sessions", nargs=-1, required=True, metavar="SESSION…")
@click.pass_context
def pin(ctx: click.Context, sessions: tuple[str, ...]) -> None:
    """Make these sessions, and no others, the baseline that @pinned means."""
    from llava_tui.report import sides

    paths = [find(ctx, session) for session in sessions]
    sides.pin(folder(ctx), paths)
    click.echo("baseline: " + ", ".join(path.name for path in paths))


@click.command()
@click.argument("plan_file", required=False, metavar="[PLAN.toml]", type=click.Path(path_type=Path))
@click.option("--from", "from_", metavar="SESSION", help="Calibrate with that session's plan.")
@click.option(
    "--repeat", type=click.IntRange(3, 50), default=5, show_default=True, help="Identical sessions to record."
)
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout and nothing else.")
@plan_options
@click.pass_context
def calibrate(
    ctx: click.Context, /, plan_file: Path | None, from_: str | None, repeat: int, json_: bool, **options: Any
) -> None:
    """Record identical sessions and keep how much they differ on this machine, with this model.

    The spread decides what `compare` may claim of a single session a side. Takes the options of `run`; 10 rounds unless
    told otherwise.
    """
    from llava_tui import preflight
    from llava_tui.report.calibration import calibrate as record

    plan = preflight.resolve(read_plan(ctx, plan_file, from_, options, rounds=10))
    preflight.check(plan)
    sys.exit(record(folder(ctx), plan, repeat, json_=json_))
