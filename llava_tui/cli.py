"""The command line: a function a verb. What the verbs do lives in the rooms they call.

Exit codes: 0 done; 2 bad usage or input, one clear line on stderr; 3 the run failed (the session says why);
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from llava_tui import __version__


class Group(click.Group):
    """Turns a user's mistake into one line and exit code 2, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output went away (``| head``): nothing is wrong here.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except KeyboardInterrupt:
            click.echo("llava-tui: interrupted", err=True)
            sys.exit(130)
        except Exception as error:
            # Imported only now: the first paint of the monitor waits for every import before it.
            from llava_tui.models import ModelError
            from llava_tui.plan import PlanError
            from llava_tui.session.reader import SessionError

            if isinstance(error, (PlanError, SessionError, ModelError)):
                _refuse(str(error))
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                # What was printed could not be written, and would be tried once more at the interpreter's end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                _refuse(f"cannot write: {error.strerror}")
            raise


def _refuse(message: str) -> NoReturn:
    click.echo(f"llava-tui: {message}", err=True)
    sys.exit(2)


@click.group(cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--sessions", metavar="DIR", help="Folder of sessions. [default: $LLAVA_TUI_SESSIONS, ./sessions, user data]"
)
@click.version_option(__version__, prog_name="llava-tui")
@click.pass_context
def main(ctx: click.Context, sessions: str | None) -> None:
    """Profile LLaVA-style vision-language models step by step, live in a terminal.

    SESSION is an id, a unique part of one, a path, or @latest.
    """
    ctx.obj = sessions
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)
        click.echo("\nllava-tui demo starts a first run; llava-tui --help lists the commands.")


def _folder(ctx: click.Context) -> Path:
    from llava_tui.session import store

    return store.sessions_folder(ctx.obj)


def _find(ctx: click.Context, reference: str) -> Path:
    from llava_tui.session import store

    return store.find(_folder(ctx), reference)


def _screen_options(command: Any) -> Any:
    for option in (
        click.option("--low-bandwidth", is_flag=True, help="At most 1 kB/s: one paint a second, no mouse motion."),
        click.option("--ascii", "ascii_", is_flag=True, help="Draw with ASCII only."),
        click.option("--fps", type=click.FloatRange(0.1, 60), default=4.0, show_default=True, help="Paints a second."),
    ):
        command = option(command)
    return command


def _monitor(path: Path, fps: float, ascii_: bool, low_bandwidth: bool) -> None:
    from llava_tui.tui.app import run_monitor

    run_monitor(path, fps=fps, ascii=ascii_, low_bandwidth=low_bandwidth)


# --- runs ---------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--headless", is_flag=True, help="Print progress lines instead of opening the monitor.")
@click.option("--json", "json_", is_flag=True, help="With --headless: one JSON document on stdout and nothing else.")
@click.option("--rounds", type=int, default=8, show_default=True)
@_screen_options
@click.pass_context
def demo(
    ctx: click.Context, headless: bool, json_: bool, rounds: int, fps: float, ascii_: bool, low_bandwidth: bool
) -> None:
    """A small genuine LLaVA, built on this machine, on a synthesised video: no download, no GPU."""
    from llava_tui.plan import from_dict

    # A first look: nothing that keeps one waiting for the first figures.
    quick = {"warmup": 1, "self_test": False}
    plan = from_dict({"frames": [1, 2, 4], "rounds": rounds, "name": "demo", "new_tokens": [32], **quick})
    _start(ctx, plan, headless or json_, json_, fps, ascii_, low_bandwidth)


