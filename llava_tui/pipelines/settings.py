"""What cases of one session set on the loaded model: attention, dtype, threads."""

from __future__ import annotations

import copy
from typing import Any

from llava_tui.plan import Case, Plan


class Settings:
    """The model that each case runs on. Of every dtype that the plan names there is a copy of the weights, converted
    once: converting to and fro would lose digits, and tokens with them."""

    def __init__(self, torch: Any, model: Any, plan: Plan) -> None:
        """Makes the copies on the model's device; ``model`` is the first."""
        self._torch = torch
        self._first = model
        self._models = {_name(model.dtype): model}
        self._threads = torch.get_num_threads()
        self._attention = model.config._attn_implementation or "eager"
        for name in plan.dtype.split(","):
            if name != "auto" and name not in self._models:
                self._models[name] = copy.deepcopy(model).to(getattr(torch, name))

    def apply(self, case: Case) -> Any:
        """The model as ``case`` asks for it. Raises what the library raises for an attention that it does not have."""
        model = self._models[case.dtype] if case.dtype else self._first
        attention = case.attention or self._attention
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        if self._torch.get_num_threads() != (wanted := case.threads or self._threads):
            self._torch.set_num_threads(wanted)
        return model


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
