"""Step 1: videos, images and folders of images become RGB frames, spread evenly over the input.

What was done is told in :class:`Frames`, because it decides how long step 1 takes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llava_tui.pipelines import images, videos
from llava_tui.pipelines.base import BrokenInput, shown
from llava_tui.plan import DEMO, expanded

_KINDS = "a video, an image, a folder of images"


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What an input is, as far as its first frame and its header tell."""

    path: Path
    name: str
    kind: str
    """``video``, ``image`` or ``folder``."""
    frames: int | None
    """``None`` where the container does not say; decoding counts."""
    width: int
    height: int
    seconds: float | None = None
    codec: str = ""


@dataclass(slots=True)
class Frames:
    """Frames sampled from one input."""

    images: list[np.ndarray]
    """uint8, (height, width, 3), RGB, upright; one for each index asked for."""
    indices: list[int]
    total: int
    """Frames the input has."""
    decoded: int
    """Frames that were decoded to get at those that were asked for."""
    sampling: str
    """``seek``, ``linear`` or ``files``."""
    replaced: list[int] = field(default_factory=list)
    """Indices that could not be decoded and were given the nearest later (or last) frame instead."""
    fps: float | None = None
    """Frames a second on average; ``None`` where the input has no time."""
    separate: bool = False
    """Whether they are pictures that were named one by one, not moments of one scene."""


def probe_input(path: str) -> InputFacts:
    """What the input at ``path`` is; decodes one frame to be sure that it can be decoded.

    Raises :class:`BrokenInput` naming the input and the mend.
    """
    source = resolve_input(path)
    name = shown(source.name or str(source))
    if source.is_dir():
        files = images.images_of(source)
        first, _ = images.read_first(files[0])
        return InputFacts(source, name, "folder", len(files), first.shape[1], first.shape[0])
    if source.suffix.lower() in images.SUFFIXES:
        first, total = images.read_first(source)
        kind, codec = "video" if total > 1 else "image", source.suffix[1:].lower()
        return InputFacts(source, name, kind, total, first.shape[1], first.shape[0], codec=codec)
    video = videos.probe(source)
    return InputFacts(source, name, "video", video.frames, video.width, video.height, video.seconds, video.codec)


def sample_frames(path: str | Path | Sequence[str], count: int, check: Callable[[], None] = lambda: None) -> Frames:
    """``count`` frames of the input at ``path``, spread evenly from its first frame to its last. Several paths are
    those of images, taken as a folder of them is.

    An input with fewer frames than asked for has some of them more than once. ``check`` is called between frames.
    Raises :class:`BrokenInput` if nothing can be decoded.
    """

    def choose(total: int) -> list[int]:
        return uniform_indices(total, count)

    if not isinstance(path, (str, Path)):
        return replace(_sample_folder([resolve_input(each) for each in path], count, check), separate=True)
    source = resolve_input(path)
    if source.is_dir():
        return _sample_folder(images.images_of(source), count, check)
    if source.suffix.lower() in images.SUFFIXES:
        pictures, total, decoded = images.read(source, choose, check)
        wanted = choose(total)
        return Frames([pictures[i] for i in wanted], wanted, total, decoded, "linear" if total > 1 else "files")
    video = videos.sample(source, choose, check)
    wanted = choose(video.total)
    return Frames(
        [video.pictures[i] for i in wanted],
        wanted,
        video.total,
        video.decoded,
        video.sampling,
        video.replaced,
        video.fps,
    )


def _sample_folder(files: list[Path], count: int, check: Callable[[], None]) -> Frames:
    wanted = uniform_indices(len(files), count)
    read: dict[int, np.ndarray] = {}
    for index in sorted(set(wanted)):
        check()
        read[index], _ = images.read_first(files[index])
    return Frames([read[index] for index in wanted], wanted, len(files), len(read), "files")


def uniform_indices(total: int, count: int) -> list[int]:
    """``count`` indices into ``total`` frames, the first and the last among them; one alone is the first."""
    if count == 1:
        return [0]
    return [i * (total - 1) // (count - 1) for i in range(count)]


def resolve_input(path: str | Path, kinds: str = _KINDS) -> Path:
    """The file or folder that ``path`` means; ``demo`` is the clip synthesised on this machine. ``kinds`` says what an
    input may be.

    Raises :class:`BrokenInput` where there is none that can be read.
    """
    if path == DEMO:
        from llava_tui.pipelines.checkpoints import demo_video

        return demo_video()
    source = expanded(path)
    try:
        mode = source.stat().st_mode
        readable = os.access(source, os.R_OK)
    except FileNotFoundError:
        raise BrokenInput(path, f"no such file or folder; an input is {kinds}, or '{DEMO}'") from None
    except (OSError, ValueError) as error:
        raise BrokenInput(path, f"cannot be opened ({images.why(error)}); check the path") from None
    if not readable:
        raise BrokenInput(path, "permission denied; give this user the right to read it")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BrokenInput(path, "neither a file nor a folder; write the video to a file first")
    if stat.S_ISREG(mode) and not source.stat().st_size:
        raise BrokenInput(path, "the file is empty; copy or record it again")
    return source.absolute()
