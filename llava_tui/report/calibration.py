"""Recording identical sessions one after another, and keeping how much they differ."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from llava_tui import units
from llava_tui.analysis.calibration import spread_between
from llava_tui.analysis.fairness import machine_of, model_of
from llava_tui.analysis.measures import ALL_CASES, measures
from llava_tui.events import Notes
from llava_tui.report import progress
from llava_tui.session import launch, spreads, store
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.timeline import Timeline

if TYPE_CHECKING:
    from llava_tui.plan import Plan

TAG = "calibration"


def calibrate(folder: Path, plan: Plan, sessions: int, *, json_: bool) -> int:
    """Records ``plan`` that many times (only the seed changes), keeps the A/A spread of this machine and model, and
    says what it is. Returns the command's exit code. Raises :class:`SessionError`."""
    paths = []
    interrupt = signal.getsignal(signal.SIGINT)
    for number in range(sessions):
        signal.signal(signal.SIGINT, interrupt)  # following a session to its end leaves it ignored
        progress.hold()
        path = store.create(folder, f"{plan.slug()}-calibration")
        one = msgspec.structs.replace(plan, seed=plan.seed + number)
        worker = launch.launch(path, one.to_json(), sys.argv)
        store.set_notes(path, Notes(name=plan.name, tags=(*plan.tags, TAG)))
        if not json_:
            click.echo(f"session {number + 1}/{sessions}  {path.name}")
        seen = progress.watch(path, worker, lambda line: None)
        if seen.interrupted:
            return seen.interrupted
        if seen.timeline is None:
            return progress.gone(path)
        if store.status(path) != "finished":
            return progress.failed(path)
        paths.append(path)
    views = [Timeline.open(path).now() for path in paths]
    machine, model = machine_of(views[0]), model_of(views[0])
    spread = spread_between(views)
    if not spread:
        raise SessionError("the sessions have too few measured runs for a spread; give more --rounds")
    runs = sum(measures(view, ALL_CASES).n for view in views)
    kept = spreads.keep(machine, model, [path.name for path in paths], runs, spread)
    if json_:
        click.echo(msgspec.json.format(msgspec.json.encode(spreads.find(machine, model)), indent=2).decode())
        return 0
    click.echo(
        f"\nA/A spread of {safe_text(model)} on {safe_text(machine)}: {sessions} sessions, {units.counted(runs, 'run')}"
    )
    if views[0].header.provenance == "simulated":
        click.echo("SIMULATED: what the simulator's sessions differ by, not what hardware would")
    for key, value in spread.items():
        click.echo(f"  {'  ' * key.count('.')}{key:<24} {units.percent(value)}")
    click.echo(f"kept in {safe_text(str(kept))}")
    return 0
