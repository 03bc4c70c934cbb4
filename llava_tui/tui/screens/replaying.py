"""The keys that move the time of the monitor."""

from __future__ import annotations

from llava_tui.tui.screens.watching import WatchingScreen

TEN_SECONDS = 10_000_000_000
GRACE_NS = 750_000_000
"""While time goes on, a step or a run that began less than this ago (for who watches) is not the one that is meant:
else no key would come to the one before."""


class Replaying(WatchingScreen):
    """Holds, plays, seeks. The run that is watched never notices."""

    def seek(self, t: int) -> None:
        """Shows the session as it was at ``t`` (ns), or at the end that is nearest."""
        if self.transport is None:
            return
        if self.transport.loop == "run":
            self._take_run(t)
        self.transport.seek(t)
        self.redraw()

    def do_play(self) -> None:
        """Hold the picture, or let time go on."""
        if self.transport is not None:
            self.transport.play_or_hold()
            self.redraw()

    # --- jumps ------------------------------------------------------------------------------------------------------

    def do_event_back(self) -> None:
        """One event back; the picture stands."""
        from llava_tui.tui.jumps import event_before

        if self.timeline is not None and self.transport is not None:
            self._to_event(event_before(self.timeline, self.transport.now()))

    def do_event_on(self) -> None:
        """One event on; the picture stands."""
        from llava_tui.tui.jumps import next_event

        if self.timeline is not None and self.transport is not None:
            self._to_event(next_event(self.timeline, self.transport.now()))

    def _to_event(self, t: int | None) -> None:
        if t is None or self.transport is None:
            return
        self.transport.hold()
        self.seek(t)

    def do_step_back(self) -> None:
        """To the start of this step, or of the one before."""
        self._jump("step", back=True)

    def do_step_on(self) -> None:
        """To the start of the next step."""
        self._jump("step", back=False)

    def do_run_back(self) -> None:
        """To the start of this run, or of the one before."""
        self._jump("run", back=True)

    def do_run_on(self) -> None:
        """To the start of the next run."""
        self._jump("run", back=False)

    def _jump(self, what: str, *, back: bool) -> None:
        from llava_tui.tui import jumps

        if self.timeline is None or self.transport is None or self.look is None:
            return
        times = jumps.run_starts(self.timeline) if what == "run" else jumps.step_starts(self.timeline, self.look)
        t = jumps.before(times, self._now_with_grace()) if back else jumps.after(times, self.transport.now())
        if t is not None:
            self.seek(t)

    def _now_with_grace(self) -> int:
        """From where to look back."""
        if self.transport is None:
            return 0
        play = self.transport.playback()
        return play.t - int(GRACE_NS * play.speed) if play.moving else play.t

    def do_incident(self) -> None:
        """To the next incident."""
        self._to_incident(back=False)

    def do_incident_back(self) -> None:
        """To the incident before."""
        self._to_incident(back=True)

    def _to_incident(self, *, back: bool) -> None:
        from llava_tui.tui import jumps

        view, look, transport = self.view, self.look, self.transport
        if view is None or look is None or transport is None:
            return
        found = look.incidents(view)
        t = jumps.before(found.t, self._now_with_grace()) if back else jumps.after(found.t, transport.now())
        if t is None:
            where = ("before" if back else "after") if len(found) else "at all"
            self.notice(f"no incident {where}")
            return
        self.seek(t)
        # Of those at the same moment, the gravest is told.
        first = found[int(found.t.searchsorted(t))]
        self.notice(f"{first.kind}: {first.text}", "error" if first.kind == "error" else "warning")

    def do_back(self) -> None:
        """Ten seconds back."""
        if self.transport is not None:
            self.seek(self.transport.now() - TEN_SECONDS)

    def do_on(self) -> None:
        """Ten seconds on."""
        if self.transport is not None and not self.transport.playback().following:
            self.seek(self.transport.now() + TEN_SECONDS)

    def do_first(self) -> None:
        """To the session's start."""
        if self.transport is not None:
            self.seek(self.transport.start)

    def do_last(self) -> None:
        """To the end; of a live session to what is happening now."""
        if self.transport is not None:
            self.transport.to_end()
            self.redraw()

    def do_tenth(self, key: str) -> None:
        """To that tenth of the session, as long as it is now."""
        if self.transport is not None:
            start, edge = self.transport.start, self.transport.edge
            self.seek(start + (edge - start) * int(key) // 10)

    def do_time_code(self) -> None:
        """Asks for a time, and goes there."""
        from llava_tui.tui.transport import FORMS, moment
        from llava_tui.tui.widgets.overlays import Prompt

        transport = self.transport
        if transport is None:
            return

        def wrong(text: str) -> str:
            try:
                moment(text).within(transport.start, transport.edge)
            except ValueError as error:
                return str(error) if text.strip() else ""
            return ""

        def answered(text: str | None) -> None:
            if text and text.strip():
                self.seek(moment(text).within(transport.start, transport.edge))

        self.app.push_screen(Prompt("go to", hint=FORMS, check=wrong), answered)

    # --- speed and loop ---------------------------------------------------------------------------------------------

    def do_slower(self) -> None:
        """Half the speed."""
        self._speed(0.5)

    def do_faster(self) -> None:
        """Twice the speed."""
        self._speed(2)

    def _speed(self, factor: float) -> None:
        if self.transport is None:
            return
        if self.transport.playback().following:
            self.notice("what is happening now has its own speed: go back first")
            return
        self.transport.set_speed(self.transport.speed * factor)
        self.redraw()

    def do_loop(self) -> None:
        """Play this run again and again; then the whole session; then once."""
        if self.transport is None:
            return
        loop, t = self.transport.loop, self.transport.now()
        if loop == "session":
            self.transport.loop_over("")
        else:
            self.transport.loop_over("run" if not loop and self._take_run(t) else "session")
        self.redraw()

    def _take_run(self, t: int) -> bool:
        """A loop is of the run that is shown at ``t``; whether there is one."""
        from llava_tui.tui.jumps import run_around

        if self.timeline is None or self.transport is None:
            return False
        run = run_around(self.timeline, t, self.transport.edge)
        if run is not None:
            self.transport.run = run
        return run is not None
