"""Several workers that measure one session together: how they meet, and how they keep step.

Each rank is a process with the whole model. Rank 0 decides what is run, the others do as it says. Before every run all
wait for each other, so that each is measured while all run, and after it all hear what came of it. What they say goes
through torch.distributed's gloo, on the host, whatever device the model is on; none of it is within a run's time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil

from llava_tui.session.text import safe_text
from llava_tui.worker.facts import boot_id
from llava_tui.worker.schedule import Planned

MEET_S = 300.0
"""How long ranks wait for each other at the start: each imports torch, from a disk that may be slow."""
FOREVER = timedelta(days=30)
"""gloo's own patience: a session may be paused over a weekend."""
BUFFER = 2048
"""Bytes that a word usually fits into, its length included."""
CUT_S = 30.0
"""How long the others may take to end a run that is to be cut short."""
LOOK_S = 0.25
"""How often a rank that waits looks whether the others live."""
SHORTEST_S, LONGEST_S = 50e-6, 5e-3
"""Between two looks at whether all have come: a twentieth of the wait so far, within these."""


log = logging.getLogger(__name__)


class RankLost(Exception):
    """A rank goes on no more, so none can: the message names it, and is the session's reason."""


class Over(Exception):
    """Rank 0 has ended the session."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class Word(msgspec.Struct, omit_defaults=True):
    """What a rank says when all speak."""

    planned: Planned | None = None
    """Of rank 0: the run that comes next."""
    final: str = ""
    """Of rank 0: the state that the session ends in."""
    lost: str = ""
    """Why this rank goes on no more."""
    outcome: str = "ok"
    reason: str = ""
    taken_back: str = ""
    """Why a run that went well is not to count."""
    untrusted: str = ""
    """Why the case's figures would not mean what they say."""
    refused: dict[str, str] = {}
    """Cases that cannot run, and why."""
    pid: int = 0
    session: str = ""
    """Of rank 0: the session's folder."""
    boot: str = ""
    """The machine, as its kernel tells it from others."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the ranks this process is."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """Among those of this machine: the number of its device."""

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}"

    def device(self, wanted: str) -> str:
        """The torch device of this rank where the plan says ``wanted``: each its own, as far as there are enough.
        Imports torch."""
        import torch

        kind = wanted
        if wanted == "auto":
            found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            kind = found.type if found is not None else "cpu"
        if kind in ("cpu", "meta") or ":" in kind:
            return kind
        count = torch.get_device_module(kind).device_count()
        if count and self.world > count:
            log.warning("%d ranks share %d %s devices: their figures are of a shared device", self.world, count, kind)
        return f"{kind}:{self.local % count}" if count else kind


ALONE = Place()


class Ranks:
    """The ranks of a session as one of them knows them; alone, it speaks to nobody and hears itself.

    Every method that lets all speak raises :class:`RankLost`, and on ranks above 0 :class:`Over`.
    """

    def __init__(self, place: Place = ALONE) -> None:
        self.place = place
        self.listen: Callable[[], None] = lambda: None
        """Called while this rank waits for others."""
        self.ending: Callable[[], bool] = lambda: False
        """Whether the session is to end in the middle of a run."""

    @property
    def leads(self) -> bool:
        """Whether this rank decides what is run."""
        return self.place.rank == 0

    def meet(self, session: str = "") -> str:
        """Waits for all ranks to come; gives the session's folder, which rank 0 tells."""
        return session

    def speak(self, word: Word) -> list[Word]:
        """What every rank says, by rank; returns when all have spoken."""
        return [word]

    def leave(self, state: str, reason: str) -> tuple[str, str]:
        """The session ends for this rank: tells the others, as far as they hear. Gives the state and the reason that it
        ends with."""
        return state, reason

    def part(self) -> None:
        """This rank has said its last word; on rank 0, returns when all have."""

    def dismiss(self) -> None:
        """Ends the others at once; from a thread while the model loads."""

    def interrupt(self) -> None:
        """Of rank 0: passes a signal on that asks for the end."""

    # --- what is said ------------------------------------------------------------------------------------------------

    def begin(self, planned: Planned) -> None:
        """Of rank 0: this run is the next."""
        if self.place.world > 1:
            self.speak(Word(planned=planned))

    def hear(self) -> Planned:
        """Of the others: the next run."""
        planned = self.speak(Word())[0].planned
        if planned is None:  # another version's
            raise RankLost("rank 0 speaks of something else")
        return planned

    def agree(self, outcome: str, reason: str, taken_back: str = "", untrusted: str = "") -> Word:
        """What all together make of a run, each having said what it made of its own: the worst, with whose it is."""
        own = Word(outcome=outcome, reason=reason, taken_back=taken_back, untrusted=untrusted)
        if self.place.world == 1:
            return own
        told = self.speak(own)
        told = [*told[self.place.rank :], *told[: self.place.rank]]  # of equally bad ones its own
        worst = max(told, key=lambda word: _GRAVITY.get(word.outcome, 3))
        return Word(
            outcome=worst.outcome,
            reason=worst.reason,
            taken_back=next((word.taken_back for word in told if word.taken_back), ""),
            untrusted=next((word.untrusted for word in told if word.untrusted), ""),
        )

    def refuse(self, refused: dict[str, str]) -> dict[str, str]:
        """Cases that some rank cannot run."""
        if self.place.world == 1:
            return refused
        return {case: why for word in reversed(self.speak(Word(refused=refused))) for case, why in word.refused.items()}


