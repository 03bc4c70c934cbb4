"""What a session found out about itself, in sentences: preflight, warm-up, self-test, cool-down, which rule ended it,
and what a profiled run consisted of."""

from __future__ import annotations

from typing import TypeVar

from llava_tui import units
from llava_tui.analysis import loads
from llava_tui.events import (
    BrokenItem,
    CoolDown,
    Ended,
    GpuState,
    Preflight,
    Profile,
    Resumed,
    SelfTest,
    SessionFact,
    StageProfile,
    WarmUp,
)
from llava_tui.session.text import safe_text
from llava_tui.session.timeline import View

TOP = 3
"""Operators shown a stage."""
THROTTLED = 0x8 | 0x20 | 0x40 | 0x80
F = TypeVar("F", WarmUp, CoolDown, Resumed)


def sentence(fact: SessionFact) -> str:
    """One line, as it is said while a session goes on."""
    match fact:
        case Preflight():
            return "preflight: " + "; ".join(filter(None, [_host(fact), *map(_gpu, fact.gpus), *_no_gpu(fact)]))
        case WarmUp():
            return "warm-up: " + _warm_up(fact)
        case SelfTest():
            return "self-test: " + _self_test(fact)
        case CoolDown():
            return "cool-down: " + _cool_down(fact)
        case Ended():
            return f"ended: {fact.text}"
        case BrokenItem():
            return f"item {fact.item} left out: {fact.reason}"
        case Resumed():
            return "resumed: " + _resumed(fact)
        case Profile():
            return "profile: " + (f"none: {fact.problem}" if fact.problem else _profile_head(fact))
    raise TypeError(fact)


def head(view: View) -> list[str]:
    """What ``show`` says of a session's course, a line a fact, with its title."""
    lines = [("family", text) for text in _family(view)]
    if (preflight := view.fact(Preflight)) is not None:
        lines += [("machine", text) for text in [_host(preflight), *map(_gpu, preflight.gpus), *_no_gpu(preflight)]]
        lines += [("warning", text) for text in preflight.warnings]
    lines += [("resumed", _resumed(event)) for event in _all(view, Resumed)]
    lines.append(("loads", loads.told(view)))
    lines += [("warm-up", _warm_up(event)) for event in _all(view, WarmUp)]
    if (test := view.fact(SelfTest)) is not None:
        lines.append(("measuring", _self_test(test)))
    lines += [("cool-down", _cool_down(event)) for event in _all(view, CoolDown)]
    schedule, ended = view.schedule, view.fact(Ended)
    if ended is not None:
        lines.append(("rounds", f"{ended.text}{_seed(view)}"))
    elif schedule is not None and schedule.rule:
        lines.append(("rounds", f"{schedule.rule}{_seed(view)}"))
    if (profile := view.fact(Profile)) is not None and profile.problem:
        lines.append(("profile", f"none: {profile.problem}"))
    lines.append(("open run", _open_run(view)))
    return [f"  {title:<8} {text}" for title, text in lines if text]


def _open_run(view: View) -> str:
    """What has begun and not ended: of a worker that crashed the input that it was about, which may be to blame."""
    run = view.current
    if run is None:
        return ""
    told = [str(run["run"]), run["kind"], run["case"], run["item"]]
    return safe_text(" · ".join(part for part in told if part))


def _family(view: View) -> list[str]:
    """What is particular about how the model's family runs here."""
    told = view.model.extra if view.model is not None else {}
    untested = "untested: no test runs models like it; this session checks it against plain generate()"
    unsplit = f"cannot be split ({safe_text(str(told.get('unsplit')))}): what encoding takes is a part of prefill"
    return [untested] * (told.get("family") == "untested") + [unsplit] * ("unsplit" in told)


def profile_table(view: View) -> list[str]:
    """The profiled run: operators against spans, the top ones of each stage; empty where there is none."""
    profile = view.fact(Profile)
    if profile is None or profile.problem:
        return []
    titles = {info.path: info.title for info in view.tree}
    lines = [
        f"profile  {_profile_head(profile)}",
        f"  {'stage':<22}{'span':>10}{'operators':>12}{'of it':>9}  top operators",
    ]
    for stage in profile.stages:
        if stage.span is None:
            continue
        title = "  " * stage.path.count(".") + titles.get(stage.path, stage.path)
        top = "" if "." not in stage.path else ", ".join(_operator(stage, place) for place in range(TOP))
        lines.append(
            f"  {title:<22}{units.duration(stage.span):>10}{units.duration(stage.operators):>12}"
            f"{_share(stage):>9}  {top.strip(', ')}".rstrip()
        )
    return lines


