"""Advice as text and JSON, and advice put to the test in a session of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from llava_tui import starting, units
from llava_tui.analysis.advice import Advice
from llava_tui.analysis.measures import case_values
from llava_tui.analysis.trial import Proof, prove, trial_plan
from llava_tui.analysis.whole import Analysis
from llava_tui.plan import Plan, from_dict
from llava_tui.report import progress
from llava_tui.report.advice_lines import advice_lines, command, nothing
from llava_tui.report.page import WATERMARK
from llava_tui.session import store
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.timeline import View


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
    if found.withheld:
        lines += ["", f"  withheld until then: {_names(found.withheld)}"]
        lines += ["  to try one of them even so: " + f"llava-tui advise {session} --verify --only ID"]
    return "\n".join(lines)


def as_json(view: View, found: Analysis, proof: Proof | None = None, trial: str | None = None) -> str:
    """One JSON document; gains as shares of the time. ``trial`` is the session that gave ``proof``."""
    document: dict[str, Any] = {
        "session": view.header.id,
        "provenance": view.header.provenance,
        "case": found.advised,
        "advice": [_plain(advice, view) for advice in found.advice],
        "withheld": [_plain(advice, view) for advice in found.withheld],
    }
    if proof is not None:
        document |= {"trial": trial, "proof": msgspec.to_builtins(proof)}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _plain(advice: Advice, view: View) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(advice)
    return fields | {"command": command(advice, view.header.id)}


def _names(advice: Sequence[Advice]) -> str:
    return ", ".join(each.id for each in advice) or "none"


def chosen(found: Analysis, only: str | None) -> Advice:
    """The advice to verify: ``only`` by its id, which is carried out even where it is withheld, else the first that can
    be. Raises :class:`SessionError`."""
    if only is not None:
        every = (*found.advice, *found.withheld)
        advice = next((advice for advice in every if advice.id == only), None)
        if advice is None:
            raise SessionError(f"--only {only}: there is no such advice on this case; there is: {_names(every)}")
        if advice.change is None:
            raise SessionError(
                f"{advice.id}: the worker has no sweep axis for it, so it cannot be run beside its baseline in one "
                f"session; try it yourself: {advice.command.replace('{session}', 'SESSION')}"
            )
        return advice
    if can := [advice for advice in found.advice if advice.change is not None]:
        return can[0]
    if tried := [advice for advice in found.withheld if advice.change is not None]:
        raise SessionError(
            f"nothing is advised but {_names(found.advice)} ({found.doubt}); insist with --only {tried[0].id}"
            + (f", or {_names(tried[1:])}" if tried[1:] else "")
        )
    names = _names(found.advice)
    raise SessionError(
        f"nothing to verify: {f'no sweep axis fits {names}' if found.advice else 'there is no advice on this case'}"
    )


def trial(view: View, advice: Advice, rounds: int) -> Plan:
    """The plan of the session that runs the advice beside its baseline. Raises :class:`SessionError` and
    :class:`~llava_tui.plan.PlanError`."""
    return from_dict(trial_plan(view.header.plan, advice, _values(view, advice.case), rounds))


def verify(folder: Path, plan: Plan, view: View, found: Analysis, advice: Advice, *, json_: bool) -> int:
    """Runs :func:`trial`'s plan in a new session, and says what was predicted and what was measured. Returns the
    command's exit code. Raises :class:`SessionError`."""
    path, worker = starting.start(folder, plan, sys.argv)
    seen = progress.watch(path, worker, (lambda line: None) if json_ else click.echo)
    if seen.interrupted:
        return seen.interrupted
    if seen.timeline is None:
        return progress.gone(path)
    if store.status(path) != "finished":
        return progress.failed(path)
    proof = prove(seen.timeline.now(), advice, found.doubt)
    if json_:
        click.echo(as_json(view, found, proof, path.name))
    else:
        click.echo("\n" + proof_text(view, advice, proof, path.name))
    return 0 if proof.measured is not None else 3


def proof_text(view: View, advice: Advice, proof: Proof, trial: str) -> str:
    """Predicted against measured, with its interval."""
    of = "a run's time" if proof.metric == "wall" else "a sequence's time"
    lines = [
        f"{advice.title}",
        f"  tried      {proof.axis} {proof.before} against {proof.after}, interleaved, {proof.rounds} rounds, {trial}",
        f"  predicted  {_predicted(proof, of)}",
    ]
    interval = "too few rounds for an interval"
    if proof.low is not None:
        interval = f"95 % interval {units.percent(proof.low)} … {units.percent(proof.high)}"
    lines.append(f"  measured   saves {units.percent(proof.measured)} ({interval})")
    lines.append(f"  verdict    {proof.sentence}")
    if proof.doubt:
        lines.append(f"  doubt      of the session advised on, {proof.doubt}; predictions and bounds are from there")
    if view.header.provenance == "simulated":
        lines.append(f"  {WATERMARK}")
    return "\n".join(map(safe_text, lines))


def _predicted(proof: Proof, of: str) -> str:
    most = f"at most {units.percent(proof.bound)}" if proof.bound is not None else ""
    if proof.predicted is None:
        return "nothing" + (f": {most} of {of}" if most else "")
    return f"saves {units.percent(proof.predicted)} of {of}" + (f", {most}" if most else "")


def _values(view: View, case: str) -> dict[str, Any]:
    """The case's place on every axis. Raises :class:`SessionError` where the session does not tell."""
    if values := case_values(view, case):
        return values
    raise SessionError(f"{case}: the session does not say what this case is; run it again")
