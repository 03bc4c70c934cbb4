"""What viewers ask of the worker, heard between two tokens and answered at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llava_tui.events import Answer, Command, Event
from llava_tui.session.control import CommandReader
from llava_tui.session.reader import safe_text
from llava_tui.units import counted
from llava_tui.worker.clock import Clock
from llava_tui.worker.schedule import Schedule

log = logging.getLogger(__name__)

POLL_NS = 20_000_000
"""Control is looked at this often at most; far below the 200 ms in which an answer is promised."""
MOST_ROUNDS = 100_000

LAST_RUN = "the profiled run has begun: nothing is measured after it"

Reply = tuple[bool, str]


class Control:
    """Reads ``control.jsonl``, answers each command, and holds what they ask for until the course acts on it.

    Any thread may poll: the course itself, or a :class:`~llava_tui.worker.listener.Listener`.
    """

    def __init__(self, reader: CommandReader, write: Callable[[Event], None], clock: Clock, schedule: Schedule) -> None:
        self.paused = False
        self.stop = ""
        """Why the session is to end after this run; "" while it is not."""
        self.stop_now = ""
        """Why it is to end in the middle of this run."""
        self.current = ""
        """The case that is running, or ran last."""
        self._reader = reader
        self._write = write
        self._clock = clock
        self._schedule = schedule
        self._lock = threading.Lock()
        self._looked = 0
        self._interrupt = ""
        self._corrupt = 0
        self._over = False
        self._answered = 0
        """Commands to come that have an answer already."""
        self._untold = False
        """Whether one of those has changed the schedule."""

    @property
    def ending(self) -> bool:
        """Whether no further run is to begin."""
        return bool(self.stop or self.stop_now)

    def interrupt(self, reason: str) -> None:
        """A signal asks for the end, now. Only notes it: a signal handler may have cut into anything."""
        self._interrupt = reason

    @property
    def interrupted(self) -> bool:
        """Whether a signal asks for the end."""
        return bool(self._interrupt)

    def finish(self) -> None:
        """The last look: nothing is accepted any more."""
        self._over = True
        self.look()

    def poll(self) -> None:
        """Answers what has come in, if it is time to look again. About 0.1 µs where it is not, 2 µs where it is."""
        if time.monotonic_ns() - self._looked >= POLL_NS:
            self.look()

    def replay(self, count: int) -> None:
        """The first ``count`` commands have their answers: what they ask for holds, and only the schedule is told, if
        it is another one now. Then answers what else has come in."""
        self._answered = count
        self.look()
        self._answered = 0
        if self._untold:
            self._untold = False
            self._write(self._schedule.event(self._clock.now()))

    def look(self) -> None:
        """Answers what has come in."""
        with self._lock:
            self._looked = time.monotonic_ns()
            if self._interrupt and not self.stop_now:
                self.stop_now = self._interrupt
            for command in self._reader.read():
                self._answer(command)
            if self._reader.corrupt > self._corrupt:
                bad, self._corrupt = self._reader.corrupt - self._corrupt, self._reader.corrupt
                log.warning("control: %d line%s ignored: no command", bad, "" if bad == 1 else "s")

    def _answer(self, command: Command) -> None:
        handle = {
            "pause": self._pause,
            "resume": self._resume,
            "stop": self._stop,
            "stop-now": self._stop_now,
            "skip": self._skip,
            "repeat": self._repeat,
            "extend": self._extend,
        }.get(command.verb)
        if handle is None:
            known = "pause, resume, stop, stop-now, skip, repeat, extend"
            accepted, text = False, f"no such command: {safe_text(command.verb, 40)!r}; there are {known}"
        elif self._over:
            accepted, text = False, "the session is over"
        elif self.ending and command.verb != "stop-now":
            accepted, text = False, "the session is ending"
        else:
            accepted, text = handle(command)
        changed = accepted and command.verb in ("skip", "repeat", "extend")
        if self._answered > 0:
            self._answered -= 1
            self._untold |= changed
            return
        author = safe_text(command.author, 200)
        verb = safe_text(command.verb, 40)
        now = self._clock.now()
        self._write(Answer(t=now, id=command.id, verb=verb, accepted=accepted, text=text, author=author))
        if changed:
            self._write(self._schedule.event(now))

    # --- one method a verb -------------------------------------------------------------------------------------------

    def _pause(self, command: Command) -> Reply:
        if self.paused:
            return False, "already paused"
        self.paused = True
        return True, "pauses after this run"

    def _resume(self, command: Command) -> Reply:
        if not self.paused:
            return False, "not paused"
        self.paused = False
        return True, "goes on"

    def _stop(self, command: Command) -> Reply:
        self.stop = f"stopped by {safe_text(command.author, 200) or 'a viewer'}"
        return True, "stops after this run"

    def _stop_now(self, command: Command) -> Reply:
        if self.stop_now:
            return False, "the session is ending"
        self.stop_now = f"stopped by {safe_text(command.author, 200) or 'a viewer'}"
        return True, "stops in the middle of this run"

    def _skip(self, command: Command) -> Reply:
        case, problem = self._case(command)
        if problem:
            return False, problem
        left = self._schedule.skip(case)
        return True, f"{case}: {left} remaining runs left out"

    def _repeat(self, command: Command) -> Reply:
        case, problem = self._case(command)
        if problem:
            return False, problem
        if self._schedule.over:
            return False, LAST_RUN
        if self._schedule.is_away(case):
            return False, f"{case}: its model is not in memory now"
        self._schedule.repeat(case)
        return True, f"{case}: one run more"

    def _extend(self, command: Command) -> Reply:
        if not 1 <= command.rounds <= MOST_ROUNDS:
            return False, f"rounds: {command.rounds} is outside 1…{MOST_ROUNDS}"
        if all(case.id in self._schedule.skipped for case in self._schedule.active):
            return False, "every case is left out; there is nothing to run more rounds of"
        if self._schedule.over:
            return False, LAST_RUN
        self._schedule.extend(command.rounds)
        most = "at most " if self._schedule.open_ended else ""
        return True, f"{counted(command.rounds, 'more round')}: {most}{self._schedule.rounds} in all"

    def _case(self, command: Command) -> tuple[str, str]:
        """The case that is meant, or why there is none."""
        case = safe_text(command.case, 100) or self.current
        if not case:
            return "", "no case is running yet; name one"
        if case not in self._schedule.cases:
            return case, f"no case {case!r}; there are {', '.join(self._schedule.cases)}"
        if case in self._schedule.dropped:
            return case, f"{case} takes no further part: {self._schedule.dropped[case]}"
        if case in self._schedule.skipped:
            return case, f"{case} is left out already"
        return case, ""
