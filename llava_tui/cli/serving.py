"""The screens in a browser."""

from __future__ import annotations

import click

from llava_tui.cli.sessions import find, folder


@click.command()
@click.argument("session", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--host", default="localhost", show_default=True, help="The address to listen on.")
@click.option("--read-write", is_flag=True, help="Visitors may start, steer, rename and delete.")
@click.pass_context
def web(ctx: click.Context, session: str | None, port: int, host: str, read_write: bool) -> None:
    """The same screens in a browser, on this machine alone unless --host says otherwise; read-only.

    Without SESSION the browser of sessions. Each visitor has a process of its own; runs are not touched when it ends.
    From another machine: ssh -L 8000:localhost:8000 HOST.
    """
    from llava_tui.session.reader import SessionError

    try:
        from llava_tui.tui.web import serve
    except ImportError as error:
        raise SessionError(f"the web server is not installed ({error.name}): pip install 'llava-tui[web]'") from None
    arguments = ["--sessions", str(folder(ctx).absolute())]
    mode = [] if read_write else ["--read-only"]
    if session is None:
        arguments += mode
    else:
        arguments += ["open", str(find(ctx, session).absolute()), *mode]

    def say(link: str) -> None:
        click.echo(f"{link}\n{'read and write' if read_write else 'read-only'}; ctrl+c ends it, runs go on")

    serve(arguments, host=host, port=port, say=say)
