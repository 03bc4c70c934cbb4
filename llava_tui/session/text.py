"""Text that people are shown: foreign text made fit for a terminal, and the error that says what they can mend.

Loads next to nothing: the monitor's first paint waits for it.
"""

from __future__ import annotations

import re
from typing import Any


class SessionError(Exception):
    """Something about a session that its user can mend: one or two lines that say what, where and how."""


# Patterns, not compiled ones: compiling them takes 2 ms, and most text never meets them.
_CONTROL = (
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    # OSC, DCS, SOS, PM, APC up to their end; without an end only the introducer goes. The class leaves every
    # introducer out, so that many of them in a row cost linear time.
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]?"  # other escapes
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # the rest of C0 and C1
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks, overrides and isolates of writing direction
)
_LINE_END = "\r\n?|[\x85\u2028\u2029]"
_SURROGATE = "[\ud800-\udfff]"


def safe_text(text: str, limit: int | None = None) -> str:
    """``text`` without anything that a terminal would obey: escape sequences, control characters, bidi overrides.

    Line ends of every kind become ``\\n``, tabs a space, lone surrogates U+FFFD. With ``limit`` at most that many
    characters are kept, the last one an ellipsis where something was cut. Markup is the caller's affair: draw the
    result as plain text.
    """
    if not text.isprintable():
        text = re.sub(_CONTROL, "", re.sub(_LINE_END, "\n", text)).replace("\t", " ")
        text = re.sub(_SURROGATE, "\ufffd", text)
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…" if limit > 0 else ""
    return text


def safe_values(value: Any, depth: int = 32) -> Any:
    """``value`` (what JSON can hold) with every string in it, keys too, through :func:`safe_text`. What is nested
    deeper than ``depth`` becomes ``"…"``."""
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, (list, tuple, dict)):
        if depth == 0:
            return "…"
        if isinstance(value, dict):
            return {safe_values(k): safe_values(v, depth - 1) for k, v in value.items()}
        return [safe_values(v, depth - 1) for v in value]
    return value