@main.command()
@click.argument("plan_file", required=False, metavar="[PLAN.toml]", type=click.Path(path_type=Path))
@click.option("--from", "from_", metavar="SESSION", help="Run that session's plan again.")
@click.option("--pipeline", help="llava or simulated.")
@click.option("--model", metavar="ID|PATH", help="A folder, a Hugging Face id, or demo.")
@click.option("--weights", help="pretrained.")
@click.option(
    "--input", "inputs", multiple=True, metavar="PATH", help="A video, an image, a folder of frames. Repeatable."
)
@click.option("--prompt", metavar="TEXT")
@click.option("--frames", metavar="1,2,4", help="Sweep axis: frames a video.")
@click.option("--batch", metavar="1,2", help="Sweep axis: videos a run.")
@click.option("--new-tokens", metavar="64", help="Sweep axis: tokens to generate.")
@click.option("--dtype", help="auto, float32, bfloat16 or float16; several are a sweep axis.")
@click.option("--attention", help="auto, eager, sdpa, flash_attention_2, …; several are a sweep axis.")
@click.option("--threads", metavar="1,2", help="Sweep axis: threads that torch computes with on the CPU.")
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option(
    "--rounds",
    metavar="N|auto",
    help="Measured rounds; each runs every case once, in random order. auto: until every step's median is known to "
    "within 1 %, 10 to 50 of them. [default: auto]",
)
@click.option("--max-rounds", type=int, help="Of --rounds auto. [default: 50]")
@click.option("--time-limit", "time_limit_s", type=float, metavar="SECONDS", help="No round begins after that long.")
@click.option(
    "--warmup",
    metavar="N|auto",
    help="Warm-up runs a case, kept out of the statistics. auto: until three agree within 2 %. [default: auto]",
)
@click.option(
    "--self-test/--no-self-test", default=None, help="Find out first what measuring costs. [default: self-test]"
)
@click.option(
    "--cool-down/--no-cool-down",
    default=None,
    help="Take runs back in which a GPU throttled or got 5 °C warmer than in round 1. [default: cool-down]",
)
@click.option("--profile", is_flag=True, default=None, help="One more run, under torch's profiler.")
@click.option("--seed", type=int)
@click.option("--name")
@click.option("--tag", "tags", multiple=True)
@click.option("--sample-hz", type=float, help="Telemetry samples a second. [default: 10]")
@click.option("--simulated-gpu", help="Simulated pipeline: a100, h100, rtx-4090, rtx-3090 or t4.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="drift=2%",
    help="Simulated pipeline: what goes wrong on purpose; drift, spikes, throttle, foreign, hang, … Repeatable.",
)
@click.option(
    "--time-scale", type=float, help="Simulated pipeline: real seconds a simulated second; 0: as fast as possible."
)
@click.option("--headless", is_flag=True, help="Print progress lines instead of opening the monitor.")
@click.option("--detach", is_flag=True, help="Start the run, print its id and leave it to itself.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout and nothing else; implies --headless.")
@_screen_options
@click.pass_context
def run(
    ctx: click.Context,
    /,
    plan_file: Path | None,
    from_: str | None,
    headless: bool,
    detach: bool,
    json_: bool,
    fps: float,
    ascii_: bool,
    low_bandwidth: bool,
    **options: Any,
) -> None:
    """Profile a model on videos, in a background worker.

    Without --headless the monitor opens on the run; closing it leaves the run going.
    """
    plan = _plan(ctx, plan_file, from_, options)
    _start(ctx, plan, headless or json_, json_, fps, ascii_, low_bandwidth, detach=detach)


def _plan(
    ctx: click.Context, plan_file: Path | None, from_: str | None, options: dict[str, Any], **defaults: Any
) -> Any:
    """The plan of a file or a session, where one is given, with what the options say over it."""
    from llava_tui.plan import PlanError, from_dict, read_file
    from llava_tui.session.reader import read_header

    if plan_file is not None and from_ is not None:
        raise PlanError("give PLAN.toml or --from SESSION, not both")
    values = read_file(plan_file) if plan_file else read_header(_find(ctx, from_)).plan if from_ else {}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return from_dict(defaults | dict(values) | given)


def _start(
    ctx: click.Context,
    plan: Any,
    headless: bool,
    json_: bool,
    fps: float,
    ascii_: bool,
    low_bandwidth: bool,
    detach: bool = False,
) -> None:
    from llava_tui import preflight
    from llava_tui.events import Notes
    from llava_tui.session import launch, store

    plan = preflight.resolve(plan)
    preflight.check(plan)
    path = store.create(_folder(ctx), plan.name or plan.slug())
    worker = launch.launch(path, plan.to_json(), sys.argv)
    if plan.name or plan.tags:
        store.set_notes(path, Notes(name=plan.name, tags=plan.tags))
    if detach:
        click.echo(path.name)
        return
    if headless or not sys.stdout.isatty():
        from llava_tui.report.progress import follow

        sys.exit(follow(path, worker, json_=json_))
    _monitor(path, fps, ascii_, low_bandwidth)


# --- looking ------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("session", required=False, default="@latest")
@_screen_options
@click.pass_context
def attach(ctx: click.Context, session: str, fps: float, ascii_: bool, low_bandwidth: bool) -> None:
    """The monitor on a running session; the newest one if none is named."""
    _monitor(_find(ctx, session), fps, ascii_, low_bandwidth)


@main.command(name="open")
@click.argument("session")
@_screen_options
@click.pass_context
def open_(ctx: click.Context, session: str, fps: float, ascii_: bool, low_bandwidth: bool) -> None:
    """The monitor on any session, running or ended."""
    _monitor(_find(ctx, session), fps, ascii_, low_bandwidth)


