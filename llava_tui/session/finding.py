"""Which folder holds the sessions, and which of them is meant.

Loads next to nothing: the monitor's first paint waits for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from llava_tui.session.text import SessionError, safe_text

HEADER = "session.json"
"""Its being there makes a folder a session."""
_ENVIRONMENT = "LLAVA_TUI_SESSIONS"
_LATEST = "@latest"


def is_there(path: Path) -> bool:
    """Whether ``path`` exists, as far as this user can see; never an exception."""
    return os.path.exists(path)  # noqa: PTH110


def sessions_folder(option: str | None = None) -> Path:
    """The folder of sessions: ``option`` (``--sessions``), else $LLAVA_TUI_SESSIONS, else ``./sessions`` where it
    exists, else the user's data folder. It need not exist."""
    if chosen := option or os.environ.get(_ENVIRONMENT):
        return Path(chosen).expanduser().absolute()
    if (here := Path("sessions").absolute()).is_dir():
        return here
    import platformdirs

    return platformdirs.user_data_path("llava-tui", appauthor=False) / "sessions"


def find(folder: Path, ref: str) -> Path:
    """The session that ``ref`` means: an id within ``folder``, a path, a unique part of an id, or ``@latest``.

    Raises :class:`SessionError` where it means none or more than one.
    """
    shown = safe_text(ref, 80)
    ids = _ids(folder)
    if ref == _LATEST:
        if not ids:
            raise SessionError(f"no sessions in {safe_text(str(folder))} yet: `llava-tui demo` records one")
        return max((folder / id_ for id_ in ids), key=_age)
    if ref in ids:
        return folder / ref
    if not ref:
        raise SessionError("no session named: give an id, a unique part of one, a path, or @latest")
    path = Path(os.path.expanduser(ref))  # noqa: PTH111 - of an unknown user pathlib raises
    if is_there(path / HEADER):
        return path.absolute()
    if path.name == HEADER and is_there(path):
        return path.parent.absolute()
    if is_there(path):
        raise SessionError(f"{shown} is not a session: it has no {HEADER}")
    if os.sep in ref:
        raise SessionError(f"no session at {shown}: no such folder")
    found = [id_ for id_ in ids if ref in id_]
    if len(found) == 1:
        return folder / found[0]
    if found:
        some = ", ".join(safe_text(id_) for id_ in found[:5]) + (", …" if len(found) > 5 else "")
        raise SessionError(f"{shown!r} could be {len(found)} sessions: {some}\nGive more of the id.")
    raise SessionError(f"no session {shown!r} in {safe_text(str(folder))}; `llava-tui list` shows what is there")


def _ids(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if is_there(Path(entry.path) / HEADER))
    except OSError:
        return []


def _age(path: Path) -> tuple[int, str]:
    from llava_tui.session.reader import read_header

    try:
        return read_header(path).wall0, path.name
    except SessionError:
        return -1, path.name
