"""The terminal itself: fewer bytes on the wire than Textual writes, and an end when it goes away."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import FrameType

from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style

GRACE_S = 1.0
"""How long an orderly exit may take once the terminal is gone. Textual's writer may then block for good."""


def require() -> None:
    """Raises :class:`~llava_tui.session.reader.SessionError` unless standard input and error are a terminal: Textual
    reads the one and draws on the other. In a browser there is none, and none is needed."""
    if in_browser():
        return
    for name, stream in (("input", sys.__stdin__), ("error", sys.__stderr__)):
        if stream is None or not stream.isatty():
            from llava_tui.session.reader import SessionError

            raise SessionError(
                f"the monitor needs a terminal, and standard {name} is none; "
                "`llava-tui show SESSION` prints a session, `llava-tui run --headless` runs without"
            )
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        # Such a terminal cannot be drawn on, and Textual never ends asking it for its size.
        from llava_tui.session.reader import SessionError

        raise SessionError(
            f"the monitor cannot draw on TERM={os.environ.get('TERM') or '(unset)'}: set TERM to what the terminal is, "
            "like xterm-256color, or use `llava-tui show SESSION`"
        )
    size = os.get_terminal_size(sys.__stdin__.fileno())  # type: ignore[union-attr]
    for name, count, usual in (("COLUMNS", size.columns, 80), ("LINES", size.lines, 24)):
        if count:
            # Exported by a shell or by readline it would be believed, and resizing the window would change nothing.
            os.environ.pop(name, None)
        else:
            # A serial line, some containers: Textual never ends asking such a terminal for its size.
            os.environ.setdefault(name, str(usual))


def in_browser() -> bool:
    """Whether a web server started this process and draws what it writes."""
    return os.environ.get("TEXTUAL_DRIVER", "").endswith(":WebDriver")


Piece = tuple[int, int, Sequence[tuple[str, Style]]]
"""Column and line of the screen, from 0, and the runs of cells to be shown from there."""


def sequences(pieces: Iterable[Piece], console: Console) -> str:
    """What a terminal needs to show each piece: a cursor move, and of a style what changes."""
    system = console._color_system
    out: list[str] = []
    now = _PLAIN
    for x, y, runs in pieces:
        out.append(f"\x1b[{y + 1};{x + 1}H")
        for text, style in runs:
            new = _PLAIN if system is None else _codes(style, system)
            if new != now:
                out.append(_change(now, new))
                now = new
            out.append(text)
    if now != _PLAIN:
        out.append("\x1b[0m")
    return "".join(out)


_Codes = tuple[str, str, str]
"""SGR parameters: attributes, foreground, background; "" for the terminal's own."""
_PLAIN: _Codes = ("", "", "")


@lru_cache(1024)
def _codes(style: Style, system: ColorSystem) -> _Codes:
    attributes = style.without_color._make_ansi_codes(system)
    return attributes, _colour(style.color, system, 38), _colour(style.bgcolor, system, 48)


def _colour(colour: Color | None, system: ColorSystem, base: int) -> str:
    if colour is None or colour.is_default:
        return ""
    if system is ColorSystem.TRUECOLOR and colour.triplet is not None:
        # A colour of the 256-colour palette by its number: half the bytes.
        number = colour.downgrade(ColorSystem.EIGHT_BIT)
        if number.number is not None and number.get_truecolor() == colour.triplet:
            return f"{base};5;{number.number}"
    return ";".join(colour.downgrade(system).get_ansi_codes(foreground=base == 38))


def _change(now: _Codes, new: _Codes) -> str:
    """From one style to the next. What cannot be taken back singly is taken back by a reset."""
    reset = (now[0] != new[0] and bool(now[0])) or any(a and not b for a, b in zip(now[1:], new[1:], strict=True))
    parts = ["0", *new] if reset else [b for a, b in zip(now, new, strict=True) if a != b]
    return f"\x1b[{';'.join(part for part in parts if part)}m"


class Hangup:
    """Calls ``leave`` when the terminal goes away: at SIGHUP or SIGTERM, or when the tty itself hangs up.

    With SIGHUP ignored (nohup), or on a tty that does not control the process, nothing tells a Textual program that its
    terminal is gone, and it spins. If the orderly way out takes longer than :data:`GRACE_S`, the process ends at once:
    nothing here is worth saving, for the session is written by the worker.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self.code = 0
        """The exit code that tells why, once the terminal is gone."""
        self._before: dict[int, object] = {}

    def watch(self) -> None:
        """Installs the handlers and starts the watching thread; call in the main thread."""
        for number in (signal.SIGHUP, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        if sys.__stdin__ is not None and (sys.__stdin__.isatty() or in_browser()):
            threading.Thread(target=self._wait, args=(sys.__stdin__.fileno(),), name="tty-watch", daemon=True).start()

    def unwatch(self) -> None:
        """Puts the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @property
    def gone(self) -> bool:
        """Whether the terminal is known to be gone, or the program was asked to end."""
        return self.code != 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._end(128 + number)

    def _wait(self, fd: int) -> None:
        poller = select.poll()
        # No events asked for: poll returns for a hang-up or an error alone, and costs nothing until then.
        poller.register(fd, 0)
        poller.poll()
        self._end(128 + signal.SIGHUP)

    def _end(self, code: int) -> None:
        if self.gone:
            return
        self.code = code
        last = threading.Timer(GRACE_S, os._exit, args=(code,))
        last.daemon = True
        last.start()
        self._leave()
