"""What ctrl+c does: outside a verb it ends the process at once, within one it is a ``KeyboardInterrupt``.

An exception may come out of the middle of an import, or within a callback of Python's own that prints it and goes on.
So while nothing is at stake yet, or any more, there is none. A SIGINT that is ignored (a job in the background) stays
ignored.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

MESSAGE = "llava-tui: interrupted"
CODE = 130


def end_at_once() -> None:
    """From here on there is nothing to tidy up."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def be_raised() -> None:
    """From here on there may be."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, MESSAGE.encode() + b"\n")
    os._exit(CODE)
