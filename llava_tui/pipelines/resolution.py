"""The size that pictures are scaled to before the vision tower, for towers that take more than one.

Three kinds. Qwen-VL's tower takes any size: its processor scales to a number of pixels, and keeps the shape. Idefics3's
and SmolVLM's processors scale the longer edge and cut tiles of the tower's size. All others have one size.
"""

from __future__ import annotations

import copy
from typing import Any

from llava_tui.plan import Case


class Scaling:
    """What a processor scales to, set case by case."""

    def __init__(self, processor: Any, config: dict[str, Any], media: str = "auto") -> None:
        """``media`` as in a plan: only pictures are cut into tiles."""
        self._parts = {
            name: part for name in ("image_processor", "video_processor") if (part := getattr(processor, name, None))
        }
        self._sizes = {name: copy.deepcopy(getattr(part, "size", None)) for name, part in self._parts.items()}
        self._vision: dict[str, Any] = config.get("vision_config") or {}
        self._type = str(config.get("model_type", ""))
        self._media = media
        self._now = 0

    def apply(self, case: Case) -> None:
        """Scales to ``case.resolution`` from now on; 0: as the processor does by itself. Raises :class:`ValueError`
        where the model takes no such size."""
        if not case.resolution and not self._now:
            return
        for name, part in self._parts.items():
            size = copy.deepcopy(self._sizes[name])
            part.size = self._scaled(name, part, size, case) if case.resolution else size
        self._now = case.resolution

    def _scaled(self, name: str, part: Any, size: Any, case: Case) -> Any:
        side = case.resolution
        if self._vision.get("spatial_merge_size") and not self._vision.get("image_size"):
            step = int(self._vision["patch_size"]) * int(self._vision["spatial_merge_size"])
            if side % step:
                raise ValueError(f"the vision tower takes sides that are multiples of {step} pixels")
            pictures = 1
            if name == "video_processor" and self._type.startswith("qwen3"):  # counts the pixels of all frames
                every = int(self._vision.get("temporal_patch_size") or 1)
                pictures = -(-case.frames // every) * every
            size.shortest_edge = size.longest_edge = side * side * pictures
            return size
        tile = getattr(part, "max_image_size", None)
        if tile is not None:
            if "video_processor" in self._parts and self._media != "image":
                raise ValueError("the frames of a video have one size; add --media image")
            if name == "video_processor":
                return size
            if side % int(tile["longest_edge"]):
                raise ValueError(f"pictures are cut into tiles of {tile['longest_edge']} pixels: give a multiple")
            size.longest_edge = side
            return size
        own = self._vision.get("image_size")
        own = own[0] if isinstance(own, (list, tuple)) else own
        if side != own:
            raise ValueError(f"the vision tower takes {own} pixels and no other size; leave --resolution out")
        return size
