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

from llava_tui.tui import actions
from llava_tui.tui.clock import FixedClock, LiveClock, ViewerClock
from llava_tui.tui.screens.base import ActionScreen
from llava_tui.tui.widgets.arrangement import SIDE_BY_SIDE, Wants, arrange
from llava_tui.tui.widgets.canvas import LineCanvas
from llava_tui.tui.widgets.cells import fit

if TYPE_CHECKING:
    from llava_tui.session.timeline import Timeline, View
    from llava_tui.tui.widgets.look import Look

STATUS_EVERY_S = 1.0
"""How often it is asked whether the worker is still there."""
EVERY_S = {"steps": 1.0, "gauges": 1.0, "strips": 0.5, "output": 0.5}
"""Parts that are drawn less often than others while live: nobody reads sixty figures four times a second."""
EVERY_WHEN_BRISK_S = EVERY_S | {"run": 1.0, "output": 1.0, "log": 1.0}
"""Where runs are too short to be watched one by one."""
SHARE = 0.02
"""Of the time, at most, for drawing one part: the table of some thousand runs takes a while to work out."""
MOST_ZOOM = 6
"""Halvings of the time in the strip, and doublings."""
PATIENCE_S = 3.0
"""After this long without an answer to a command, that is said."""


Paint = Callable[[list[tuple[LineCanvas, list[Region]]]], None]


def refresh(changes: list[tuple[LineCanvas, list[Region]]]) -> None:
    """Has Textual repaint what changed."""
    for canvas, regions in changes:
        canvas.refresh(*regions)


