"""What time it is for a viewer: the ``t`` at which the session is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class ViewerClock(Protocol):
    """Tells the ``t`` to draw, on the session's own axis."""

    def now(self) -> int:
        """Nanoseconds on the session's clock."""

    def saw(self, newest: int) -> None:
        """The session's newest event is of ``newest``; told whenever something was read."""


class LiveClock:
    """The newest event's ``t`` plus what this viewer has waited since it read it.

    So that a viewer on another machine needs no agreed clock. ``rate`` is session seconds a second that is waited:
    1 for a measured session, 1 / time_scale for a simulated one, 0 where nothing is known of the time between events.
    """

    def __init__(self, newest: int, *, rate: float = 1.0, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic = monotonic
        self._rate = rate
        self._newest = newest
        self._read = monotonic()
        self._shown = newest

    def now(self) -> int:
        """Never goes back, though an event may turn out to be older than what was waited."""
        now = self._newest + int((self._monotonic() - self._read) * self._rate)
        self._shown = max(self._shown, now)
        return self._shown

    def saw(self, newest: int) -> None:
        if newest > self._newest:
            self._newest = newest
            self._read = self._monotonic()
