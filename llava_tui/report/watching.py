"""A session from wherever it comes, followed on a command line: progress lines, and what it holds at its end."""

from __future__ import annotations

import time

import click

from llava_tui.report import overview
from llava_tui.report.progress import POLL_SECONDS, Lines
from llava_tui.session import store
from llava_tui.session.reader import safe_text
from llava_tui.session.source import Source
from llava_tui.session.timeline import Timeline


def watch(source: Source, *, json_: bool) -> int:
    """Follows the session until it has ended; returns the command's exit code. Nothing is asked of its worker: Ctrl+C
    ends the watching alone."""

    def say(line: str) -> None:
        if not json_:
            click.echo(line)

    say(f"session {source.name}")
    timeline = Timeline.open(source.path)
    lines = Lines(timeline, say)
    trouble = ""
    while True:
        status = source.status()  # first: what a session said last is in its streams then
        if source.path != timeline.path:
            say(f"session {source.name}")
            timeline = Timeline.open(source.path)
            lines = Lines(timeline, say)
        timeline.poll()
        lines.update()
        told = source.remarks()
        if (now := source.line()) != trouble:
            trouble = now
            told.append(now or f"{source.name}: connected again")
        for line in told:
            click.echo(f"llava-tui: {line}", err=True)
        if status not in store.LIVE:
            break
        time.sleep(POLL_SECONDS)
    info = store.info(timeline.path)
    click.echo(overview.as_json(info, timeline) if json_ else "\n" + overview.as_text(info, timeline))
    if info.status not in ("failed", "interrupted"):
        return 0
    what = "its worker died" if info.status == "interrupted" else "the run failed"
    click.echo(f"llava-tui: {what}: {safe_text(info.reason) or 'see its worker.log'}", err=True)
    return 3