@main.command(name="list")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def list_(ctx: click.Context, json_: bool = False) -> None:
    """The sessions: running ones first, then the newest."""
    from llava_tui.report import listing
    from llava_tui.session import store

    folder = _folder(ctx)
    sessions = store.list_sessions(folder)
    click.echo(listing.as_json(sessions) if json_ else listing.as_text(sessions, folder), nl=True)


@main.command()
@click.argument("session")
@click.option("--case", help="Show one case only.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def show(ctx: click.Context, session: str, case: str | None, json_: bool) -> None:
    """What a session holds: model, plan, and the steps table of each case."""
    from llava_tui.report import overview
    from llava_tui.session import store
    from llava_tui.session.timeline import Timeline

    path = _find(ctx, session)
    info = store.info(path)
    timeline = Timeline.open(path)
    overview.require_case(timeline, case)
    click.echo(overview.as_json(info, timeline, case) if json_ else overview.as_text(info, timeline, case))


# --- comparing ----------------------------------------------------------------------------------------------------


def _share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """An option's share, like ``1%`` or ``0.01``."""
    try:
        share = float(value) if not value.strip().endswith("%") else float(value.strip()[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise click.BadParameter(f"{value!r} is no share between 0 and 1; write it like 1% or 0.01")
    return share


@main.command()
@click.argument("references", nargs=-1, metavar="BASELINE OTHER…")
@click.option("--baseline", metavar="SESSION", help="The baseline; @pinned is what `llava-tui pin` marked.")
@click.option("--threshold", callback=_share, default="1%", show_default=True, help="Effect that is worth a claim.")
@click.option("--fail-on", type=click.Choice(["slower"]), help="Exit with 1 if the run, a step or a metric is slower.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.option("--markdown", is_flag=True, help="For a pull request.")
@click.pass_context
def compare(
    ctx: click.Context,
    references: tuple[str, ...],
    baseline: str | None,
    threshold: float,
    fail_on: str | None,
    json_: bool,
    markdown: bool,
) -> None:
    """Which of two is faster, step by step, and whether that can be claimed at all.

    Each side is a SESSION, one case of it (SESSION:f4-b1-n64), or sessions that belong together (A1,A2,A3). One session
    alone: its cases against its first. Cases of one session are compared round by round; three or more sessions a side
    session by session; a single session a side claims large effects only.
    """
    from llava_tui.analysis import comparison
    from llava_tui.report import comparison as report
    from llava_tui.report.sides import read_sides, stored_spread
    from llava_tui.session.reader import SessionError

    named = [*([baseline] if baseline else []), *references]
    if not named or (baseline and not references):
        raise SessionError("name what to compare: llava-tui compare BASELINE OTHER…")
    sides = read_sides(_folder(ctx), named)
    try:
        found = comparison.compare(sides, delta=threshold, spread=stored_spread(sides))
    except ValueError as error:
        raise SessionError(str(error)) from None
    click.echo(report.as_json(found) if json_ else report.as_markdown(found) if markdown else report.as_text(found))
    if fail_on and any(one.slower for one in found):
        sys.exit(1)
    if fail_on and any(one.reasons for one in found):
        _refuse("not comparable, so nothing is known to be slower or not")


@main.command()
@click.argument("sessions", nargs=-1, required=True, metavar="SESSION…")
@click.pass_context
def pin(ctx: click.Context, sessions: tuple[str, ...]) -> None:
    """Make these sessions, and no others, the baseline that @pinned means."""
    from llava_tui.report import sides

    paths = [_find(ctx, session) for session in sessions]
    sides.pin(_folder(ctx), paths)
    click.echo("baseline: " + ", ".join(path.name for path in paths))


@main.command()
@click.argument("plan_file", required=False, metavar="[PLAN.toml]", type=click.Path(path_type=Path))
@click.option("--from", "from_", metavar="SESSION", help="Calibrate with that session's plan.")
@click.option(
    "--repeat", type=click.IntRange(3, 50), default=5, show_default=True, help="Identical sessions to record."
)
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout and nothing else.")
@click.pass_context
def calibrate(
    ctx: click.Context, /, plan_file: Path | None, from_: str | None, repeat: int, json_: bool, **options: Any
) -> None:
    """Record identical sessions and keep how much they differ on this machine, with this model.

    The spread decides what `compare` may claim of a single session a side. Takes the options of `run`; 10 rounds unless
    told otherwise.
    """
    from llava_tui import preflight
    from llava_tui.report.calibration import calibrate as record

    plan = preflight.resolve(_plan(ctx, plan_file, from_, options, rounds=10))
    preflight.check(plan)
    sys.exit(record(_folder(ctx), plan, repeat, json_=json_))


calibrate.params += [
    option
    for option in run.params
    if option.name
    not in {*(own.name for own in calibrate.params), "headless", "detach", "fps", "ascii_", "low_bandwidth"}
]


# --- analysis -----------------------------------------------------------------------------------------------------


@main.command()
@click.argument("session")
@click.option("--case", help="Analyse one case only.")
@click.option("--beside", metavar="SESSION", help="Show that session's steps beside. [default: the newest of EventGPT]")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.option("--markdown", is_flag=True, help="For a report or an issue.")
@click.pass_context
def analyze(
    ctx: click.Context, session: str, case: str | None, beside: str | None, json_: bool, markdown: bool
) -> None:
    """What a session says: steps, extremes, frames, batch, trust, roofline, and advice with its evidence."""
    from llava_tui.report import analysis

    path = _find(ctx, session)
    view, found = analysis.read(path, _folder(ctx), case, _find(ctx, beside) if beside else None)
    form = analysis.as_json if json_ else analysis.as_markdown if markdown else analysis.as_text
    click.echo(form(view, found))


@main.command()
@click.argument("session")
@click.option("--verify", is_flag=True, help="Run the change beside its baseline in a new session.")
@click.option("--only", metavar="ADVICE", help="The advice to verify, by its id. [default: the first that can be]")
@click.option("--case", help="Advise on this case. [default: the one that takes longest]")
@click.option("--rounds", type=click.IntRange(6, 1000), default=12, show_default=True, help="With --verify.")
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout and nothing else.")
@click.pass_context
def advise(
    ctx: click.Context, session: str, verify: bool, only: str | None, case: str | None, rounds: int, json_: bool
) -> None:
    """What would make a run faster, by how much at most, and, with --verify, whether it does.

    --verify runs the first advice that needs no more than a sweep axis (or the one named by --only) and its baseline as
    interleaved cases of one new session, and tells the predicted beside the measured gain.
    """
    from llava_tui.report import advice, analysis

    view, found = analysis.read(_find(ctx, session), _folder(ctx), case)
    if verify or only:
        from llava_tui import preflight

        tried = advice.chosen(found, only)
        plan = preflight.resolve(advice.trial(view, tried, rounds))
        preflight.check(plan)
        sys.exit(advice.verify(_folder(ctx), plan, view, found, tried, json_=json_))
    click.echo(advice.as_json(view, found) if json_ else advice.as_text(view, found))


@main.command(name="import")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--name", default="", help="A name for the session.")
@click.pass_context
def import_(ctx: click.Context, files: tuple[Path, ...], name: str) -> None:
    """Results of earlier benchmarks (JSON as AveragingProfiler writes it) as sessions; prints their ids."""
    from llava_tui.session.importing import import_file

    for file in files:
        click.echo(import_file(_folder(ctx), file, name).name)


# --- control ------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("session")
@click.argument("verb", type=click.Choice(["pause", "resume", "stop", "stop-now", "skip", "repeat", "extend"]))
@click.option("--case", default="", help="For skip and repeat. [default: the case that is running]")
@click.option("--rounds", type=int, default=1, show_default=True, help="For extend: how many more.")
@click.pass_context
def control(ctx: click.Context, session: str, verb: str, case: str, rounds: int) -> None:
    """Ask a running session's worker for something, and print its answer."""
    from llava_tui.report.progress import ask

    sys.exit(ask(_find(ctx, session), verb, case=case, rounds=rounds if verb == "extend" else 0))


# --- the machine --------------------------------------------------------------------------------------------------


@main.command(name="models")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
def models_(folders: tuple[Path, ...], json_: bool) -> None:
    """Local checkpoints (Hugging Face cache, and FOLDERS) and presets."""
    from llava_tui import models
    from llava_tui.report import listing

    entries = models.scan(folders)
    click.echo(listing.models_as_json(entries) if json_ else listing.models_as_text(entries))


@main.command()
@click.option("--json", "json_", is_flag=True, help="One JSON document on stdout.")
@click.option(
    "--measure-peaks", is_flag=True, help="Measure what this machine reaches at best, for the roofline; some seconds."
)
@click.pass_context
def doctor(ctx: click.Context, json_: bool, measure_peaks: bool) -> None:
    """What was found on this machine, and how to mend what is missing."""
    from llava_tui import doctor as room

    findings = room.peaks() if measure_peaks else room.examine(_folder(ctx))
    click.echo(room.as_json(findings) if json_ else room.as_text(findings))
