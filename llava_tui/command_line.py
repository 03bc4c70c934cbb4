"""A plan as the command line that runs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from llava_tui.faults import as_text
from llava_tui.plan import Plan

REPEATED = {"inputs": "--input", "tags": "--tag", "faults": "--fault"}
"""Fields whose option is given once a value."""
SWITCHES = {"self_test": "--no-self-test", "cool_down": "--no-cool-down", "profile": "--profile"}
"""Fields that are on or off, and the option that turns each from its default."""
OPTIONS = {"time_limit_s": "--time-limit"}
"""Options that are not named as their field."""


def arguments(plan: Plan) -> list[str]:
    """What to give to ``llava-tui`` to run ``plan``; fields at their default are left out."""
    defaults = plan.defaults()
    given = ["run"]
    for field in plan.__struct_fields__:
        value = getattr(plan, field)
        if value == getattr(defaults, field):
            continue
        if field in SWITCHES:
            given.append(SWITCHES[field])
        elif field in REPEATED:
            for each in value:
                given += _option(REPEATED[field], each if isinstance(each, str) else as_text(each))
        else:
            given += _option(OPTIONS.get(field, "--" + field.replace("_", "-")), _text(value))
    return given


def quoted(words: Iterable[str]) -> str:
    """``words`` as one line for a shell. What cannot be printed, or may hide what else there is (control characters,
    marks of writing direction), is written in bash's and zsh's ``$'…'``."""
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in words)


def _option(name: str, value: str) -> list[str]:
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def _escaped(word: str) -> str:
    # Shells take two digits after \x at most, so that what follows is never part of a byte.
    body = "".join(
        ("\\" + char if char in "\\'" else char)
        if char.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "replace"))
        for char in word
    )
    return f"$'{body}'"
