"""The monitor as the verbs open it, and the options of its screen."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType
from typing import Any

import click


def screen_options(command: Any) -> Any:
    """Adds --fps, --ascii and --low-bandwidth to a command."""
    for option in (
        click.option("--low-bandwidth", is_flag=True, help="At most 1 kB/s: one paint a second, no mouse motion."),
        click.option("--ascii", "ascii_", is_flag=True, help="Draw with ASCII only."),
        click.option("--fps", type=click.FloatRange(0.1, 60), default=4.0, show_default=True, help="Paints a second."),
    ):
        command = option(command)
    return command


def read_only_option(command: Any) -> Any:
    """Adds --read-only to a command."""
    return click.option("--read-only", is_flag=True, help="Only look: nothing can be steered or changed.")(command)


def program() -> ModuleType:
    """:mod:`llava_tui.tui.app`, loaded when it is asked for.

    What loading makes is kept to the end: looking for garbage in it, then and later, takes 2 % of the time to the first
    paint.
    """
    gc.disable()
    try:
        from llava_tui.tui import app
    finally:
        gc.freeze()
        gc.enable()
    return app


def monitor(path: Path, fps: float, ascii_: bool, low_bandwidth: bool, **more: Any) -> None:
    """Shows the session in folder ``path`` until the user leaves; ``more`` is for the app."""
    program().run_monitor(path, fps=fps, ascii=ascii_, low_bandwidth=low_bandwidth, **more)


def browser(folder: Path, fps: float, ascii_: bool, low_bandwidth: bool, read_only: bool) -> None:
    """Shows the sessions in ``folder`` until the user leaves."""
    program().run_browser(folder, fps=fps, ascii=ascii_, low_bandwidth=low_bandwidth, read_only=read_only)
