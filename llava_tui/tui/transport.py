"""Where in a session's time a viewer is: at what is happening now, behind it, or in a session that is over."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llava_tui.tui.clock import LiveClock
from llava_tui.units import clock

SLOWEST, FASTEST = 0.25, 64.0
"""Session seconds a second."""

Loop = Literal["", "run", "session"]


@dataclass(frozen=True, slots=True)
class Playback:
    """What the screen says of a :class:`Transport`; times in ns on the session's clock."""

    t: int = 0
    """What is drawn."""
    live: bool = False
    following: bool = False
    """Whether the picture is of what is happening now."""
    playing: bool = False
    """Whether it moves of itself, behind a live session's newest or in one that is over."""
    speed: float = 1.0
    loop: Loop = ""
    edge: int = 0
    """The latest ``t`` there is to see."""

    @property
    def moving(self) -> bool:
        return self.following or self.playing

    @property
    def behind(self) -> int | None:
        """How far behind what is happening now, ns; ``None`` where it is followed or over."""
        return self.edge - self.t if self.live and not self.following else None


class Transport:
    """A :class:`~llava_tui.tui.clock.ViewerClock` that can be held, sought and played.

    A live session is *followed*: the time is the live clock's. Any seek back leaves that, and the time stands; played
    from there it goes at the session's own pace, or ``speed`` times that, until it has caught up. A session that is
    over begins at its end, and stands.
    """

    def __init__(
        self,
        start: int,
        end: int,
        *,
        live: bool = False,
        rate: float = 1.0,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``start``, ``end``: the session's, so far. ``rate``: session seconds a second while it is live (see
        :class:`~llava_tui.tui.clock.LiveClock`). ``monotonic`` tells nanoseconds of a clock that never goes back."""
        self.start = start
        self.speed = 1.0
        self.loop: Loop = ""
        self.run = (start, end)
        """From when to when the run goes that ``loop`` plays, ns."""
        self._clock = monotonic
        self._instant: int | None = None
        self._rate = rate
        self._end = end
        self._at = end
        self._since: int | None = None
        """When the time was ``_at`` while it is playing; ``None`` while it is held."""
        self._live: LiveClock | None = None
        self._following = False
        if live:
            self._live = self._live_clock()
            self.follow()

    # --- what is ----------------------------------------------------------------------------------------------------

    @property
    def edge(self) -> int:
        """The latest ``t`` there is to see: of a live session now, else its end."""
        return self._end if self._live is None else self._live.now()

    def now(self) -> int:
        """The ``t`` to draw, ns. Reaching an end is noticed here: a replay holds there, a loop begins again, a live
        session is followed."""
        if self._following:
            return self.edge
        if self._since is None:
            return self._at
        t = self._at + int((self._monotonic() - self._since) * self._pace)
        first, last = self._looped()
        if t < last:
            return t
        if self.loop and first < last:
            return self._place(first + (t - first) % (last - first))
        if self._live is not None:
            return self.follow()
        self._since = None
        return self._place(last)

    def playback(self) -> Playback:
        """What is to be drawn and said of it, at one instant."""
        self._instant = self._clock()
        try:
            return Playback(
                t=self.now(),  # first: it may change the rest
                live=self._live is not None,
                following=self._following,
                playing=self._since is not None,
                speed=self.speed,
                loop=self.loop,
                edge=self.edge,
            )
        finally:
            self._instant = None

    def _monotonic(self) -> int:
        return self._clock() if self._instant is None else self._instant

    @property
    def _pace(self) -> float:
        """Session seconds a second. Beside a live session as fast as that, so that it stays as far behind."""
        return self.speed * (self._rate or 1.0) if self._live is not None else self.speed

    def _looped(self) -> tuple[int, int]:
        """From where to where it plays."""
        edge = self.edge
        if self.loop != "run":
            return self.start, edge
        return self.run[0], min(self.run[1], edge)

    # --- what happens -----------------------------------------------------------------------------------------------

    def saw(self, newest: int) -> None:
        """The session's newest event is of ``newest``, ns. A picture of the end stays one."""
        at_end = self._live is None and self._since is None and self._at >= self._end
        self._end = max(self._end, newest)
        if self._live is not None:
            self._live.saw(newest)
        elif at_end:
            self._at = self._end

    def went(self, *, live: bool) -> None:
        """The worker came or went. Who followed it stands at the session's end; who had scrolled back stays there."""
        if live == (self._live is not None):
            return
        t = self.now()
        if live:
            at_end = self._since is None and t >= self._end
            self._place(t)
            self._live = self._live_clock()
            if at_end:
                self.follow()
            return
        followed, self._following, self._live = self._following, False, None
        self._place(self._end if followed else min(t, self._end))

    # --- what is asked ----------------------------------------------------------------------------------------------

    def seek(self, t: int) -> None:
        """To ``t``, as far as there is one. What was playing goes on from there; what was followed stands there, unless
        it is still what is happening now."""
        edge = self.edge
        if self._live is not None and t >= edge:
            self.follow()
            return
        if self._following:
            self._following, self._since = False, None
        self._place(min(max(t, self.start), edge))

    def to_end(self) -> None:
        """To the end, where it stands; of a live session to what is happening now."""
        self.loop = ""
        self.seek(self.edge)
        if self._live is None:
            self._since = None

    def hold(self) -> None:
        """The picture stands."""
        self._place(self.now())
        self._following, self._since = False, None

    def play(self) -> None:
        """Time goes on, from the start where it had come to the end."""
        if self._following or self._since is not None:
            return
        first, last = self._looped()
        if self._at >= last and (self._live is None or self.loop):
            self._at = first
        self._since = self._monotonic()

    def play_or_hold(self) -> None:
        """The one that it is not."""
        if self._following or self._since is not None:
            self.hold()
        else:
            self.play()

    def set_speed(self, speed: float) -> None:
        """Session seconds a second, from :data:`SLOWEST` to :data:`FASTEST`. What is followed keeps its own pace."""
        t = self.now()
        if not self._following:
            self._place(t)
            self.speed = min(max(speed, SLOWEST), FASTEST)

    def loop_over(self, loop: Loop) -> None:
        """Plays :attr:`run` or the whole session again and again; "": no more."""
        t = self.now()
        self.loop = loop
        if not loop:
            return
        first, last = self._looped()
        if self._following or not first <= t < last:
            t, self._following = first, False
        self._place(t)
        self._since = self._monotonic()

    def follow(self) -> int:
        """Shows what is happening now. Returns its ``t``."""
        self._following, self._since = True, None
        self.speed, self.loop = 1.0, ""
        return self.edge

    def _live_clock(self) -> LiveClock:
        return LiveClock(self._end, rate=self._rate, monotonic=self._monotonic)

    def _place(self, t: int) -> int:
        """At ``t``, playing on if it was."""
        self._at = t
        if self._since is not None:
            self._since = self._monotonic()
        return t


