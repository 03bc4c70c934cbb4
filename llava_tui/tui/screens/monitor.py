"""The monitor: one session, live or ended, drawn at the time its clock tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.geometry import Region
from textual.timer import Timer

from llava_tui.tui import actions
from llava_tui.tui.screens.replaying import Replaying
from llava_tui.tui.screens.run_control import RunControl
from llava_tui.tui.transport import Moment, Transport
from llava_tui.tui.widgets.arrangement import SIDE_BY_SIDE, Wants, arrange
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import fit
from llava_tui.units import clock

if TYPE_CHECKING:
    from llava_tui.session.source import Source
    from llava_tui.session.timeline import Timeline
    from llava_tui.tui.widgets.look import Look

STATUS_EVERY_S = 1.0
"""How often it is asked whether the worker is still there."""
EVERY_S = {"steps": 1.0, "gauges": 1.0, "strips": 0.5, "output": 0.5}
"""Parts that are drawn less often than others while live: nobody reads sixty figures four times a second."""
EVERY_WHEN_BRISK_S = EVERY_S | {"run": 1.0, "output": 1.0, "log": 1.0}
"""Where runs are too short to be watched one by one."""
SHARE = 0.02
"""Of the time, at most, for drawing one part: the table of some thousand runs takes a while to work out."""
SHARE_OF_REPLAY = 0.1
"""The same where a session that is over is played."""
MANY_RUNS = 2000
"""From here on what moments are drawn from is worked out ahead, beside the first of them."""

Paint = Callable[[list[tuple[LineCanvas, list[Region]]]], None]


def refresh(changes: list[tuple[LineCanvas, list[Region]]]) -> None:
    """Has Textual repaint what changed."""
    for canvas, regions in changes:
        canvas.refresh(*regions)


class MonitorScreen(Replaying, RunControl):
    """Polls the session, draws the view at the clock's time, sends what the keys ask."""

    CSS = """
    MonitorScreen { layout: vertical; overflow: hidden; }
    MonitorScreen #texts { height: 0; }
    """
    NAME = "monitor"
    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.bindings("monitor"),
        Binding("ctrl+c", "act('quit')", show=False, priority=True),
    ]

    def __init__(
        self,
        path: Path,
        *,
        source: Source | None = None,
        fps: float = 4.0,
        low_bandwidth: bool = False,
        at: Moment | None = None,
        speed: float | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
        paint: Paint | None = None,
    ) -> None:
        """Shows the session in folder ``path``, at most ``fps`` paints a second. ``source`` is where it comes from, if
        not from there alone; it is the caller's to close. ``low_bandwidth``: one paint at most, each part less often,
        and a time axis that moves in larger steps. It begins with what is happening now, with the end of a session that
        is over; or held at ``at``; or, with ``speed``, played from there, else from the start. ``monotonic`` tells
        nanoseconds of a clock that never goes back. ``paint`` is told what changed, if Textual is not to repaint it."""
        super().__init__(path, source)
        self._fps = min(fps, 1.0) if low_bandwidth else fps
        self._slower = 3.0 if low_bandwidth else 1.0
        self._paint = paint or refresh
        self._page = 0.5 if low_bandwidth else 0.25
        self._first = (at, speed)
        self._monotonic = monotonic
        self._drawn: dict[str, tuple[object, float]] = {}
        """Of each part: what its drawing depended on, and until when it is good enough (s)."""
        self._wants: tuple[int, int, Wants] | None = None
        self._status_asked = 0
        self._ticking: Timer | None = None
        self._footing: object = None
        """What the footer's titles depended on."""
        self._case = ""
        """The case that was shown last."""

    # --- building ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """The parts, top to bottom; :func:`arrange` says how many lines each has."""
        for name in ("heading", "steps", "run", "gauges", "strips"):
            yield LineCanvas(id=name)
        with Horizontal(id="texts"):
            yield LineCanvas(id="output")
            yield LineCanvas(id="log")
        yield LineCanvas(id="transport")
        yield LineCanvas(id="footer")

    def on_mount(self) -> None:
        """Paints at once, and opens the session aside: a large one takes seconds."""
        self._resize(Wants())
        width = self.app.size.width
        self.query_one("#heading", LineCanvas).begin([fit([(f" opening {self.path.name} …", "strong")], width)])
        self.query_one("#footer", LineCanvas).begin([self.footer_line(width)])
        self.call_after_refresh(
            threading.Thread(target=self._open, args=(self.app,), name="open-session", daemon=True).start
        )

    def _open(self, app: App[Any]) -> None:
        """In a thread of its own: reads the session, and imports what drawing it needs."""
        opened: Timeline | Exception
        try:
            from llava_tui.session.timeline import Timeline
            from llava_tui.tui.widgets import panels  # noqa: F401

            opened = Timeline.open(self.path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown instead of the session
            opened = error
        if app.is_running:
            app.call_later(self._show_opened, opened)

    def _show_opened(self, opened: Timeline | Exception) -> None:
        if not self.is_attached:  # it was left meanwhile
            return
        if isinstance(opened, Exception):
            self.tui.refused(str(opened))
            return
        from llava_tui.tui.widgets.look import Look

        self.timeline = opened
        self.look = Look(page=self._page)
        self._drawn.clear()
        self._ask_status()
        self.transport = Transport(
            opened.start, opened.end, live=self.look.live, rate=clock_rate(opened), monotonic=self._monotonic
        )
        self._begin(self.transport)
        self.draw_footer()
        self.redraw()
        if self._ticking is None:
            self._ticking = self.set_interval(1 / self._fps, self.tick)
        if not self.look.live and opened.runs.n >= MANY_RUNS:
            from llava_tui.tui.widgets.panels import prepare

            threading.Thread(target=prepare, args=(opened,), name="prepare-jumps", daemon=True).start()

    def _begin(self, transport: Transport) -> None:
        """Where it was asked to begin."""
        at, speed = self._first
        if at is not None:
            t = at.on(transport.start, transport.edge)
            transport.seek(t)
            if transport.now() != t:
                self.notice(f"there is no such time: the session is {clock(transport.edge - transport.start)} long")
        elif speed is not None:
            transport.seek(transport.start)
        if speed is not None:
            transport.set_speed(speed)
            transport.play()

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One look: what is new, who is there, what has changed."""
        if self.timeline is None or self.transport is None or self.look is None:
            return
        if self.path != self.source.path:
            # Another session has begun in its place.
            self.path = self.source.path
            self._status_asked = 0
            threading.Thread(target=self._open, args=(self.app,), name="open-session", daemon=True).start()
        if self.look.live and self.timeline.poll():
            self.transport.saw(self.timeline.end)
        self._ask_status()
        if self.app.screen is self:
            self.redraw(at_once=False)

    def _ask_status(self) -> None:
        """From the lock, at most once a second. A worker that ended leaves a session that stands still."""
        if self.look is None or self.timeline is None:
            return
        now = time.monotonic_ns()
        if self._status_asked and now - self._status_asked < STATUS_EVERY_S * 1e9:
            return
        self._status_asked = now
        was_live = self.look.live
        self.look.status = self.source.status()
        self._tell_of_the_line(self.look)
        if self.transport is not None and was_live != self.look.live:
            # Its last words may have come after the last poll.
            if self.timeline.poll():
                self.transport.saw(self.timeline.end)
            self.transport.went(live=self.look.live)
            self.draw_footer()

    def _tell_of_the_line(self, look: Look) -> None:
        """What hinders the session's way to here, when that changes."""
        told = [(remark, "warning") for remark in self.source.remarks()]
        if (line := self.source.line()) != look.line:
            look.line = line
            told.append((line, "warning") if line else ("connected again", "info"))
        for text, level in told:
            self.notice(text, level)

    # --- drawing ----------------------------------------------------------------------------------------------------

    def redraw(self, *, at_once: bool = True) -> None:
        """Every part whose drawing may have changed; without ``at_once``, slow parts wait for their turn."""
        timeline, look, transport = self.timeline, self.look, self.transport
        if timeline is None or look is None or transport is None:
            return
        from llava_tui.tui.widgets.panels import PANELS, wants

        self.settle_answers()
        play = look.playback = transport.playback()
        view = timeline.at(play.t)
        if (footing := (timeline.answers.n, timeline.states.n, play.moving)) != self._footing:
            self._footing = footing
            self.draw_footer()
        if self._resize(wants(view, look)):
            # Sizes are known after the layout.
            self.call_after_refresh(self.redraw)
            return
        changes: list[tuple[LineCanvas, list[Region]]] = []
        now = self._monotonic() / 1e9
        # Where time stands, what was held back is caught up with.
        case = look.case_of(view)
        turned, self._case = case != self._case, case  # then no part is left of the case before
        every = {} if at_once or turned or not play.moving else EVERY_WHEN_BRISK_S if look.brisk(view) else EVERY_S
        share = SHARE if look.live else SHARE_OF_REPLAY
        for name, (draw, key) in PANELS.items():
            canvas = self.query_one("#" + name, LineCanvas)
            width, height = canvas.size
            if not height or not width:
                continue
            new = (width, height, key(view, look))
            old, good_until = self._drawn.get(name, (None, 0.0))
            if old == new or (name in every and now < good_until):
                continue
            began = time.perf_counter()
            if regions := canvas.change(draw(view, look, width, height)):
                changes.append((canvas, regions))
            # A little early rather than a tick late.
            wait = max(every.get(name, 0.0) * self._slower - 0.5 / self._fps, (time.perf_counter() - began) / share)
            self._drawn[name] = (new, now + wait)
        if changes:
            self._paint(changes)

    def _resize(self, wants: Wants) -> bool:
        """Gives every part its lines; whether any changed."""
        width, height = self.app.size
        if self._wants == (width, height, wants):
            return False
        self._wants = (width, height, wants)
        lines = arrange(width, height, wants)
        beside = width >= SIDE_BY_SIDE
        for name, count in lines.items():
            canvas = self.query_one("#" + name, LineCanvas)
            canvas.styles.height = count
            canvas.display = count > 0
        texts = self.query_one("#texts", Horizontal)
        texts.styles.layout = "horizontal" if beside else "vertical"
        texts.styles.height = lines["log"] if beside else lines["output"] + lines["log"]
        texts.display = bool(lines["log"] or lines["output"])
        self._drawn.clear()
        return True

    def on_resize(self) -> None:
        """Another size, another arrangement."""
        if self._wants is not None:
            self._resize(self._wants[2])
            self.call_after_refresh(self._after_resize)

    def _after_resize(self) -> None:
        self._drawn.clear()
        self.draw_footer()
        self.redraw()

    # --- actions ----------------------------------------------------------------------------------------------------

    def conditions(self) -> set[str]:
        """What can be done depends on whether there is a worker to ask."""
        return {"live", "sent"} if self.live else set()

    def renamed(self) -> dict[str, str]:
        """What a key does next: a run that is paused goes on with the same key, as does a picture that is held."""
        titles = {"play": "hold" if self._moving() else "play"}
        return titles | {"pause": "go on"} if self.pausing() else titles

    def _moving(self) -> bool:
        return self.transport is not None and self.transport.playback().moving

    def do_case(self) -> None:
        """The next case's table; after the last, whichever is running."""
        view, look = self.view, self.look
        if view is None or look is None:
            return
        from llava_tui.analysis.steps import case_ids

        cases = case_ids(view)
        order = ["", *cases]
        at = order.index(look.case) if look.case in order else 0
        look.case = order[(at + 1) % len(order)]
        self.redraw()

    def do_zoom_in(self) -> None:
        """About half the time in the strip."""
        self._zoom(1)

    def do_zoom_out(self) -> None:
        """About twice the time in the strip."""
        self._zoom(-1)

    def _zoom(self, by: int) -> None:
        view, look = self.view, self.look
        if view is None or look is None:
            return
        from llava_tui.tui.widgets.strips import zoom_range

        furthest, nearest = zoom_range(view, look, self.app.size.width)
        look.zoom = min(max(look.zoom + by, furthest), nearest)
        self.redraw()

    def do_gpu(self) -> None:
        """The next GPU alone in the strip; after the last, all of them."""
        view, look = self.view, self.look
        if view is None or look is None:
            return
        order = [None, *sorted(view.devices)]
        at = order.index(look.gpu) if look.gpu in order else 0
        look.gpu = order[(at + 1) % len(order)]
        self.redraw()

    def do_quit(self) -> None:
        """Leaves; a live run goes on."""
        from llava_tui.session.store import LIVE

        goes_on = self.source.status() in LIVE
        again = f"; {self.source.again}" if self.source.again else ""
        self.app.exit(message=f"detached: the run goes on{again}" if goes_on else None)

    do_detach = do_quit

    def do_compare(self) -> None:
        """With the pinned baseline, if there is one; else its cases."""
        self.tui.open_compare([str(self.path)])

    def do_analysis(self) -> None:
        """What this session says."""
        self.tui.open_analysis(self.path, self.look.case if self.look is not None else "")

    def do_pin(self) -> None:
        """This session becomes the baseline of its folder. A copy of one that is elsewhere is in no folder."""
        from llava_tui.report.sides import pin
        from llava_tui.session.reader import SessionError
        from llava_tui.session.source import LocalSource

        if not isinstance(self.source, LocalSource):
            self.notice("baseline: this session is on another machine", "warning")
            return
        try:
            pin(self.path.parent, [self.path])
        except SessionError as error:
            self.notice(str(error), "error")
        else:
            self.notice("baseline: this session")


def clock_rate(timeline: Timeline) -> float:
    """Session seconds a second: a simulated session may run faster or slower than time; as fast as possible (0) says
    nothing between two events."""
    if timeline.header.provenance != "simulated":
        return 1.0
    scale = timeline.header.plan.get("time_scale", 1.0)
    return 1.0 / scale if isinstance(scale, (int, float)) and scale > 0 else 0.0
