"""A folder's sessions as a list of them needs: kept, and read again only where something changed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from llava_tui.session import store
from llava_tui.session.reader import SessionError, safe_text
from llava_tui.session.store import LIVE, SessionInfo

UNSETTLED_NS = 2_000_000_000
"""A folder that changed less than that ago may have changed again within one tick of its file system's clock."""


@dataclass(frozen=True, slots=True)
class _Kept:
    stamp: tuple[int, int]
    """The session folder's inode and mtime: whatever is renamed, made or replaced in it changes that."""
    settled: bool
    info: SessionInfo | None
    """``None`` for a folder that is no session."""


class Catalogue:
    """Follows the sessions in ``folder``. :meth:`refresh` may take a while and belongs on a thread, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: dict[str, _Kept] = {}
        self._listed = False

    def refresh(self) -> list[SessionInfo] | None:
        """All sessions, as :func:`~llava_tui.session.store.list_sessions` orders them; ``None`` where nothing changed
        since the last time. A folder that does not exist has none. Raises :class:`SessionError`."""
        kept: dict[str, _Kept] = {}
        changed = False
        for name, path, stamp in self._folders():
            before = self._kept.get(name)
            live = before is not None and before.info is not None and before.info.status in LIVE
            if before is not None and before.settled and before.stamp == stamp and not live:
                kept[name] = before
                continue
            settled = time.time_ns() - stamp[1] > UNSETTLED_NS
            info = store.info(path) if store.is_session(path) else None
            kept[name] = _Kept(stamp, settled, info)
            changed |= before is None or before.info != info
        changed |= kept.keys() != self._kept.keys()
        self._kept = kept
        if not changed and self._listed:
            return None
        self._listed = True
        found = [one.info for one in kept.values() if one.info is not None]
        return sorted(found, key=store.place, reverse=True)

    def _folders(self) -> list[tuple[str, Path, tuple[int, int]]]:
        try:
            with os.scandir(self.folder) as entries:
                found = []
                for entry in entries:
                    try:
                        if entry.is_dir():
                            facts = entry.stat()
                            found.append((entry.name, Path(entry.path), (facts.st_ino, facts.st_mtime_ns)))
                    except OSError:  # it went away meanwhile, or its file system did
                        continue
                return found
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SessionError(f"cannot read {safe_text(str(self.folder))}: {error.strerror}") from None
