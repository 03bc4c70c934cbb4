"""The terminal itself: fewer bytes on the wire than Textual writes, and an end when it goes away."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from textual._compositor import ChopsUpdate, CompositorUpdate

GRACE_S = 1.0
"""How long an orderly exit may take once the terminal is gone. Textual's writer may then block for good."""


class NoTerminal(Exception):
    """There is no terminal to draw on: a message for the person who asked."""


def require() -> None:
    """Raises :class:`NoTerminal` unless standard input and error are a terminal (Textual reads the one, draws on the
    other)."""
    for name, stream in (("input", sys.__stdin__), ("error", sys.__stderr__)):
        if stream is None or not stream.isatty():
            raise NoTerminal(
                f"the monitor needs a terminal, and standard {name} is none; "
                "use --headless to run without, `llava-tui show` to read a session"
            )


class LeanUpdate(CompositorUpdate):
    """The cells of an update's spans and no more.

    Textual's own rendering begins every span at the widget's left edge and sets and resets a style around every
    segment; on a line of 120 cells of which two changed that is some hundred bytes for nothing.
    """

    def __init__(self, update: ChopsUpdate) -> None:
        self._update = update

    def render_segments(self, console: Console) -> str:
        """The raw sequences: a cursor move a span, a style where it changes, one reset at the end."""
        update = self._update
        system = None if console.no_color else console._color_system
        out: list[str] = []
        current: str | None = None
        for y, start, end in update.spans:
            chops = update.chops[y]
            for stop, (x, strip) in zip(update.chop_ends[y], chops.items(), strict=False):
                if strip is None or x >= end or stop <= start:
                    continue
                piece = strip.crop(max(start - x, 0), min(end, stop) - x)
                out.append(f"\x1b[{y + 1};{max(start, x) + 1}H")
                for segment in piece:
                    if segment.control:
                        continue
                    codes = _codes(segment, system)
                    if codes != current:
                        out.append(f"\x1b[0;{codes}m" if codes else "\x1b[0m")
                        current = codes
                    out.append(segment.text)
        if current:
            out.append("\x1b[0m")
        return "".join(out)


def _codes(segment: Segment, system: ColorSystem | None) -> str:
    """The SGR parameters of a segment's style."""
    if segment.style is None or system is None:
        return "" if segment.style is None else segment.style.without_color._make_ansi_codes(ColorSystem.STANDARD)
    return segment.style._make_ansi_codes(system)


class Hangup:
    """Calls ``leave`` when the terminal goes away: at SIGHUP or SIGTERM, or when the tty itself hangs up.

    With SIGHUP ignored (nohup), or on a tty that does not control the process, nothing tells a Textual program that its
    terminal is gone, and it spins. If the orderly way out takes longer than :data:`GRACE_S`, the process ends at once:
    nothing here is worth saving, for the session is written by the worker.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._gone = threading.Event()
        self._before: dict[int, object] = {}

    def watch(self) -> None:
        """Installs the handlers and starts the watching thread; call in the main thread."""
        for number in (signal.SIGHUP, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        if sys.__stdin__ is not None and sys.__stdin__.isatty():
            threading.Thread(target=self._wait, args=(sys.__stdin__.fileno(),), name="tty-watch", daemon=True).start()

    def unwatch(self) -> None:
        """Puts the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @property
    def gone(self) -> bool:
        """Whether the terminal is known to be gone, or the program was asked to end."""
        return self._gone.is_set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._end(128 + number)

    def _wait(self, fd: int) -> None:
        poller = select.poll()
        # No events asked for: poll returns for a hang-up or an error alone, and costs nothing until then.
        poller.register(fd, 0)
        poller.poll()
        self._end(128 + signal.SIGHUP)

    def _end(self, code: int) -> None:
        if self._gone.is_set():
            return
        self._gone.set()
        last = threading.Timer(GRACE_S, os._exit, args=(code,))
        last.daemon = True
        last.start()
        self._leave()
