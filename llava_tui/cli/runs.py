"""Starting runs: demo and run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from llava_tui.cli.monitors import monitor, screen_options
from llava_tui.cli.plans import plan_options, read_plan
from llava_tui.cli.sessions import find, folder


@click.command()
@click.option("--headless", is_flag=True, help="Print progress lines instead of opening the monitor.")
@click.option("--json", "json_", is_flag=True, help="With --headless: one JSON document on stdout and nothing else.")
@click.option("--rounds", type=int, default=8, show_default=True)
@screen_options
@click.pass_context
def demo(
    ctx: click.Context, headless: bool, json_: bool, rounds: int, fps: float, ascii_: bool, low_bandwidth: bool
) -> None:
    """A small genuine LLaVA, built on this machine, on a synthesised video: no download, no GPU."""
    from llava_tui.plan import from_dict

    # A first look: nothing that keeps one waiting for the first figures.
    quick = {"warmup": 1, "self_test": False}
    plan = from_dict({"frames": [1, 2, 4], "rounds": rounds, "name": "demo", "new_tokens": [32], **quick})
    _start(ctx, plan, headless or json_, json_, fps, ascii_, low_bandwidth)


@click.command()
@click.argument("plan_file", required=False, metavar="[PLAN.toml]", type=click.Path(path_type=Path))
@click.option("--from", "from_", metavar="SESSION", help="Run that session's plan again.")
@click.option(
    "--resume", metavar="SESSION", help="Go on with a data set that was stopped or interrupted, in the same session."
)
@plan_options
@click.option("--headless", is_flag=True, help="Print progress lines instead of opening the monitor.")
@click.option("--detach", is_flag=True, help="Start the run, print its id and leave it to itself.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, how long and in how much memory; start nothing.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout and nothing else; implies --headless.")
@screen_options
@click.pass_context
def run(
    ctx: click.Context,
    /,
    plan_file: Path | None,
    from_: str | None,
    resume: str | None,
    headless: bool,
    detach: bool,
    dry_run: bool,
    json_: bool,
    fps: float,
    ascii_: bool,
    low_bandwidth: bool,
    **options: Any,
) -> None:
    """Profile a model on videos, in a background worker.

    Without --headless the monitor opens on the run; closing it leaves the run going.
    """
    if resume is not None:
        path = _resumable(ctx, resume, plan_file, from_, options)
        _start(ctx, path, headless or json_, json_, fps, ascii_, low_bandwidth, detach=detach)
        return
    plan = read_plan(ctx, plan_file, from_, options)
    if dry_run:
        from llava_tui.cli.dry_run import tell

        tell(plan, folder(ctx), json_)
        return
    _start(ctx, plan, headless or json_, json_, fps, ascii_, low_bandwidth, detach=detach)


def _resumable(
    ctx: click.Context, session: str, plan_file: Path | None, from_: str | None, options: dict[str, Any]
) -> Path:
    """The session's folder. Raises :class:`llava_tui.plan.PlanError` where anything else is asked for beside it."""
    from llava_tui import starting
    from llava_tui.plan import PlanError

    if plan_file or from_ or any(value not in (None, ()) for value in options.values()):
        raise PlanError("--resume goes on with the session's own plan; leave the other options out, or use --from")
    path = find(ctx, session)
    if host := starting.foreign_host(path):
        click.echo(
            f"llava-tui: {path.name} began on {host}: its times and those from here are not comparable", err=True
        )
    return path


def _start(
    ctx: click.Context,
    plan: Any,
    headless: bool,
    json_: bool,
    fps: float,
    ascii_: bool,
    low_bandwidth: bool,
    detach: bool = False,
) -> None:
    from llava_tui import preflight, starting

    headless = headless or not sys.stdout.isatty()
    if headless and not detach:  # loaded first: there is no moment at which a worker has nobody to stop it
        from llava_tui.report.progress import follow
    if isinstance(plan, Path):
        path, worker = plan, starting.resume(plan, sys.argv)
    else:
        path, worker = starting.start(folder(ctx), preflight.prepare(plan), sys.argv)
    if detach:
        click.echo(path.name)
        return
    if headless:
        sys.exit(follow(path, worker, json_=json_))
    monitor(path, fps, ascii_, low_bandwidth)
