"""Which sessions a list shows, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llava_tui.tui.widgets.session_table import model_of, name_of

if TYPE_CHECKING:
    from llava_tui.session.store import SessionInfo

SEARCHED = 2000
"""Characters of a text that are searched."""
ORDERS: tuple[tuple[str, Callable[[SessionInfo], Any]], ...] = (
    ("time", lambda info: 0),
    ("name", lambda info: name_of(info).casefold()),
    ("model", lambda info: model_of(info).casefold()),
    ("length", lambda info: -info.duration_ns),
)
"""How a list can be ordered; live ones are first in any case, and the newest of equals."""


class Choosing:
    """Filters and orders; what is searched of each session is kept."""

    def __init__(self) -> None:
        self.filter = ""
        """Words of which a session has to hold all."""
        self._order = 0
        self._words: dict[str, tuple[SessionInfo, str]] = {}

    @property
    def order(self) -> str:
        """What the list is ordered by."""
        return ORDERS[self._order][0]

    def next_order(self) -> None:
        """Another order."""
        self._order = (self._order + 1) % len(ORDERS)

    def of(self, infos: Sequence[SessionInfo]) -> list[SessionInfo]:
        """Those of ``infos`` (live ones first, then the newest) that are shown."""
        words, key = self.filter.casefold().split(), ORDERS[self._order][1]
        some = [info for info in infos if all(word in self._text(info) for word in words)]
        return sorted(some, key=lambda info: (info.status not in ("running", "paused"), key(info)))

    def _text(self, info: SessionInfo) -> str:
        kept = self._words.get(info.id)
        if kept is None or kept[0] is not info:
            notes = info.notes
            parts = [info.id, notes.name, *notes.tags, notes.note, info.status, info.problem]
            if info.header is not None:
                parts += [info.header.model, info.header.pipeline, info.header.provenance]
            kept = self._words[info.id] = (info, "\n".join(part[:SEARCHED] for part in parts).casefold())
        return kept[1]
