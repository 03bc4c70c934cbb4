"""Step 1: videos, images and folders of images become RGB frames.

A video is first read through without decoding (every container then has an exact frame count, mkv, webm and variable
frame rates included), then decoded by seeking to the last keyframe before each wanted frame and rolling forward. Where
a container gives no usable timestamps it is decoded from the start instead. What was done is told in :class:`Frames`,
because it decides how long step 1 takes.
"""

from __future__ import annotations

import bisect
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image, ImageOps

from llava_tui.pipelines.base import BrokenInput, shown
from llava_tui.plan import DEMO

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_PACKETS_A_CHECK = 512
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


def probe_input(path: str) -> InputFacts:
    """What the input at ``path`` is; decodes one frame to be sure that it can be decoded.

    Raises :class:`BrokenInput` naming the input and the mend.
    """
    source = resolve_input(path)
    name = shown(source.name or str(source))
    if source.is_dir():
        files = _images_of(source)
        first = _read_image(files[0])
        return InputFacts(source, name, "folder", len(files), first.shape[1], first.shape[0])
    if source.suffix.lower() in IMAGE_SUFFIXES:
        first = _read_image(source)
        return InputFacts(source, name, "image", 1, first.shape[1], first.shape[0], codec=source.suffix[1:].lower())
    container, stream = _open_video(source)
    with container:
        frame = next((frame for frame in _decode(container, stream) if frame is not None), None)
        if frame is None:
            raise _undecodable(source)
        first = _rgb(frame)
        seconds = container.duration / av.time_base if container.duration else None
        return InputFacts(
            source,
            name,
            "video",
            stream.frames or None,
            first.shape[1],
            first.shape[0],
            seconds,
            stream.codec_context.name,
        )


def sample_frames(path: str | Path, count: int, check: Callable[[], None] = lambda: None) -> Frames:
    """``count`` frames of the input at ``path``, spread evenly from its first frame to its last.

    An input with fewer frames than asked for has some of them more than once. ``check`` is called between frames.
    Raises :class:`BrokenInput` if nothing can be decoded.
    """
    source = resolve_input(path)
    if source.is_dir():
        return _sample_files(_images_of(source), count, check)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return _sample_files([source], count, check)
    index = _index(source, check)
    wanted = uniform_indices(index.count, count)
    sampled = _sample_by_seeking(source, index, wanted, check) if index.times else None
    return sampled or _sample_linearly(source, index.count, wanted, check)


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
    source = Path(path).expanduser()
    try:
        mode = source.stat().st_mode
        readable = os.access(source, os.R_OK)
    except FileNotFoundError:
        raise BrokenInput(path, f"no such file or folder; an input is {kinds}, or '{DEMO}'") from None
    except (OSError, ValueError) as error:
        raise BrokenInput(path, f"cannot be opened ({_why(error)}); check the path") from None
    if not readable:
        raise BrokenInput(path, "permission denied; give this user the right to read it")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BrokenInput(path, "neither a file nor a folder; write the video to a file first")
    if stat.S_ISREG(mode) and not source.stat().st_size:
        raise BrokenInput(path, "the file is empty; copy or record it again")
    return source.absolute()


# --- images --------------------------------------------------------------------------------------------------------


def _sample_files(files: list[Path], count: int, check: Callable[[], None]) -> Frames:
    wanted = uniform_indices(len(files), count)
    read: dict[int, np.ndarray] = {}
    for index in sorted(set(wanted)):
        check()
        read[index] = _read_image(files[index])
    return Frames([read[index] for index in wanted], wanted, len(files), len(read), "files")


def _images_of(folder: Path) -> list[Path]:
    """Image files in ``folder``, in the order a person counts: frame2 before frame10."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise BrokenInput(folder, f"cannot be listed ({_why(error)})") from None
    files = [
        entry
        for entry in entries
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not files:
        raise BrokenInput(folder, "no image in this folder; it needs .png, .jpg, .webp, .bmp or .tiff files")
    return sorted(
        files, key=lambda file: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]
    )


def _read_image(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenInput(
            file, f"not an image that can be read ({_why(error)}); save it again as PNG or JPEG"
        ) from None


# --- videos --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Index:
    count: int
    times: list[int]
    """Presentation times of all frames in order, in the stream's time base; empty where the container has none."""
    keys: list[int]
    """Presentation times of the keyframes among them."""