_GRAVITY = {"ok": 0, "broken-input": 1, "cancelled": 2, "failed": 3, "out-of-memory": 4}


class Together(Ranks):
    """Ranks that speak through gloo."""

    def __init__(self, place: Place, file: Path | None = None) -> None:
        """They find each other through ``file``, which none of them but rank 0 removes, or as the environment says that
        torchrun gives them."""
        super().__init__(place)
        self._file = file
        self._pids: list[int] = []
        self._met = False
        self._apart = False
        """A rank is lost: nobody hears what is said."""
        self._over = False
        """Rank 0 has said how it ends."""
        self._dist: Any = None
        self._torch: Any = None

    # --- meeting -----------------------------------------------------------------------------------------------------

    def meet(self, session: str = "") -> str:
        """Raises ``ImportError`` too. Imports torch."""
        import torch
        import torch.distributed as dist

        self._torch, self._dist = torch, dist
        # All are on this machine, and its name may lead nowhere.
        if "GLOO_SOCKET_IFNAME" not in os.environ and (loopback := _loopback()):
            os.environ["GLOO_SOCKET_IFNAME"] = loopback
        self._join()
        self._met = True
        told = self.speak(Word(pid=os.getpid(), session=session, boot=boot_id()))
        self._pids = [word.pid for word in told]
        if len({word.boot for word in told}) > 1:
            raise RankLost("the ranks are on several machines, whose clocks differ: record one session a machine")
        return told[0].session

    def _join(self) -> None:
        """In a thread: the main one hears signals, and sees who ends before all have come."""
        failure: list[BaseException] = []

        def join() -> None:
            try:
                store = self._dist.FileStore(str(self._file), self.place.world) if self._file is not None else None
                place = {"rank": self.place.rank, "world_size": self.place.world}
                self._dist.init_process_group("gloo", store=store, timeout=FOREVER, **place)
            except BaseException as error:  # noqa: BLE001 - told by the main thread
                failure.append(error)

        thread = threading.Thread(target=join, name="join", daemon=True)
        thread.start()
        until = time.monotonic() + MEET_S
        while thread.is_alive():
            thread.join(0.05)
            if dead := self._dead():
                raise RankLost(dead)
            if self.ending() or time.monotonic() > until:
                raise RankLost(f"{self.place}: not all ranks came within {MEET_S:g} s")
        if failure:
            raise RankLost(f"{self.place}: the ranks did not meet: {_line(failure[0])}")

    # --- speaking ----------------------------------------------------------------------------------------------------

    def speak(self, word: Word) -> list[Word]:
        try:
            return self._speak(word)
        except RankLost:
            self._apart = True
            raise
        except Over:
            self._over = True
            raise

    def _speak(self, word: Word) -> list[Word]:
        data = msgspec.json.encode(word)
        sizes = self._gather(len(data).to_bytes(8, "little") + data[: BUFFER - 8], BUFFER)
        lengths = [int.from_bytes(one[:8], "little") for one in sizes]
        if max(lengths) > BUFFER - 8:
            told = self._gather(data, max(lengths))
        else:
            told = [one[8:] for one in sizes]
        try:
            words = [_DECODER.decode(one[:length]) for one, length in zip(told, lengths, strict=True)]
        except msgspec.DecodeError as error:
            raise RankLost(f"the ranks speak differently: {_line(error)}; run one version of llava-tui") from None
        for rank, other in enumerate(words):
            if other.lost:
                raise RankLost(f"rank {rank}: {other.lost}")
        if words[0].final and not self.leads:
            raise Over(words[0].final, words[0].reason)
        return [
            msgspec.structs.replace(
                other,
                **{field: self._whose(rank, getattr(other, field)) for field in ("reason", "taken_back", "untrusted")},
                refused={case: self._whose(rank, why) for case, why in other.refused.items()},
            )
            for rank, other in enumerate(words)
        ]

    def _whose(self, rank: int, why: str) -> str:
        return f"rank {rank}: {why}" if why and rank != self.place.rank else why

    def _gather(self, data: bytes, size: int) -> list[bytes]:
        torch = self._torch
        own = torch.frombuffer(bytearray(data.ljust(size, b"\0")), dtype=torch.uint8)
        all_ = [torch.empty(size, dtype=torch.uint8) for _ in range(self.place.world)]
        try:
            self._wait(self._dist.all_gather(all_, own, async_op=True))
        except RankLost:
            raise
        except Exception as error:  # noqa: BLE001 - gloo raises what it likes when the other end is gone
            raise RankLost(self._who_died(error)) from None
        return [bytes(one.numpy()) for one in all_]

    def _wait(self, work: Any) -> None:
        began = looked = time.monotonic()
        asked = 0.0
        while not work.is_completed():
            self.listen()
            now = time.monotonic()
            if now - looked > LOOK_S:
                looked = now
                if dead := self._dead():
                    raise RankLost(dead)
            if self.ending():
                asked = asked or now
                if now - asked > CUT_S:
                    raise RankLost(f"another rank did not end its run within {CUT_S:g} s")
            time.sleep(min(max((now - began) / 20, SHORTEST_S), LONGEST_S))
        work.wait()

    # --- who lives ---------------------------------------------------------------------------------------------------

    def _dead(self) -> str:
        """Which rank has ended, and how; "" while all live."""
        for rank, pid in enumerate(self._pids):
            if rank != self.place.rank and not _lives(pid):
                return f"rank {rank} (process {pid}) died; see worker.log"
        return ""

    def _who_died(self, error: BaseException) -> str:
        # Its connections close before it is gone.
        until = time.monotonic() + 2.0
        while not (dead := self._dead()) and time.monotonic() < until:
            time.sleep(0.01)
        return dead or f"another rank left: {_line(error)}"

    def interrupt(self) -> None:
        for pid in self._pids[1:]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    # --- the end -----------------------------------------------------------------------------------------------------

    def leave(self, state: str, reason: str) -> tuple[str, str]:
        self.listen, self.ending = lambda: None, lambda: True  # nobody is waited for without end
        if self._met and not (self._apart or self._over):
            word = Word(final=state, reason=reason[:1000]) if self.leads else Word(lost=reason[:1000])
            try:
                self.speak(word)
            except RankLost as lost:
                if state in ("closed", "stopped"):
                    state, reason = "failed", str(lost)
            except Over:
                pass
        return state, reason

    def part(self) -> None:
        if self._met and not self._apart:
            with contextlib.suppress(RankLost, Over):
                self.speak(Word())

    def dismiss(self) -> None:
        if self.leads:
            for pid in self._pids[1:]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGTERM)


_DECODER = msgspec.json.Decoder(Word)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return safe_text(lines[0] if lines else type(error).__name__, 300)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _loopback() -> str:
    return next((name for name in psutil.net_if_stats() if name in ("lo", "lo0")), "")