class MonitorScreen(ActionScreen):
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
        fps: float = 4.0,
        low_bandwidth: bool = False,
        clock: ViewerClock | None = None,
        paint: Paint | None = None,
    ) -> None:
        """Shows the session in folder ``path``, at most ``fps`` paints a second. ``low_bandwidth``: one at most, each
        part less often, and a time axis that moves in larger steps. ``clock`` is given by tests and replays; otherwise
        it is live while a worker is there, and the session's end after. ``paint`` is told what changed, if Textual is
        not to repaint it."""
        super().__init__()
        self.path = path
        self.timeline: Timeline | None = None
        self.look: Look | None = None
        self._fps = min(fps, 1.0) if low_bandwidth else fps
        self._slower = 3.0 if low_bandwidth else 1.0
        self._paint = paint or refresh
        self._page = 0.5 if low_bandwidth else 0.25
        self._clock = clock
        self._given_clock = clock is not None
        self._drawn: dict[str, tuple[object, float]] = {}
        """Of each part: what its drawing depended on, and until when it is good enough."""
        self._wants: tuple[int, int, Wants] | None = None
        self._status_asked = 0
        self._answered: tuple[int, str] | None = None
        self._waiting: dict[str, tuple[str, int]] = {}

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
        if isinstance(opened, Exception):
            self.app.exit(return_code=2, message=str(opened))
            return
        from llava_tui.tui.widgets.look import Look

        self.timeline = opened
        self.look = Look(page=self._page)
        self._ask_status()
        if self._clock is None:
            self._clock = self._new_clock(opened)
        self.draw_footer()
        self.redraw()
        self.set_interval(1 / self._fps, self.tick)

    def _new_clock(self, timeline: Timeline) -> ViewerClock:
        if self.look is None or not self.look.live:
            return FixedClock(timeline.end)
        return LiveClock(timeline.end, rate=clock_rate(timeline))

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One look: what is new, who is there, what has changed."""
        if self.timeline is None or self._clock is None or self.look is None:
            return
        if self.look.live and self.timeline.poll():
            self._clock.saw(self.timeline.end)
        self._ask_status()
        if self.app.screen is self:
            self.redraw(at_once=False)

    def _ask_status(self) -> None:
        """From the lock, at most once a second. A worker that ended leaves a session that stands still."""
        from llava_tui.session import store

        if self.look is None or self.timeline is None:
            return
        now = time.monotonic_ns()
        if self._status_asked and now - self._status_asked < STATUS_EVERY_S * 1e9:
            return
        self._status_asked = now
        was_live = self.look.live
        self.look.status = store.status(self.path)
        if self._clock is not None and was_live != self.look.live:
            # Its last words may have come after the last poll.
            if self.timeline.poll():
                self._clock.saw(self.timeline.end)
            if not self._given_clock:
                self._clock = self._new_clock(self.timeline)
            self.draw_footer()

    @property
    def view(self) -> View | None:
        """The session at the time that is shown; ``None`` while it is being opened."""
        if self.timeline is None or self._clock is None:
            return None
        return self.timeline.at(self._clock.now())

    # --- drawing ----------------------------------------------------------------------------------------------------

    def redraw(self, *, at_once: bool = True) -> None:
        """Every part whose drawing may have changed; without ``at_once``, slow parts wait for their turn."""
        view, look = self.view, self.look
        if view is None or look is None:
            return
        from llava_tui.tui.widgets.panels import PANELS, wants

        self._settle_answers(view, look)
        if (stamp := (view.answers.n, view.state)) != self._answered:
            self._answered = stamp
            self.draw_footer()
        if self._resize(wants(view, look)):
            # Sizes are known after the layout.
            self.call_after_refresh(self.redraw)
            return
        changes: list[tuple[LineCanvas, list[Region]]] = []
        now = time.monotonic()
        every = {} if at_once or not look.live else EVERY_WHEN_BRISK_S if look.brisk(view) else EVERY_S
        for name, (draw, key) in PANELS.items():
            canvas = self.query_one("#" + name, LineCanvas)
            width, height = canvas.size
            if not height or not width:
                continue
            new = (width, height, key(view, look))
            old, good_until = self._drawn.get(name, (None, 0.0))
            if old == new or (name in every and now < good_until):
                continue
            began = time.monotonic()
            if regions := canvas.change(draw(view, look, width, height)):
                changes.append((canvas, regions))
            # A little early rather than a tick late.
            wait = max(every.get(name, 0.0) * self._slower - 0.5 / self._fps, (time.monotonic() - began) / SHARE)
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

    @property
    def live(self) -> bool:
        """Whether there is a worker to ask."""
        return self.look is not None and self.look.live

    def conditions(self) -> set[str]:
        """What can be done depends on whether there is a worker to ask."""
        return {"live", "sent"} if self.live else set()

    def renamed(self) -> dict[str, str]:
        """A run that is paused goes on with the same key."""
        return {"pause": "go on"} if self._pausing() else {}

    def do_pause(self) -> None:
        """Pause, or go on."""
        self._send("resume" if self._pausing() else "pause")

    def _pausing(self) -> bool:
        """Whether the run is paused, or will be after the run that is going on."""
        view = self.view
        if view is None:
            return False
        verbs = [row["verb"] for row in view.answers.rows(view.answers.where(accepted=True))[-64:]]
        asked = [verb for verb in verbs if verb in ("pause", "resume")]
        return view.state == "paused" or asked[-1:] == ["pause"]

    def do_stop(self) -> None:
        """Asks first."""
        from llava_tui.tui.widgets.overlays import Question

        self.app.push_screen(
            Question("Stop the run?", [("y", "after this run", "stop"), ("x", "now", "stop-now")]),
            self._stop_answered,
        )

    def _stop_answered(self, verb: str | None) -> None:
        if verb and self.live:
            self._send(verb)

    def do_skip(self) -> None:
        """What remains of the case that is running; asks first: it cannot be taken back."""
        from llava_tui.analysis.steps import current_case
        from llava_tui.tui.widgets.overlays import Question

        view = self.view
        if view is None or not (case := current_case(view)):
            return

        def answered(answer: str | None) -> None:
            if answer and self.live:
                self._send("skip", case=case)

        self.app.push_screen(Question(f"Skip what remains of {case}?", [("y", "skip it", "skip")]), answered)

    def do_more(self) -> None:
        """One more round."""
        self._send("extend", rounds=1)

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
        """Half the time in the strip."""
        self._zoom(1)

    def do_zoom_out(self) -> None:
        """Twice the time in the strip."""
        self._zoom(-1)

    def _zoom(self, by: int) -> None:
        if self.look is not None:
            self.look.zoom = min(max(self.look.zoom + by, -MOST_ZOOM), MOST_ZOOM)
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
        from llava_tui.session import store

        goes_on = store.status(self.path) in store.LIVE
        self.app.exit(message=f"detached: the run goes on; llava-tui attach {self.path.name}" if goes_on else None)

    do_detach = do_quit

    def do_compare(self) -> None:
        """With the pinned baseline, if there is one; else its cases."""
        self.tui.open_compare([str(self.path)])

    def do_analysis(self) -> None:
        """What this session says."""
        self.tui.open_analysis(self.path, self.look.case if self.look is not None else "")

    def do_repeat(self) -> None:
        """One more run of the case that is shown."""
        view, look = self.view, self.look
        if view is not None and look is not None and (case := look.case_of(view)):
            self._send("repeat", case=case)

    # --- asking the worker ------------------------------------------------------------------------------------------

    def _send(self, verb: str, *, case: str = "", rounds: int = 0) -> None:
        from llava_tui.session import control
        from llava_tui.session.reader import SessionError

        try:
            command = control.send(self.path, verb, case=case, rounds=rounds)
        except SessionError as error:
            self._notice(str(error), "error")
            return
        self._waiting[command.id] = (verb, time.monotonic_ns())
        self._notice(f"{verb}: asked")

    def _notice(self, text: str, level: str = "info") -> None:
        from llava_tui.tui.widgets.look import Notice

        view = self.view
        if view is not None and self.look is not None:
            self.look.notices = [*self.look.notices[-20:], Notice(view.t, text, level)]
            self.redraw()

    def _settle_answers(self, view: View, look: Look) -> None:
        """Commands that were answered are not waited for; one that is not answered is told of once."""
        if not self._waiting:
            return
        for id_ in view.answers["id"][-64:]:
            self._waiting.pop(str(id_), None)
        late = [id_ for id_, (_, since) in self._waiting.items() if time.monotonic_ns() - since > PATIENCE_S * 1e9]
        for id_ in late:
            verb, _ = self._waiting.pop(id_)
            self._notice(f"{verb}: no answer from the worker yet", "warning")


def clock_rate(timeline: Timeline) -> float:
    """Session seconds a second: a simulated session may run faster or slower than time; as fast as possible (0) says
    nothing between two events."""
    if timeline.header.provenance != "simulated":
        return 1.0
    scale = timeline.header.plan.get("time_scale", 1.0)
    return 1.0 / scale if isinstance(scale, (int, float)) and scale > 0 else 0.0
