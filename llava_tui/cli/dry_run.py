"""``run --dry-run``: what a plan comes to, before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llava_tui.forecast import Expected
    from llava_tui.plan import Plan


def tell(plan: Plan, sessions: Path, json_: bool) -> None:
    """Checks the plan as a run does, and prints its cases with what they take. Raises what a run's checks raise."""
    import msgspec

    from llava_tui import preflight
    from llava_tui.session import store
    from llava_tui.tui.estimate import estimate

    plan = preflight.prepare(plan)
    found = estimate(plan, store.list_sessions(sessions))
    expected = _expected(plan)
    if json_:
        document: dict[str, Any] = {
            "plan": plan.to_dict(),
            "runs": found.runs,
            "seconds": found.seconds,
            "memory": found.memory,
            "cases": expected or [{"case": case.id} for case in plan.cases()],
        }
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    from llava_tui.tui.widgets.plan_page import time_in_words

    low, high = found.runs
    click.echo(f"runs     {low if low == high else f'{low} … {high}'} of all kinds")
    click.echo(f"time     {time_in_words(found)}")
    click.echo("\n".join(_table(plan, expected)))


def _expected(plan: Plan) -> tuple[Expected, ...]:
    from llava_tui.forecast import forecast
    from llava_tui.host_memory import host_free
    from llava_tui.pipelines import fitting
    from llava_tui.plan import DEMO
    from llava_tui.tui.estimate import config_of, device_of, dtype_of

    config = config_of(plan)
    if plan.pipeline == "llava" and plan.model == DEMO:
        from llava_tui.models import read_config
        from llava_tui.pipelines.checkpoints import demo_model

        config = read_config(demo_model(), DEMO)
    if not config:
        return ()
    free, where = None, ""
    if plan.pipeline == "simulated":
        from llava_tui.pipelines.simulated_gpu import GPUS

        gpu = GPUS[plan.simulated_gpu]
        free, where = gpu.memory, f"the {gpu.name} (simulated)"
    elif device_of(plan) == "cpu":
        free, where = host_free(), "this machine"
    elif (largest := fitting.largest_gpu()) is not None:
        free, where = largest, "the largest GPU"
    return forecast(plan, config, dtype_of(plan, config), free, where)


def _table(plan: Plan, expected: tuple[Expected, ...]) -> list[str]:
    from llava_tui.units import UNKNOWN, size

    if not expected:
        cases = ", ".join(case.id for case in plan.cases())
        return [f"cases    {cases}", "memory   unknown before the first run: the model's config does not tell"]
    wide = max(6, *(len(each.case) for each in expected))
    lines = [f"{'case':<{wide}}  {'weights':>10}  {'keys and values':>15}  {'activations':>11}  {'together':>10}"]
    for each in expected:
        cache, work = (each.needs.cache, each.needs.activations) if each.needs is not None else (None, None)
        line = f"{each.case:<{wide}}  {size(each.weights):>10}  {size(cache):>15}  {size(work):>11}"
        lines.append(f"{line}  {size(each.total) if each.needs is not None else UNKNOWN:>10}")
    lines += [f"{each.case} {each.problem}" for each in expected if each.problem]
    return [*lines, "activations are an estimate; libraries and what the driver keeps come on top"]
