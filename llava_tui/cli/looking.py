"""Looking at sessions: attach, open, list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llava_tui.cli.monitors import monitor, read_only_option, screen_options
from llava_tui.cli.sessions import find, folder

if TYPE_CHECKING:
    from llava_tui.tui.transport import Moment


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> Moment | None:
    from llava_tui.tui.transport import moment

    try:
        return None if value is None else moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command()
@click.argument("session", required=False, default="@latest")
@screen_options
@read_only_option
@click.pass_context
def attach(ctx: click.Context, session: str, fps: float, ascii_: bool, low_bandwidth: bool, read_only: bool) -> None:
    """The monitor on a running session; the newest one if none is named."""
    monitor(find(ctx, session), fps, ascii_, low_bandwidth, read_only=read_only)


@click.command(name="open")
@click.argument("session")
@click.option(
    "--at",
    metavar="TIME",
    callback=_moment,
    help="Show it at that time, held: 12.5, 1:30, 1:02:03, -5 from the end.",
)
@click.option("--speed", type=click.FloatRange(0.25, 64), help="Play it that much faster, from --at or from the start.")
@screen_options
@read_only_option
@click.pass_context
def open_(
    ctx: click.Context,
    session: str,
    at: Moment | None,
    speed: float | None,
    fps: float,
    ascii_: bool,
    low_bandwidth: bool,
    read_only: bool,
) -> None:
    """The monitor on any session, running or ended."""
    monitor(find(ctx, session), fps, ascii_, low_bandwidth, read_only=read_only, at=at, speed=speed)


@click.command(name="list")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def list_(ctx: click.Context, json_: bool = False) -> None:
    """The sessions: running ones first, then the newest."""
    from llava_tui.report import listing
    from llava_tui.session import store

    where = folder(ctx)
    sessions = store.list_sessions(where)
    click.echo(listing.as_json(sessions) if json_ else listing.as_text(sessions, where))


@click.command()
@click.argument("session")
@click.option("--case", help="Show one case only.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def show(ctx: click.Context, session: str, case: str | None, json_: bool) -> None:
    """What a session holds: model, plan, and the steps table of each case."""
    from llava_tui.report import overview
    from llava_tui.session import store
    from llava_tui.session.timeline import Timeline

    path = find(ctx, session)
    info = store.info(path)
    timeline = Timeline.open(path)
    overview.require_case(timeline, case)
    click.echo(overview.as_json(info, timeline, case) if json_ else overview.as_text(info, timeline, case))