def _open_video(source: Path) -> tuple[Any, Any]:
    """The container and its video stream. The caller closes the container."""
    try:
        # A playlist in the guise of a video must not make FFmpeg fetch anything.
        container = av.open(str(source), options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BrokenInput(
            source,
            f"not a video that can be read ({_why(error)}); "
            "give an mp4, mkv, webm or avi, an image, or a folder of images",
        ) from None
    pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not pictures:
        container.close()
        raise BrokenInput(source, "has no video stream (audio only?); give a file with pictures in it")
    stream = pictures[0]
    if stream.codec_context is None:
        container.close()
        raise BrokenInput(source, "its video codec is not known to this FFmpeg; re-encode it, as H.264 for one")
    stream.thread_type = "AUTO"
    return container, stream


def _is_cover(stream: Any) -> bool:
    """Whether a "video" stream is an album's cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def _index(source: Path, check: Callable[[], None]) -> _Index:
    """When every frame is shown, from the packets alone: nothing is decoded."""
    container, stream = _open_video(source)
    times: list[int] = []
    keys: list[int] = []
    count = 0
    with container:
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:
                    continue
                count += 1
                if count % _PACKETS_A_CHECK == 0:
                    check()
                if packet.pts is not None:
                    times.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        except av.FFmpegError:
            pass  # a file that was cut short: what came before counts
    if not count:
        raise _undecodable(source)
    usable = len(times) == count == len(set(times)) and bool(keys)
    return _Index(count, sorted(times) if usable else [], sorted(keys))


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """Frames from where the container stands; ``None`` for each packet that is damaged."""
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                yield None
    except av.FFmpegError:
        return


def _rate(stream: Any) -> float | None:
    return float(stream.average_rate) if stream.average_rate else None


def _rgb(frame: Any) -> np.ndarray:
    """(height, width, 3) uint8, upright."""
    array = frame.to_ndarray(format="rgb24")
    # FFmpeg's angle is the counter-clockwise turn that puts the picture upright; so is rot90's.
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(array, turns)) if turns else array


def _sample_by_seeking(source: Path, index: _Index, wanted: list[int], check: Callable[[], None]) -> Frames | None:
    """``None`` where the decoder's times turn out to be unusable."""
    images: dict[int, np.ndarray] = {}
    replaced: list[int] = []
    decoded = 0
    container, stream = _open_video(source)
    with container:
        frames = _decode(container, stream)
        frame: Any = None
        last_key = index.keys[0]
        for number in sorted(set(wanted)):
            target = index.times[number]
            key = index.keys[max(0, bisect.bisect_right(index.keys, target) - 1)]
            if key > last_key and (frame is None or key > frame.pts):
                last_key = key
                container.seek(key, stream=stream)
                frames, frame = _decode(container, stream), None
            while frame is None or frame.pts < target:
                check()
                following: Any = next(frames, _END)
                if following is _END:
                    break
                if following is None:
                    continue
                if following.pts is None or (frame is None and following.pts > target and number > 0):
                    return None  # no times, or the seek landed too late
                frame = following
                decoded += 1
            if frame is None:
                return None
            if frame.pts != target:
                replaced.append(number)
            images[number] = _rgb(frame)
    return Frames([images[number] for number in wanted], wanted, index.count, decoded, "seek", replaced, _rate(stream))


def _sample_linearly(source: Path, total: int, wanted: list[int], check: Callable[[], None]) -> Frames:
    images: dict[int, np.ndarray] = {}
    missing = sorted(set(wanted), reverse=True)
    frame = None
    decoded = 0
    container, stream = _open_video(source)
    with container:
        for following in _decode(container, stream):
            check()
            if following is None:
                continue
            frame = following
            if decoded == missing[-1]:
                images[missing.pop()] = _rgb(frame)
            decoded += 1
            if not missing:
                break
        if frame is None:
            raise _undecodable(source)
        for number in missing:
            images[number] = _rgb(frame)
    sampled = [images[number] for number in wanted]
    return Frames(sampled, wanted, total, decoded, "linear", sorted(missing), _rate(stream))


_END = object()


def _undecodable(source: Path) -> BrokenInput:
    return BrokenInput(source, "no frame of it can be decoded (cut short, damaged or encrypted); copy or re-encode it")


def _why(error: BaseException) -> str:
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return shown(lines[0] if lines else type(error).__name__)
