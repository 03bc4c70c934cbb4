"""A value of a kind that a plan's field does not take, in words for whoever wrote the plan."""

from __future__ import annotations

import re

_KINDS = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "null": "nothing",
    "array": "a list", "object": "a table", "date": "a date", "datetime": "a date", "time": "a time of day",
}  # fmt: skip
_WRITTEN = {
    "inputs": '["clip.mp4"]', "tags": '["night"]', "frames": "[1, 4]", "batch": "[1, 2]", "new_tokens": "[64]",
    "threads": "[4, 8]", "resolution": "[336]", "rounds": '10, or "auto"', "warmup": '3, or "auto"', "delta": "0.01",
    "time_limit_s": "600", "sample_hz": "10", "time_scale": "1", "max_rounds": "50", "seed": "0", "processes": "2",
    "max_memory": '"cuda:0=10GiB,cpu=20GiB"', "faults": '["drift=2%"]', "weights": '"pretrained"',
}  # fmt: skip
"""How a value of a field is written, where its kind does not say it."""
_EXAMPLES = {"a text": '"…"', "true or false": "true", "a whole number": "4", "a number": "0.5"}
_WRONG_KIND = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


def in_words(message: str) -> str:
    """``frames: a text as its 2nd value, where a whole number is needed; write it like frames = [1, 4]``, from what
    msgspec says of a value that cannot be."""
    found = _PLACE.search(message)
    place = found[1] if found is not None else ""
    said = message[: found.start()] if found is not None else message
    field = re.split(r"[.\[]", place, maxsplit=1)[0]
    if not field:
        return f"the plan cannot be: {said}"
    kinds = _WRONG_KIND.fullmatch(said)
    wanted = ""
    if kinds is not None:
        takes = [_KINDS.get(kind, kind) for kind in kinds[1].split(" | ")]
        wanted = takes[0]
        said = f"{_KINDS.get(kinds[2], kinds[2])}{_within(place, ' as')}, where {' or '.join(takes)} is needed"
    else:
        said = said[:1].lower() + said[1:].replace("`", "") + _within(place, ", in")
    written = _WRITTEN.get(field) or _EXAMPLES.get(wanted, "")
    return f"{field}: {said}" + (f"; write it like {field} = {written}" if written else "")


def _within(place: str, joint: str) -> str:
    """Which of a field's values, and what of it: " as its 2nd value", " as percent of its 1st value"."""
    index = re.search(r"\[(\d+)\]", place)
    inner = re.search(r"\.([A-Za-z_]\w*)$", place)
    which = f"its {_counted(int(index[1]) + 1)} value" if index is not None else ""
    parts = " of ".join(filter(None, (inner[1] if inner is not None else "", which)))
    return f"{joint} {parts}" if parts else ""


def _counted(number: int) -> str:
    end = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{end}"
