"""What two sides have in common whose stage trees differ: EventGPT beside LLaVA, and EventGPT's two groupings."""

from __future__ import annotations

from collections.abc import Sequence

from llava_tui.analysis.measures import Measures

_EVENTGPT = "eventgpt"
_OTHER_MODEL = frozenset(
    {"pipeline", "stage map", "model", "model revision", "model digest", "frames", "image tokens", "prompt tokens"}
)
"""What differs between two models that are asked for equally many tokens."""
_AT_EQUAL = {
    "h2d": "frames",
    "vision_tower": "frames",
    "projector": "frames",
    "prefill": "prompt tokens",
    "decode": "",
    "detokenize": "",
}
"""Stages of any pipeline, and what has to be equal, beside the new tokens, for each to have the same work."""


def same_leaves(a: Measures, b: Measures) -> bool:
    """Whether both are of EventGPT, and only its steps are grouped otherwise: then everything else compares."""
    return all(_is_eventgpt(of) for of in (a, b)) and sorted(_leaves(a)) == sorted(_leaves(b))


def counterpart(base: Measures, path: str, of: Measures) -> str | None:
    """Where ``of`` has what ``base`` has at ``path``; ``None``: nowhere. Where a side is of EventGPT, a stage is known
    by its own name, whatever step it is in, and a step is the same only with the same stages in it."""
    known = path in of.stages
    if base is of or not (_is_eventgpt(base) or _is_eventgpt(of)):
        return path if known else None
    if "." not in path:
        return path if known and _leaves(base, path) == _leaves(of, path) else None
    if known:
        return path
    named = [other for other in of.paths if "." in other and _name(other) == _name(path)]
    return named[0] if len(named) == 1 else None


def comparable(a: Measures, b: Measures, reasons: Sequence[str]) -> set[str]:
    """Stages of ``a`` that mean the same work in ``b`` although the two are not comparable for ``reasons``: those that
    LLaVA and EventGPT both have, at equal new tokens."""
    differ = {reason.partition(":")[0] for reason in reasons}
    if not (_is_eventgpt(a) or _is_eventgpt(b)) or not differ or differ - _OTHER_MODEL:
        return set()
    return {
        path
        for path in a.paths
        if "." in path
        and (needs := _AT_EQUAL.get(_name(path))) is not None
        and needs not in differ
        and counterpart(a, path, b)
    }


def _is_eventgpt(of: Measures) -> bool:
    return of.view.header.pipeline == _EVENTGPT


def _leaves(of: Measures, step: str = "") -> list[str]:
    return [_name(path) for path in of.paths if "." in path and path.startswith(step and step + ".")]


def _name(path: str) -> str:
    return path.rpartition(".")[2]
