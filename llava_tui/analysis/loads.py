"""Which cases of a session ran on models that were in memory together: only those interleave."""

from __future__ import annotations

from typing import Any

from llava_tui.session.timeline import View


def loads(view: View) -> list[dict[str, Any]]:
    """What models were loaded as, in order (see ``docs/session-format.md``); empty where the session does not say.
    Those that are not well formed are left out: a session is read, not trusted."""
    found = view.model.extra.get("loads") if view.model is not None else None
    return [each for each in found if _is_formed(each)] if isinstance(found, list) else []


def _is_formed(each: Any) -> bool:
    if not isinstance(each, dict) or not isinstance(each.get("group"), int):
        return False
    cases = each.get("cases")
    return isinstance(cases, list) and all(isinstance(case, str) for case in cases)


def group_of(view: View, case: str) -> int | None:
    """Which group of loads the case ran in; ``None`` where there was one only."""
    groups = {name: each.get("group") for each in loads(view) for name in each["cases"]}
    found = groups.get(case)
    return found if isinstance(found, int) and len(set(groups.values())) > 1 else None


def apart(view: View, a: str, b: str) -> bool:
    """Whether the two cases ran one after the other, each on a model of its own."""
    return group_of(view, a) != group_of(view, b)


def told(view: View) -> str:
    """One line about a session whose models did not fit into memory together; "" for any other."""
    groups: dict[Any, list[str]] = {}
    for each in loads(view):
        groups.setdefault(each.get("group"), []).append(str(each.get("load", "")))
    if len(groups) < 2:
        return ""
    named = "; then ".join(" with ".join(names) for names in groups.values())
    return f"{len(groups)} groups, one in memory after the other: {named}. Cases of different groups did not interleave"