def _all(view: View, kind: type[F]) -> list[F]:
    return [event for event in view.facts["event"] if isinstance(event, kind)]


def _seed(view: View) -> str:
    seed = view.header.plan.get("seed")
    return f" · seed {seed}" if isinstance(seed, int) else ""


def _host(fact: Preflight) -> str:
    """What no warning tells already."""
    told = " ".join(fact.warnings)
    parts = []
    if fact.load is not None and "load average" not in told:
        parts.append(f"load {fact.load:g} on {units.counted(fact.cores, 'core')}")
    if fact.governor and "CPU governor" not in told:
        parts.append(f"governor {fact.governor}")
    return " · ".join(parts)


def _gpu(gpu: GpuState) -> str:
    free = f"{units.size(gpu.memory_free)} of {units.size(gpu.memory_total)} free"
    others = units.counted(len(gpu.foreign or ()), "other process", "other processes")
    facts = [
        f"GPU {gpu.gpu}" + (f" {gpu.name}" if gpu.name else ""),
        free if gpu.memory_free is not None else "",
        f"{gpu.temperature_c} °C" if gpu.temperature_c is not None else "",
        f"{gpu.sm_clock_mhz} MHz" if gpu.sm_clock_mhz is not None else "",
        f"limit {gpu.power_limit_mw / 1000:g} W" if gpu.power_limit_mw is not None else "",
        "throttled" if (gpu.throttle or 0) & THROTTLED else "",
        "" if gpu.foreign is None else others if gpu.foreign else "no other process",
    ]
    return " · ".join(filter(None, facts))


def _no_gpu(fact: Preflight) -> list[str]:
    return [f"no GPU: {fact.absent}"] if fact.absent else []


def _warm_up(fact: WarmUp) -> str:
    how = "steady" if fact.rule == "steady" else "not steady, the most there are"
    return (
        f"{fact.case}: {units.counted(fact.runs, 'run')}, {how}: the last three differ by {units.percent(fact.spread)}"
    )


def _self_test(fact: SelfTest) -> str:
    if fact.overhead is None or fact.low is None or fact.high is None:
        return f"not tested: {fact.reason}" if fact.reason else ""
    over, low, high = (units.change(value, 2) for value in (fact.overhead, fact.low, fact.high))
    verdict = {"above": ": ABOVE 1 %", "unclear": ": above 1 %, or too noisy to tell"}.get(fact.verdict, "")
    pairs = f"{units.counted(len(fact.bare), 'pair')} of {fact.case}, the hooks on the model in both"
    return f"costs {over} ({low} … {high} in {pairs}){verdict}"


def _resumed(fact: Resumed) -> str:
    left = units.counted(fact.left, "item")
    return f"after run {fact.run}, with {left} left, by another process: its load, caches and temperature are others"


def _cool_down(fact: CoolDown) -> str:
    then = "" if fact.temperature_c is None else f", then {fact.temperature_c:.0f} °C"
    return f"run {fact.run} was taken back: {fact.why}; rested for {units.elapsed(fact.waited)}{then}"


def _profile_head(fact: Profile) -> str:
    where = "kernels" if fact.device not in ("", "cpu") else "operators on the host"
    return f"run {fact.run} of {fact.case}, {where}" + (f", trace in {fact.trace}" if fact.trace else "")


def _share(stage: StageProfile) -> str:
    return units.percent(stage.operators / stage.span) if stage.operators is not None and stage.span else units.UNKNOWN


def _operator(stage: StageProfile, place: int) -> str:
    if place >= len(stage.top):
        return ""
    operator = stage.top[place]
    share = f" {operator.time / stage.operators:.0%}".replace("%", " %") if stage.operators else ""
    return f"{operator.name.removeprefix('aten::')}{share}"
