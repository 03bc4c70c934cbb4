"""What a config says that a stage costs is what it costs when it runs, for every family, or is not said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recording_probe import RecordingProbe
from tiny_families import FAMILIES, VIDEO

from llava_tui import costs
from llava_tui.pipelines import families
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import Case, Plan

pytestmark = pytest.mark.models

UNKNOWN = {
    "llava_next_video": ("projector",),
    "video_llava": ("projector",),
    "qwen2_vl": ("vision", "projector"),
    "qwen2_5_vl": ("vision", "projector"),
    "qwen3_vl": ("vision", "projector"),
}
"""What the config alone does not tell."""


def operations(modules: tuple[Any, ...], counted: dict[str, float]) -> float:
    """Of modules that are run by themselves: torch counts them under the names of their classes."""
    return sum(counted.get(name, 0) for name in {type(module).__name__ for module in modules})


@pytest.fixture
def pipeline(family: str, media: str, tiny_family: Callable[[str], Path]) -> Iterator[LlavaPipeline]:
    plan = Plan(model=str(tiny_family(family)), device="cpu", attention="eager", prompt="What moves?", media=media)
    loaded = LlavaPipeline(plan)
    loaded.load(RecordingProbe())
    yield loaded
    loaded.close()


@pytest.mark.parametrize(
    ("family", "media"), [*((family, "image") for family in FAMILIES), *((family, "video") for family in VIDEO)]
)
def test_the_flops_of_a_run_are_those_that_its_config_tells(family: str, pipeline: LlavaPipeline) -> None:
    """Tiles and pooled frames too: the run says how many pictures its tower saw, and how long its prompt was."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        run = pipeline.run(Case(4, 1, 1), ("demo",), 0, RecordingProbe())
    counted = {name: float(sum(of.values())) for name, of in counter.get_flop_counts().items()}
    parts = families.parts(pipeline.model)
    vision, projector = operations(parts.towers, counted), operations(parts.projectors, counted)
    language = counted["Global"] - vision - projector
    parameters = sum(parameter.numel() for parameter in pipeline.model.parameters())
    made = costs.architecture(pipeline.config, "float32", parameters)
    assert tuple(made.missing) == UNKNOWN.get(family, ())
    assert made.prefill_cost(run.prompt_tokens).dense == pytest.approx(language, rel=0.01)
    if made.vision is not None:
        assert made.vision_cost(run.facts["pictures"]).dense == pytest.approx(vision, rel=0.01)
    if made.projector is not None:
        assert made.projector_cost(run.facts["pictures"]).dense == pytest.approx(projector, rel=0.01)
