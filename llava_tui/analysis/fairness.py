"""What makes two sides comparable: what has to be equal, what may differ and is told, and how the machine was."""

from __future__ import annotations

from typing import Any

import numpy as np

from llava_tui.analysis.machine import Watched
from llava_tui.analysis.measures import Measures, case_values, median
from llava_tui.analysis.shared import same_leaves
from llava_tui.session.timeline import View

_EXPLAINED = {
    "frames": ("frames", "image tokens", "prompt tokens"),
    "batch": ("batch", "frames", "image tokens", "prompt tokens"),
    "new_tokens": ("new tokens",),
}
"""What differs as well where the cases of one session differ in a swept value."""


def _facts(of: Measures) -> dict[str, Any]:
    """What has to be equal for a comparison to mean something; what is not known is left out."""
    view, model = of.view, of.view.model
    facts: dict[str, Any] = {"pipeline": view.header.pipeline, "stage map": tuple(of.paths)}
    if model is not None:
        facts |= {
            "model": model.name,
            "model revision": model.revision,
            "model digest": model.digest,
            "dtype": model.dtype,
            "quantization": model.extra.get("quantization"),
        }
        if model.digest:  # The same model may lie in another folder.
            del facts["model"]
    values = case_values(of.view, of.case)
    facts |= {"frames": _told(of, "frames"), "batch": values.get("batch")}
    for name in ("prompt", "image", "new"):
        facts[f"{name} tokens"] = _told(of, f"{name}_tokens")
    facts |= {key: values[key] for key in ("dtype", "quantization") if key in values}
    return {key: value for key, value in facts.items() if value not in (None, "", ())}


def _setting(of: Measures) -> dict[str, Any]:
    """What may differ, and is told."""
    view, model = of.view, of.view.model
    host = view.header.host
    setting: dict[str, Any] = {"CPU": host.cpu, "governor": host.governor, "ranks": len(view.timeline.ranks)}
    if model is not None:
        setting |= {"device": model.device_name or model.device, "attention": model.attention}
        setting |= {key: model.extra.get(key) for key in ("threads", "cache", "compile", "device_map")}
    for device in view.devices.values():
        setting["driver"] = device.driver
    setting |= view.header.versions
    axes = (*_EXPLAINED, "dtype", "quantization")
    setting |= {key: value for key, value in case_values(of.view, of.case).items() if key not in axes}
    return {key: value for key, value in setting.items() if value not in (None, "", {}, [])}


def _told(of: Measures, column: str) -> tuple[float, ...]:
    values = of.column(column)
    return tuple(np.unique(values[np.isfinite(values)]).tolist())


def differences(
    labels: tuple[str, str], runs_a: list[Measures], runs_b: list[Measures], one_session: bool
) -> tuple[list[str], list[str]]:
    """Why the two sides (a session each entry, under their labels) are not comparable; and what else differs.

    Cases of ``one_session`` may differ in what the plan sweeps: that is the question they answer.
    """
    reasons: list[str] = []
    notes: list[str] = []
    for label, runs in zip(labels, (runs_a, runs_b), strict=True):
        if not all(of.n for of in runs):
            reasons.append(f"{label} has no measured run of {runs[0].case}")
    if reasons:
        return reasons, notes
    base, everyone = runs_a[0], [*runs_a[1:], *runs_b]
    kinds = {of.view.header.provenance for of in (base, *everyone)}
    if "simulated" in kinds and len(kinds) > 1:
        reasons.append("simulated against real: a model of hardware is no measurement")
    if "imported" in kinds and len(kinds) > 1:
        notes.append("imported against measured here: how the imported one was timed is not known")
    if kinds == {"pretrained", "random-weights"}:
        notes.append("pretrained against random weights: times compare, tokens do not")
    swept = _swept(base, runs_b[0]) if one_session else {}
    explained = {key for name in swept for key in _EXPLAINED.get(name, (name,))}
    facts = _facts(base)
    for of in everyone:
        other = _facts(of)
        reasons += [
            _difference(key, facts[key], other[key])
            for key in facts.keys() & other.keys() - explained
            if facts[key] != other[key] and not (key == "stage map" and same_leaves(base, of))
        ]
    if swept:
        notes.append("the cases differ in " + ", ".join(f"{key} ({x} → {y})" for key, (x, y) in swept.items()))
    setting = _setting(base)
    for of in everyone:
        other = _setting(of)
        notes += [
            f"{key}: {setting[key]} against {other[key]}"
            for key in setting.keys() & other.keys() - swept.keys()
            if setting[key] != other[key]
        ]
    same_work = not one_session or (swept and not swept.keys() & _EXPLAINED.keys())
    if same_work and not reasons and _texts(base) != _texts(runs_b[0]):
        notes.append("the generated tokens differ, in equal number")
    return sorted(dict.fromkeys(reasons)), list(dict.fromkeys(notes))


def _swept(a: Measures, b: Measures) -> dict[str, tuple[Any, Any]]:
    """The plan's values in which two cases of one session differ: what the comparison is about."""
    x, y = case_values(a.view, a.case), case_values(b.view, b.case)
    return {key: (x.get(key), y.get(key)) for key in sorted(x.keys() | y.keys()) if x.get(key) != y.get(key)}


def _texts(of: Measures) -> set[str]:
    """Distinct token sequences of the newest runs; of many runs the last few tell."""
    runs = of.view.runs
    return {str(runs.value("token_ids", int(row))) for row in of.rows[-8:]}


def _difference(key: str, a: Any, b: Any) -> str:
    if key == "stage map":
        only = [sorted(set(x) - set(y)) for x, y in ((a, b), (b, a))]
        parts = [f"only {name} has {', '.join(paths)}" for name, paths in zip("AB", only, strict=True) if paths]
        return f"stage map: {'; '.join(parts) or 'another order'}"
    return f"{key}: {_shown(a)} against {_shown(b)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{part:g}" for part in value[:4]) + (" …" if len(value) > 4 else "")
    return str(value)[:20]


def clock(of: Measures) -> float | None:
    """Median SM clock of the model's GPUs, MHz, of the samples within the runs."""
    return median(Watched(of).column("sm_clock_mhz"))


def utilization(of: Measures) -> float | None:
    """Median utilization of the model's GPUs, percent, of the samples within the runs."""
    return median(Watched(of).column("utilization"))


def machine_of(view: View) -> str:
    """Names the machine that measured: its CPU and the device, by UUID where it has one."""
    host, model = view.header.host, view.model
    parts = [host.cpu, f"{host.cores} cores"]
    if not host.container:  # Containers get a new name each.
        parts.insert(0, host.hostname)
    if model is not None and model.device_name:
        parts.append(model.device_name)
    if view.header.provenance == "simulated":
        return parts[-1]
    return " · ".join([*parts, *(device.uuid for device in view.devices.values() if device.uuid)])


def model_of(view: View) -> str:
    """Names the model that was measured: its digest where it has one."""
    model = view.model
    if model is None:
        return view.header.model
    return " · ".join(filter(None, (model.name, model.dtype, model.digest[:16])))
