"""Where a session comes from, for whoever watches it: a folder here, a folder on another machine, a pipe.

Whatever it is, its files are read from a folder on this machine: one way to read, one way to draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llava_tui.session.text import safe_text

if TYPE_CHECKING:
    from llava_tui import events
    from llava_tui.session import store


class Source(Protocol):
    """A session that is watched. All text is safe to draw. No method blocks for longer than reading a small file."""

    @property
    def name(self) -> str:
        """For people: which session, and where it is if not here."""

    @property
    def path(self) -> Path:
        """The local folder whose files hold what has arrived. It changes where another session has begun in the place
        of this one: what was read from the old one is to be forgotten then."""

    @property
    def again(self) -> str:
        """The command that watches it once more; "" where there is none."""

    @property
    def controllable(self) -> bool:
        """Whether :meth:`send` can reach a worker at all."""

    def status(self) -> store.Status:
        """How the session is doing; while nothing can be heard of it, how it was doing last. Read the streams after it,
        not before: then the last words of a session that has ended are in them."""

    def line(self) -> str:
        """What hinders the session's way to here, in a line that stays the same while that does; "" while nothing
        does."""

    def remarks(self) -> list[str]:
        """What is to be told once, and has not been yet."""

    def send(self, verb: str, *, case: str = "", rounds: int = 0) -> events.Command:
        """Asks the worker for something; its answer comes with the events and carries the command's ``id``.

        Raises :class:`~llava_tui.session.reader.SessionError` where it cannot be asked.
        """

    def close(self) -> None:
        """Ends what was begun to watch it. May be called more than once."""


class LocalSource:
    """A session in a folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    @property
    def name(self) -> str:
        return safe_text(self._path.name)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def again(self) -> str:
        return f"llava-tui attach {self.name}"

    @property
    def controllable(self) -> bool:
        return True

    def status(self) -> store.Status:
        from llava_tui.session import store  # here, as below: the monitor's first paint waits for what loads before it

        return store.status(self._path)

    def line(self) -> str:
        return ""

    def remarks(self) -> list[str]:
        return []

    def send(self, verb: str, *, case: str = "", rounds: int = 0) -> events.Command:
        from llava_tui.session import control

        return control.send(self._path, verb, case=case, rounds=rounds)

    def close(self) -> None:
        pass
