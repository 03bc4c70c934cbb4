"""What the worker says while a session goes on: events in order, each state once, the schedule whenever it changed."""

from __future__ import annotations

from llava_tui.events import Event, StateChange
from llava_tui.session.reader import safe_text
from llava_tui.worker.clock import Clock
from llava_tui.worker.outcome import REASON_LIMIT
from llava_tui.worker.schedule import Schedule
from llava_tui.worker.sink import EventSink


class Journal:
    """The events stream, the session's clock and the state that the session is in."""

    def __init__(self, sink: EventSink, clock: Clock, schedule: Schedule) -> None:
        self.sink = sink
        self.clock = clock
        """The host's at first; that of the device once a model is on it."""
        self.schedule = schedule
        self.state = ""
        self.reason = ""
        self._rule = schedule.rule

    def now(self) -> int:
        """ns on the session's clock."""
        return self.clock.now()

    def write(self, event: Event) -> None:
        """One event. Raises :class:`~llava_tui.worker.sink.StreamLost`."""
        self.sink.write(event)

    def enter(self, state: str, reason: str = "") -> None:
        """The session is in that state from here on."""
        if state != self.state:
            self.state, self.reason = state, reason
            self.write(StateChange(t=self.now(), state=state, reason=safe_text(reason, 2 * REASON_LIMIT)))

    def tell_schedule(self) -> None:
        """What is to be run, as it stands."""
        self._rule = self.schedule.rule
        self.write(self.schedule.event(self.now()))

    def tell_rule(self) -> None:
        """The schedule, if another rule holds than when it was told, or fewer runs are to come."""
        if self.schedule.rule != self._rule or self.schedule.untold:
            self.tell_schedule()
