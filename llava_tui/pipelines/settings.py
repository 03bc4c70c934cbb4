"""What cases of one session set on a loaded model: attention of all of it or of its vision tower, threads, the size
that pictures are scaled to; and which of the models it is, where several are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llava_tui.pipelines.resolution import Scaling
from llava_tui.plan import Case, Load, Plan

_VISION = "vision_config"


@dataclass(frozen=True, slots=True)
class Held:
    """A model in memory."""

    model: Any
    device: Any
    """Where it takes its inputs."""


class Settings:
    """The model that each case runs on, set as the case asks for it."""

    def __init__(self, torch: Any, held: Mapping[Load, Held], plan: Plan, scaling: Scaling | None = None) -> None:
        """``held`` are the models that are loaded; cases of other loads are refused by :meth:`apply`."""
        self._torch = torch
        self._held = held
        self._plan = plan
        self._scaling = scaling
        self._threads = torch.get_num_threads()
        self._loaded = {id(one.model): attentions(one.model) for one in held.values()}

    def apply(self, case: Case) -> Held:
        """The model as ``case`` asks for it. Raises what the library raises for an attention that it does not have,
        and :class:`ValueError` for a size that its vision tower does not take."""
        if (held := self._held.get(self._plan.load_of(case))) is None:
            raise ValueError(f"{self._plan.load_of(case)}: its model is not loaded now")
        model = held.model
        wanted = self._attentions(case, self._loaded[id(model)])
        if attentions(model) != wanted:
            model.set_attn_implementation(wanted if len(wanted) > 1 else wanted[""])
        if self._scaling is not None:
            self._scaling.apply(case)
        if self._torch.get_num_threads() != (threads := case.threads or self._threads):
            self._torch.set_num_threads(threads)
        return held

    def _attentions(self, case: Case, loaded: dict[str, str]) -> dict[str, str]:
        wanted = dict.fromkeys(loaded, case.attention) if case.attention else dict(loaded)
        vision = case.vision_attention or self._plan.vision_attention
        if vision != "auto":
            if _VISION not in wanted:
                raise ValueError("this model has one attention for all of it")
            wanted[_VISION] = vision
        return wanted


def attentions(model: Any) -> dict[str, str]:
    """The attention of the model (""), and of each of its parts that has a config of its own."""
    found = {"": model.config._attn_implementation or "eager"}
    for name in model.config.sub_configs:
        if (part := getattr(model.config, name, None)) is not None:
            found[name] = part._attn_implementation or "eager"
    return found
