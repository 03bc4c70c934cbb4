"""Whether a case's prompt fits the model's context, found out before anything runs: by the config where it says all,
else by having the processor make the tokens of blank pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from llava_tui import architecture
from llava_tui.pipelines.base import PipelineError, first_line
from llava_tui.pipelines.batching import Batching
from llava_tui.pipelines.frames import Frames, InputFacts, probe_input
from llava_tui.plan import Case, Plan
from llava_tui.units import counted

_TOLD_BY_CONFIG = ("llava", "vipllava")
"""Families whose processors put nothing but a fixed number of tokens in a picture's place."""
_BLANK_BYTES = 128 * 1024**2
"""Blank pictures of one count."""
_FIRST_TRIED = 16
_PROBED = 16
"""Inputs that are looked at for their size."""
_TRIES = 4

Count = Callable[[int], tuple[int, int]]
"""Tokens of text, and of pictures, in a prompt about so many frames."""


def before_running(batching: Batching, config: dict[str, Any], plan: Plan, case: Case) -> str:
    """Why ``case`` overflows the context or cannot be given to the model, and how to mend it; "" if nothing is known
    against it."""
    context = architecture.context_length(config)
    if context is None:
        return ""
    try:
        media, steps, count = _counting(batching, config, plan, case.frames)
        text = pictures = tried = 0
        for tried in steps:
            text, pictures = count(tried)
            if text + pictures + case.new_tokens > context:
                break
        else:
            known = architecture.image_tokens(config, case.frames, media) if tried < case.frames else None
            if known is None or text + known + case.new_tokens <= context:
                return ""
            tried, pictures = case.frames, known
        fitting = _fitting(count, tried, text + pictures, context - case.new_tokens)
    except PipelineError as error:
        return str(error)
    except ValueError as error:  # the processor's own word on what it does not take
        return f"{counted(case.frames, 'frame')}: {first_line(error)}"
    return _words(case, tried, text, pictures, context, fitting)


def _counting(batching: Batching, config: dict[str, Any], plan: Plan, frames: int) -> tuple[str, list[int], Count]:
    """How frames are given, how many of them to try, one number after the other, and what counts their tokens."""
    if architecture.model_type(config) in _TOLD_BY_CONFIG:

        def by_config(some: int) -> tuple[int, int]:
            text = batching.length(batching.prompt(plan.prompt, some, "image")) - some
            return text, architecture.image_tokens(config, some, "image") or 0

        return "image", [frames], by_config
    source = _largest(plan.inputs) if frames else None
    media = batching.media([_blank(source, frames)] if source is not None else [], plan.media)

    def by_processor(some: int) -> tuple[int, int]:
        clips = [_blank(source, some)] if source is not None else []
        batch = batching.tensors([batching.prompt(plan.prompt, some, media)], clips, media)
        prompt, pictures = batching.count(batch)
        return prompt - pictures, pictures

    if source is None:  # text only, or inputs that cannot be read, which is told elsewhere
        return media, [0], by_processor
    most = max(1, _BLANK_BYTES // (3 * source.width * source.height))
    return media, list(_steps(min(frames, most))), by_processor


def _steps(frames: int) -> Iterator[int]:
    """Numbers of frames up to ``frames``: more never take fewer tokens, so that far too many are told early."""
    step = _FIRST_TRIED
    while step < frames:
        yield step
        step *= 4
    yield frames


def _fitting(count: Count, frames: int, tokens: int, room: int) -> int:
    """The most frames below ``frames``, which take ``tokens``, that take no more than ``room``; 0 where none are known
    to."""
    if frames < 2:
        return 0
    one = sum(count(1))
    found = min(frames - 1, 1 + max(-1, int((room - one) * (frames - 1) / max(1, tokens - one))))
    for fewer in range(found, max(0, found - _TRIES), -1):
        if sum(count(fewer)) <= room:
            return fewer
    return 0


def _words(case: Case, frames: int, text: int, pictures: int, context: int, fitting: int) -> str:
    mend = f"use --frames {fitting}" + (" or fewer" if fitting > 1 else "") if fitting else "use fewer --new-tokens"
    seen = ""
    if frames:
        each, rest = divmod(pictures, frames)
        tokens = f"= {pictures:,} tokens" if rest else f"× {each:,} tokens"
        of = "" if frames == case.frames else f" of {case.frames:,}"
        seen = f"{counted(frames, 'frame')}{of} {tokens} + "
    total = text + pictures + case.new_tokens
    return f"{seen}{text:,} prompt + {case.new_tokens:,} new = {total:,} > {context:,} context; {mend}"


def _largest(inputs: tuple[str, ...]) -> InputFacts | None:
    """The input with the largest pictures; ``None`` where none can be read, which is told elsewhere."""
    found = []
    for path in inputs[:_PROBED]:
        try:
            found.append(probe_input(path))
        except PipelineError:
            continue
    return max(found, key=lambda facts: facts.width * facts.height, default=None)


def _blank(source: InputFacts, frames: int) -> Frames:
    """``frames`` pictures of the size of a source's, of the same kind."""
    picture = np.zeros((source.height, source.width, 3), np.uint8)
    total = 1 if source.kind == "image" else max(frames, source.frames or 2)
    return Frames([picture] * frames, list(range(frames)), total, 0, "linear" if source.kind == "video" else "files")
