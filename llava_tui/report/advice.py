"""Advice as text and JSON, and advice put to the test in a session of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from llava_tui import units
from llava_tui.analysis.advice import Advice
from llava_tui.analysis.measures import case_values
from llava_tui.analysis.trial import Proof, prove, trial_plan
from llava_tui.analysis.whole import Analysis
from llava_tui.events import Notes
from llava_tui.plan import Plan, from_dict
from llava_tui.report.analysis import WATERMARK, advice_lines, command, nothing
from llava_tui.report.progress import POLL_SECONDS, Lines
from llava_tui.session import control, launch, store
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.timeline import Timeline, View


def as_text(view: View, found: Analysis) -> str:
    """The advice on one case, the largest gain first."""
    session = view.header.id
    lines = [f"advice on {session}, case {found.advised or 'none'}"]
    if view.header.provenance == "simulated":
        lines.append(f"  {WATERMARK}")
    if not found.advised:
        lines.append("  no measured run to advise on")
    elif not found.advice:
        lines.append(f"  {nothing(view)}")
    for number, advice in enumerate(found.advice, 1):
        lines += ["", *(f"  {safe_text(line)}" for line in advice_lines(number, advice, session))]
    return "\n".join(lines)


def as_json(view: View, found: Analysis, proof: Proof | None = None, trial: str | None = None) -> str:
    """One JSON document; gains as shares of the time. ``trial`` is the session that gave ``proof``."""
    document: dict[str, Any] = {
        "session": view.header.id,
        "provenance": view.header.provenance,
        "case": found.advised,
        "advice": [
            msgspec.to_builtins(advice) | {"command": command(advice, view.header.id)} for advice in found.advice
        ],
    }
    if proof is not None:
        document |= {"trial": trial, "proof": msgspec.to_builtins(proof)}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def chosen(found: Analysis, only: str | None) -> Advice:
    """The advice to verify: ``only`` by its id, else the first that can be. Raises :class:`SessionError`."""
    can = [advice for advice in found.advice if advice.change is not None]
    if only is not None:
        advice = next((advice for advice in found.advice if advice.id == only), None)
        if advice is None:
            given = ", ".join(each.id for each in found.advice) or "none"
            raise SessionError(f"--only {only}: there is no such advice on this case; there is: {given}")
        if advice.change is None:
            raise SessionError(
                f"{advice.id}: the worker has no sweep axis for it, so it cannot be run beside its baseline in one "
                f"session; try it yourself: {advice.command.replace('{session}', 'SESSION')}"
            )
        return advice
    if not can:
        given = ", ".join(each.id for each in found.advice)
        raise SessionError(
            f"nothing to verify: {f'no sweep axis fits {given}' if given else 'there is no advice on this case'}"
        )
    return can[0]


def trial(view: View, advice: Advice, rounds: int) -> Plan:
    """The plan of the session that runs the advice beside its baseline. Raises :class:`SessionError` and
    :class:`~llava_tui.plan.PlanError`."""
    return from_dict(trial_plan(view.header.plan, advice, _values(view, advice.case), rounds))


def verify(folder: Path, plan: Plan, view: View, found: Analysis, advice: Advice, *, json_: bool) -> int:
    """Runs :func:`trial`'s plan in a new session, and says what was predicted and what was measured. Returns the
    command's exit code. Raises :class:`SessionError`."""
    path = store.create(folder, f"{plan.slug()}-{advice.id}")
    worker = launch.launch(path, plan.to_json(), sys.argv)
    store.set_notes(path, Notes(name=plan.name, tags=plan.tags))
    if not json_:
        click.echo(f"session {path}")
    timeline = Timeline.open(path)
    if (code := _wait(path, timeline, worker, json_)) != 0:
        return code
    proof = prove(timeline.now(), advice)
    if json_:
        click.echo(as_json(view, found, proof, path.name))
    else:
        click.echo("\n" + proof_text(view, advice, proof, path.name))
    return 0


def proof_text(view: View, advice: Advice, proof: Proof, trial: str) -> str:
    """Predicted against measured, with its interval."""
    lines = [
        f"{advice.title}",
        f"  tried      {proof.axis} {proof.before} against {proof.after}, interleaved, {proof.rounds} rounds, {trial}",
        f"  predicted  saves {units.percent(proof.predicted)} of the {proof.metric}"
        + (f", at most {units.percent(proof.bound)}" if proof.bound is not None else ""),
    ]
    interval = "too few rounds for an interval"
    if proof.low is not None:
        interval = f"95 % interval {units.percent(proof.low)} … {units.percent(proof.high)}"
    lines.append(f"  measured   saves {units.percent(proof.measured)} ({interval})")
    lines.append(f"  verdict    {proof.sentence}")
    if view.header.provenance == "simulated":
        lines.append(f"  {WATERMARK}")
    return "\n".join(map(safe_text, lines))


def _values(view: View, case: str) -> dict[str, Any]:
    """The case's place on every axis. Raises :class:`SessionError` where the session does not tell."""
    if values := case_values(view, case):
        return values
    raise SessionError(f"{case}: the session does not say what this case is; run it again")


def _wait(path: Path, timeline: Timeline, worker: subprocess.Popen[bytes], json_: bool) -> int:
    """Follows the trial to its end; 0 if it finished, else the command's exit code."""
    lines = Lines(timeline, (lambda line: None) if json_ else click.echo)
    interrupted = False
    while True:
        try:
            ended = worker.poll() is not None
            timeline.poll()
            lines.update()
            if ended:
                break
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            if interrupted:
                return 130
            interrupted = True
            control.send(path, "stop-now")
    if interrupted:
        return 130
    info = store.info(path)
    if info.status == "finished":
        return 0
    click.echo(f"llava-tui: the run {info.status}: {safe_text(info.reason) or 'see worker.log'} ({path})", err=True)
    return 3
