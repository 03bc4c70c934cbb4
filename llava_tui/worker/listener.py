"""Control is heard by a thread where the course does not look up and nothing is timed: while it loads and closes, in
the library's own loop of a cross-check, and while a profile is made."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from llava_tui.worker.control import POLL_NS, Control
from llava_tui.worker.porter import Porter
from llava_tui.worker.sink import StreamLost

log = logging.getLogger(__name__)

SWITCH_S = 0.0005
WAY_S = 1.0
"""The longest that the load makes way for who ends it."""


class Listener:
    """A context within which control is heard. ``on_stop`` is called, from the thread, when the session is to end now,
    and ends it.

    ``call_porter``, where given, forks a porter when the context is entered, which answers in the thread's place until
    it is relieved: at the context's end, or when the session is to end now. What the porter has answered is then known
    to ``control`` too.
    """

    def __init__(
        self,
        control: Control,
        on_stop: Callable[[], None] | None = None,
        call_porter: Callable[[], Porter] | None = None,
    ) -> None:
        self.lost = ""
        """Why the porter's stream took no more; "" where it did."""
        self._control = control
        self._on_stop = on_stop
        self._call_porter = call_porter
        self._porter: Porter | None = None
        self._done = threading.Event()
        self._through = threading.Event()
        """Whether the load need not make way any more."""
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._interval = sys.getswitchinterval()

    def __enter__(self) -> Listener:
        if self._call_porter is not None:
            try:
                self._porter = self._call_porter()
            except OSError as error:
                log.warning("no process to answer while the model loads (%s): answers may be late", error.strerror)
        # Reading one command takes a dozen system calls, and after each the interpreter lock must be had back from an
        # import that does not let go by itself: at the default of 5 ms they add up to what an answer may take.
        sys.setswitchinterval(SWITCH_S)
        if self._on_stop is not None:
            self._before = signal.signal(signal.SIGUSR1, self._give_way)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        sys.setswitchinterval(self._interval)
        if self._on_stop is not None:
            signal.signal(signal.SIGUSR1, self._before)

    def _listen(self) -> None:
        try:
            if self._porter is not None:
                self._wait_for(self._porter)
            while not self._done.is_set():
                self._control.poll()
                if self._control.stop_now and self._on_stop is not None:
                    self._on_stop()
                    return
                self._done.wait(POLL_NS / 1e9)
        except StreamLost:
            pass  # The sink remembers, and the course asks it.
        finally:
            self._through.set()

    def _wait_for(self, porter: Porter) -> None:
        # A signal reaches the worker alone.
        while not (porter.calls(POLL_NS / 1e9) or self._control.interrupted or self._done.is_set()):
            pass
        self._make_way()
        try:
            answered = porter.relieve()
        except StreamLost as lost:
            self.lost = str(lost)
            raise
        self._control.replay(answered)
        if not self._control.stop_now:
            self._through.set()

    def _make_way(self) -> None:
        """Ending a session takes some twenty system calls, and after each the interpreter would have to be had back
        from an import that holds it. So the main thread waits, as soon as it is in Python again."""
        if self._on_stop is not None and not self._done.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _give_way(self, *_: object) -> None:
        # Not for ever: it may have been cut into with a lock in its hands that is needed here.
        self._through.wait(WAY_S)


@contextlib.contextmanager
def hearing(control: Control) -> Iterator[None]:
    """A context within which control is heard, for what lets go of the interpreter now and then. No garbage is looked
    for meanwhile: among what a model's libraries load, that alone would hold the interpreter for 0.2 to 0.6 s."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # For who collects all the same.
    try:
        with Listener(control):
            yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
