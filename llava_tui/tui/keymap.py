"""The user's own keys: a TOML file that gives actions other keys.

[keys]
pause = "P"
quit = ["q", "ctrl+c"]
"""

from __future__ import annotations

import os
from pathlib import Path

from llava_tui.tui import actions

VARIABLE = "LLAVA_TUI_KEYS"


def path() -> Path:
    """``$LLAVA_TUI_KEYS``, else ``keys.toml`` in the user's config folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_config_dir("llava-tui")) / "keys.toml"


def read() -> dict[str, tuple[str, ...]]:
    """The user's keys by the action's id; none where there is no file.

    Raises :class:`~llava_tui.session.reader.SessionError` for a file that cannot be read, an unknown action, and a key
    that would mean two things on one screen.
    """
    file = path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(file, getattr(error, "strerror", None) or "not UTF-8") from None
    return parse(text, file)


def parse(text: str, file: Path) -> dict[str, tuple[str, ...]]:
    """The keys that ``text`` gives; ``file`` is named in errors. Raises as :func:`read`."""
    import tomllib

    try:
        given = tomllib.loads(text).get("keys", {})
    except tomllib.TOMLDecodeError as error:
        raise _wrong(file, str(error)) from None
    if not isinstance(given, dict):
        raise _wrong(file, "[keys] must be a table of actions and keys")
    keymap: dict[str, tuple[str, ...]] = {}
    for id_, keys in given.items():
        named = (keys,) if isinstance(keys, str) else tuple(keys) if isinstance(keys, list) else ()
        if not named or not all(isinstance(key, str) and key.strip() for key in named):
            raise _wrong(file, f'{id_}: a key or a list of keys expected, like "ctrl+p"')
        try:
            if actions.by_id(id_).key_matters:
                raise _wrong(file, f"{id_}: its keys cannot be changed")
        except KeyError:
            raise _wrong(file, f"no action {id_!r}; the ids are in docs/keys.md") from None
        keymap[id_] = tuple(_textual(key.strip()) for key in named)
    if clash := clashes(actions.Actions(keymap)):
        raise _wrong(file, clash)
    return keymap


def clashes(table: actions.Actions) -> str:
    """Which key means two things on one screen; "" where none does."""
    for screen in actions.SCREENS:
        taken: dict[str, str] = {}
        for entry in table.all:
            if screen in entry.screens:
                for key in entry.keys:
                    if key in taken:
                        return f"{key!r} would mean both {taken[key]} and {entry.id} on the screen {screen}"
                    taken[key] = entry.id
    return ""


def _textual(key: str) -> str:
    """A key by Textual's name: a sign may be written as itself."""
    if len(key) > 1 or key.isalnum():
        return key
    from textual.keys import _character_to_key

    return _character_to_key(key)


def _wrong(file: Path, why: str) -> Exception:
    from llava_tui.session.reader import SessionError, safe_text

    return SessionError(f"{safe_text(str(file))}: {safe_text(why)}")
