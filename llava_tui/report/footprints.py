"""Memory and energy of a session's cases, as lines for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava_tui import units
from llava_tui.analysis.footprint import Footprint
from llava_tui.report.page import summary_json
from llava_tui.session.reader import safe_text

SAME = 0.0005
"""A difference from what was predicted that nobody sees."""


def weights(parts: Sequence[tuple[str, float]]) -> str:
    """``13.2 GiB: language model 12.1 GiB · vision tower 579 MiB``; "" where the session does not say."""
    if not parts:
        return ""
    told = " · ".join(f"{name} {units.size(taken)}" for name, taken in parts)
    return f"{units.size(sum(taken for _, taken in parts))}: {told}"


def across(found: Sequence[Footprint]) -> list[str]:
    """The cases' memory beside each other; nothing where there is one case, or none whose memory is known."""
    known = [each for each in found if each.peak is not None or each.short]
    if len(found) < 2 or not known:
        return []
    wide = max(max(len(each.case) for each in known), 6)
    lines = [f"memory   {'case':<{wide}}{'peak':>12}  {'keys and values':>15}  {'predicted':>10}"]
    for each in known:
        line = f"         {each.case:<{wide}}{units.size(each.peak):>12}"
        if each.cache is not None or each.cache_predicted is not None:
            line += f"  {units.size(each.cache):>15}  {units.size(each.cache_predicted):>10}{_off(each)}"
        lines.append(line + (f"  out of memory: {short(each)}" if each.short else ""))
    kind = "the worker's resident set, libraries and weights included"
    return [*lines, f"         peak: {kind if known[0].is_resident else 'what tensors held on the device, at most'}"]


def lines(of: Footprint) -> list[str]:
    """Of one case, as far as it is known."""
    found = []
    peaks = [(row.title, row.allocated.maximum, row.reserved.maximum) for row in of.rows if "." not in row.path]
    told = [f"{title} {units.size(held)} of {units.size(kept)}" for title, held, kept in peaks if held is not None]
    if told:
        found.append("  memory   allocated of reserved, at most: " + "   ".join(told))
    if cached := cache(of):
        found.append(f"  cache    {cached}")
    if of.short:
        found.append(f"  short    of memory: {short(of)}")
    if of.rss.median is not None:
        found.append(f"  worker   {units.size(of.rss.median)} resident")
    watts = [f"{row.title} {_joules(row.energy)} ± {_joules(row.energy_error)}" for row in of.rows if row.energy]
    if of.energy is not None or watts:
        whole = [f"{_joules(of.energy)} a run"] if of.energy is not None else []
        found.append("  energy   " + "   ".join(whole + watts) + "   (the whole board)")
    return found


def cache(of: Footprint) -> str:
    """What keys and values took, beside what the config says; "" where neither is known."""
    if of.cache is None and of.cache_predicted is None:
        return ""
    if of.cache is None:
        return f"keys and values take {units.size(of.cache_predicted)} by the model's config"
    if of.cache_predicted is None:
        return f"keys and values {units.size(of.cache)}; the config does not tell what they should take"
    if off := _off(of):
        return f"keys and values {units.size(of.cache)}, predicted {units.size(of.cache_predicted)}{off}"
    return f"keys and values {units.size(of.cache)}, as the model's config predicts"


def _off(of: Footprint) -> str:
    difference = of.cache_difference
    if difference is None or abs(difference) < SAME:
        return ""
    return f" ({'+' if difference > 0 else '−'}{units.percent(abs(difference))})"


def short(of: Footprint) -> str:
    """What was held when memory was too little."""
    told = of.short
    parts = [f"in {safe_text(str(told['stage']))}"] if told.get("stage") else []
    named = (
        ("allocated" if "allocated" in told else "allocated_peak", "allocated"),
        ("reserved", "reserved"),
        ("rss", "resident"),
        ("free", "free"),
    )
    parts += [f"{units.size(told[name])} {word}" for name, word in named if name in told]
    if "cache_predicted" in told:
        needed = told["cache_predicted"] + told.get("activations_predicted", 0)
        parts.append(f"about {units.size(needed)} needed beside the weights")
    return ", ".join(parts)


def as_json(of: Footprint) -> dict[str, Any]:
    """Bytes and joules."""
    rows = [
        {
            "path": row.path,
            "allocated": summary_json(row.allocated),
            "reserved": summary_json(row.reserved),
            "resident": summary_json(row.resident),
            "resident_peak": summary_json(row.resident_peak),
            "peak": row.peak,
            "energy_j": row.energy,
            "energy_error_j": row.energy_error,
        }
        for row in of.rows
    ]
    return {
        "stages": rows,
        "peak": of.peak,
        "rss": summary_json(of.rss),
        "kv_cache": {"measured": of.cache, "predicted": of.cache_predicted, "difference": of.cache_difference},
        "out_of_memory": of.short or None,
        "energy_j": of.energy,
    }


def _joules(value: float | None) -> str:
    return units.number(value, "J")