# --- time codes -----------------------------------------------------------------------------------------------------

_CODE = re.compile(r"([-−]?)(?:(?:([0-9]{1,4}):)?([0-9]{1,6}):)?([0-9]{1,9}(?:\.[0-9]{1,9})?)")
FORMS = "12.5, 1:30, 1:02:03, or −5 from the end"


@dataclass(frozen=True, slots=True)
class Moment:
    """A time within a session: ns after its start, or before its end."""

    ns: int
    from_end: bool = False

    def on(self, start: int, end: int) -> int:
        """The ``t`` that it is in a session from ``start`` to ``end``."""
        return end - self.ns if self.from_end else start + self.ns

    def within(self, start: int, end: int) -> int:
        """As :meth:`on`. Raises :class:`ValueError` where the session has no such time."""
        t = self.on(start, end)
        if not start <= t <= end:
            raise ValueError(f"there is no such time: the session is {clock(end - start)} long")
        return t


def moment(text: str) -> Moment:
    """What a time code says: ``12.5`` (seconds), ``1:30``, ``1:02:03``; with a minus before the end.

    Raises :class:`ValueError`, which says what would be one.
    """
    text = text.strip()
    found = _CODE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time: {FORMS}")
    sign, hours, minutes, seconds = found.groups()
    if minutes is not None and (float(seconds) >= 60 or (hours is not None and int(minutes) >= 60)):
        raise ValueError(f"{text!r} is no time: minutes and seconds end at 59")
    whole, _, part = seconds.partition(".")
    total = (int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(whole)
    return Moment(total * 1_000_000_000 + int(part.ljust(9, "0")), bool(sign))
