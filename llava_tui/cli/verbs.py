"""The verbs, and which module has each: one verb loads no other's, and ``--help`` loads none.

To add a verb: write its command in the module where it belongs, and its line in :data:`VERBS`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from llava_tui import __version__
from llava_tui.cli import interrupts
from llava_tui.cli.monitors import browser, read_only_option, screen_options
from llava_tui.cli.sessions import folder, refuse

VERBS: dict[str, tuple[str, str]] = {
    "advise": (
        "analysing:advise",
        "What would make a run faster, by how much at most, and, with --verify, whether it does.",
    ),
    "analyze": (
        "analysing:analyze",
        "What a session says: steps, extremes, frames, batch, trust, roofline, and advice with its evidence.",
    ),
    "attach": ("looking:attach", "The monitor on a running session; the newest one if none is named."),
    "calibrate": (
        "comparing:calibrate",
        "Record identical sessions and keep how much they differ on this machine, with this model.",
    ),
    "compare": ("comparing:compare", "Which of two is faster, step by step, and whether that can be claimed at all."),
    "control": ("controlling:control", "Ask a running session's worker for something, and print its answer."),
    "demo": ("runs:demo", "A small genuine LLaVA, built on this machine, on a synthesised video: no download, no GPU."),
    "doctor": ("machine:doctor", "What was found on this machine, and how to mend what is missing."),
    "import": (
        "importing:import_",
        "Results of earlier benchmarks (JSON as AveragingProfiler writes it) as sessions; prints their ids.",
    ),
    "list": ("looking:list_", "The sessions: running ones first, then the newest."),
    "models": ("machine:models_", "Local checkpoints (Hugging Face cache, and FOLDERS) and presets."),
    "open": ("looking:open_", "The monitor on any session, running or ended."),
    "pin": ("comparing:pin", "Make these sessions, and no others, the baseline that @pinned means."),
    "run": ("runs:run", "Profile a model on videos, in a background worker."),
    "show": ("looking:show", "What a session holds: model, plan, and the steps table of each case."),
    "web": (
        "serving:web",
        "The same screens in a browser, on this machine alone unless --host says otherwise; read-only.",
    ),
    "watch": ("watching:watch", "The monitor on a session of another machine, or on one that comes through a pipe."),
}
"""Where each verb's command is (module of this package, name in it), and its line in ``--help``."""


class Verbs(click.Group):
    """Loads a verb when it is called. Turns a user's mistake into one line and exit code 2, never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, name = VERBS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(f"llava_tui.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, VERBS))  # as click's own
        lines = [(verb, click.Command(verb, help=VERBS[verb][1])) for verb in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line.get_short_help_str(width)) for verb, line in lines])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output went away (``| head``): nothing is wrong here.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except KeyboardInterrupt:
            click.echo(interrupts.MESSAGE, err=True)
            sys.exit(interrupts.CODE)
        except Exception as error:
            # Imported only now: the first paint of the monitor waits for every import before it.
            from llava_tui.models import ModelError
            from llava_tui.plan import PlanError
            from llava_tui.session.reader import SessionError

            if isinstance(error, (PlanError, SessionError, ModelError)):
                refuse(str(error))
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                # What was printed could not be written, and would be tried once more at the interpreter's end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                refuse(f"cannot write: {error.strerror}")
            raise
        finally:
            interrupts.end_at_once()


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--sessions", metavar="DIR", help="Folder of sessions. [default: $LLAVA_TUI_SESSIONS, ./sessions, user data]"
)
@screen_options
@read_only_option
@click.version_option(__version__, prog_name="llava-tui")
@click.pass_context
def group(
    ctx: click.Context, sessions: str | None, fps: float, ascii_: bool, low_bandwidth: bool, read_only: bool
) -> None:
    """Profile LLaVA-style vision-language models step by step, live in a terminal.

    Without a command: the browser of sessions. SESSION is an id, a unique part of one, a path, or @latest.
    """
    interrupts.be_raised()
    ctx.obj = sessions
    # Before a verb they mean what they mean behind it.
    screen = {"fps": fps, "ascii_": ascii_, "low_bandwidth": low_bandwidth, "read_only": read_only}
    ctx.default_map = dict.fromkeys(VERBS, screen)
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    served = os.environ.get("TEXTUAL_DRIVER", "").endswith(":WebDriver")
    if ctx.invoked_subcommand is None and (terminal or served):
        browser(folder(ctx), fps, ascii_, low_bandwidth, read_only)
    elif ctx.invoked_subcommand is None:
        from llava_tui.cli.looking import list_

        ctx.invoke(list_)
        click.echo("\nllava-tui demo starts a first run; llava-tui --help lists the commands.")
