"""A worker that somebody starts by hand: ``python -m llava_tui.worker --plan PLAN.toml``, alone or as one of the ranks
that ``torchrun`` or ``accelerate launch`` starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from llava_tui.plan import PlanError, from_dict, read_file
from llava_tui.session import store
from llava_tui.session.launch import WORKER_LOG, remove_unborn
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session_files import Notes
from llava_tui.worker.ranks import ALONE, Place, RankLost, Ranks, Together


def place_in(environment: Mapping[str, str]) -> Place:
    """This process among the ranks that a launcher started, as torchrun tells it: RANK, WORLD_SIZE, LOCAL_RANK,
    LOCAL_WORLD_SIZE. Raises :class:`PlanError` where they cannot measure together."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE
    try:
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local, here = (
            int(environment.get(name, own)) for name, own in (("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", world))
        )
        restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
    except ValueError as error:
        raise PlanError(f"RANK, WORLD_SIZE, LOCAL_RANK: {error}; start it with torchrun or accelerate launch") from None
    if not 0 <= rank < world:
        raise PlanError(f"RANK {rank} is none of {world}")
    if here != world:
        raise PlanError(
            f"{world} ranks on several machines: each has a clock of its own; start one session a machine (--nnodes 1)"
        )
    if restarts:
        raise PlanError(
            "a session is recorded in one go, and this is a restart of its workers; start it with --max-restarts 0"
        )
    return Place(rank, world, local)


def main(plan_file: Path, sessions: str | None, argv: list[str]) -> int:
    """Makes a session and records it. Returns the exit code: 0 closed or stopped, 2 never begun, 3 failed."""
    from llava_tui.worker.main import follow, lead

    try:
        place = place_in(os.environ)
    except PlanError as error:
        return _refused(str(error), os.environ.get("RANK", "0") == "0")
    if place.rank:
        ranks = Together(place)
        try:
            folder = Path(ranks.meet())
        except (RankLost, ImportError) as error:
            return _refused(f"rank {place.rank}: {error}", True)
        _redirect(folder)
        return follow(folder, ranks)
    folder_of_sessions = store.sessions_folder(sessions)
    try:
        from llava_tui.starting import prepared_aside

        values = read_file(plan_file)
        if place.world > 1:
            values["processes"] = place.world
        plan = prepared_aside(from_dict(values))
        folder = store.create(folder_of_sessions, plan.name or plan.slug())
        if plan.name or plan.tags:
            store.set_notes(folder, Notes(name=plan.name, tags=plan.tags))
    except (PlanError, SessionError) as error:
        return _refused(str(error), True)
    said = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")

    def ready(problem: str = "") -> None:
        if problem:
            print(f"llava-tui: {safe_text(problem)}", file=said, flush=True)
            remove_unborn(folder)
            return
        print(f"session {folder}\n`llava-tui attach {folder}` shows it", file=said, flush=True)
        _redirect(folder)

    if place.world == 1 and plan.processes > 1:
        from llava_tui.worker.children import Parent

        code = lead(folder, plan, argv, ready, Parent(folder, plan.processes))
    else:
        code = lead(folder, plan, argv, ready, Together(place) if place.world > 1 else Ranks())
    if code != 2:
        info = store.info(folder)
        print(f"{info.status}" + (f": {info.reason}" if info.reason else ""), file=said, flush=True)
    return code


def _refused(problem: str, told: bool) -> int:
    if told:  # once, not once a rank
        print(f"llava-tui: {safe_text(problem)}", file=sys.stderr)  # noqa: T201
    return 2


def _redirect(folder: Path) -> None:
    """What libraries print goes to worker.log, of all ranks together."""
    log = os.open(folder / WORKER_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
