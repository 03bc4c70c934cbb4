"""Frames of videos, by number: exactly those that were asked for, decoded as quickly as can be.

Two things decide how long that takes. *Where each frame is*: mp4 and avi list their frames, and where they list them
at a constant rate nothing else is read. The list is believed as long as every frame comes at the time that it promises;
else, and for every other container, the whole file is read through once without decoding, and what was read is kept to
decode from. *What is decoded*: everything between two wanted frames, or only from the last keyframe before the second,
whichever is less. A group ends with the packets of its wanted frames, so that the decoder need not be fed on until
it lets go of the last.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from llava_tui.pipelines.base import BrokenInput
from llava_tui.pipelines.images import why

_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h261,h263,h264,hevc,vvc,av1,obu,ivf,vc1,flv,asf,ogg,gif,nut,"
    "mxf,dv,rm,mjpeg,yuv4mpegpipe,wav,mp3,flac,aac"
)
"""Those that hold pictures or sound of their own. A playlist (HLS, DASH, concat, SDP) names other files, and a file
is not to choose what is read or fetched."""
_MOST_PIXELS = 1 << 26
"""Of a frame; 8K is half of it. A damaged header may ask for any."""
_LIMITS = {"max_pixels": str(_MOST_PIXELS)}
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS, **_LIMITS}
_PACKETS_A_CHECK = 512
_KEPT_BYTES = 256 * 1024**2
"""Of packets that were read through; a larger file is read again where it is decoded."""
_LARGE = 640 * 360
"""Pixels from which it pays that several cores decode frames side by side."""
_SEEK_COSTS = 2
"""Frames that could be decoded in the time of a seek."""
_LOOKED_AT = 64
"""Entries of a container's list that must lie at a constant rate, beside those of the frames wanted."""


@dataclass(slots=True)
class Sampled:
    """What came of :func:`sample`."""

    pictures: dict[int, np.ndarray]
    """By number: uint8, (height, width, 3), RGB, upright."""
    total: int
    decoded: int
    """Frames that the decoder gave."""
    sampling: str
    """``seek`` or ``linear``."""
    replaced: list[int] = field(default_factory=list)
    """Numbers that could not be decoded and were given the nearest later (or last) frame."""
    fps: float | None = None


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a header and the first frame tell."""

    frames: int | None
    width: int
    height: int
    seconds: float | None
    codec: str


@dataclass(frozen=True, slots=True)
class _Target:
    """A wanted frame."""

    number: int
    time: int
    """When it is shown, in the stream's time base."""
    key: int
    """The number of the frame that decoding has to start from to have it."""
    start: int
    """Where that is, as the source of packets knows it."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Where the wanted frames are."""

    count: int
    """Frames that the video has."""
    wanted: list[int]
    """Numbers of those wanted, each once, in order."""
    targets: list[_Target]
    """The same; none where times are no guide."""
    tolerance: int = 0
    """How far from its time a frame may be."""
    packets: list[Any] = field(default_factory=list)
    """The whole file's, where they are kept."""


def probe(source: Path) -> VideoFacts:
    """What the video at ``source`` is; decodes one frame to be sure that it can be. Raises :class:`BrokenInput`."""
    with _opened(source) as (container, stream):
        frame = next(_frames(stream.codec_context, _demux(container, stream)), None)
        if frame is None:
            raise _undecodable(source)
        first = _Painter(stream)(frame)
        seconds = container.duration / av.time_base if container.duration else None
        return VideoFacts(stream.frames or None, first.shape[1], first.shape[0], seconds, stream.codec_context.name)


def sample(source: Path, choose: Callable[[int], list[int]], check: Callable[[], None]) -> Sampled:
    """The frames whose numbers ``choose`` gives, told how many there are. ``check`` is called between frames.

    Raises :class:`BrokenInput` if nothing can be decoded.
    """
    with _opened(source) as (container, stream):
        index = None if _has_no_times(container, stream) else _listed(stream, choose)
        sampled = _by_time(container, stream, index, check) if index else None
    if sampled is None:
        with _opened(source) as (container, stream):
            index = _read_through(container, stream, choose, check)
            sampled = _by_time(container, stream, index, check) if index and index.targets else None
    if sampled is None and index is not None:
        with _opened(source) as (container, stream):
            sampled = _in_order(container, stream, index, check)
    if sampled is None:
        raise _undecodable(source)
    return sampled


# --- where the frames are ------------------------------------------------------------------------------------------


def _listed(stream: Any, choose: Callable[[int], list[int]]) -> _Index | None:
    """By the container's own list of frames; ``None`` where it has none, or none at a constant rate."""
    entries = stream.index_entries
    count = len(entries)
    if count < 2 or count != stream.frames or stream.start_time is None:
        return None
    first = entries[0].timestamp
    step = (entries[count - 1].timestamp - first) / (count - 1)
    tolerance = int(step / 4)
    wanted = sorted(set(choose(count)))
    # A frame's entry stands where it is decoded, which is up to a few frames from where it is shown.
    near = {number + off for number in wanted for off in range(-2, 5) if 0 <= number + off < count}
    for number in near.union(range(0, count, max(1, count // _LOOKED_AT))):
        entry = entries[number]
        if abs(entry.timestamp - first - number * step) > tolerance or entry.is_discard or not entry.size:
            return None
    if step < 1:
        return None
    targets = []
    for number in wanted:
        time = stream.start_time + round(number * step)
        key = entries.search_timestamp(first + round(number * step), backward=True)
        targets.append(_Target(number, time, max(0, key), time))
    return _Index(count, wanted, targets, tolerance)


def _read_through(
    container: Any, stream: Any, choose: Callable[[int], list[int]], check: Callable[[], None]
) -> _Index | None:
    """By the packets of the whole file, which every container has. ``None`` where there are none."""
    packets: list[Any] = []
    times: list[int] = []
    keys: list[tuple[int, int]] = []  # When they are shown, and their places among the packets.
    count = read = kept = 0
    may_be_hidden = stream.codec_context.name == "vp8"
    for packet in _demux(container, stream):
        size, time = packet.size, packet.pts
        if not size:
            continue
        if kept <= _KEPT_BYTES:
            packets.append(packet)
            kept += size
        if time is not None and packet.is_keyframe:
            keys.append((time, read))
        read += 1
        if read % _PACKETS_A_CHECK == 0:
            check()
        if packet.is_discard or (may_be_hidden and not memoryview(packet)[0] & 0x10):
            continue  # Decoded for the sake of others, and not shown.
        count += 1
        if time is not None:
            times.append(time)
    if not count:
        return None
    if kept > _KEPT_BYTES:
        packets = []
    wanted = sorted(set(choose(count)))
    if _has_no_times(container, stream) or not keys or len(times) != count or len(set(times)) != count:
        return _Index(count, wanted, [], packets=packets)
    times.sort()
    keys.sort()
    targets = []
    for number in wanted:
        shown, place = keys[max(0, bisect.bisect_right(keys, (times[number], read)) - 1)]
        key = bisect.bisect_left(times, shown)
        start = place if packets else shown
        targets.append(_Target(number, times[number], key, start if key else 0))
    return _Index(count, wanted, targets, packets=packets)


def _has_no_times(container: Any, stream: Any) -> bool:
    """avi knows when a frame is decoded and not when it is shown: where the two differ, its times are made up."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


# --- what is decoded -----------------------------------------------------------------------------------------------


def _by_time(container: Any, stream: Any, index: _Index, check: Callable[[], None]) -> Sampled | None:
    """The wanted frames, each known by its time; ``None`` where one does not come at its own."""
    context, painter = stream.codec_context, _Painter(stream)
    pictures: dict[int, np.ndarray] = {}
    decoded = 0
    groups = _groups(index.targets)
    for group in groups:
        packets: Iterable[Any]
        if index.packets:
            context.flush_buffers()
            packets = index.packets[group[0].start :]
        else:
            if group[0].key or pictures:
                try:
                    container.seek(group[0].start, stream=stream)
                except av.FFmpegError:
                    return None
            packets = _demux(container, stream)
        targets = iter(group)
        target = next(targets)
        for frame in _frames(context, packets, [target.time for target in group], index.tolerance):
            check()
            decoded += 1
            if frame.pts is None or frame.pts > target.time + index.tolerance:
                return None
            if frame.pts < target.time - index.tolerance:
                continue
            pictures[target.number] = painter(frame)
            following = next(targets, None)
            if following is None:
                break
            target = following
        else:
            return None
    return Sampled(pictures, index.count, decoded, "seek" if len(groups) > 1 else "linear", fps=_rate(stream))


def _groups(targets: list[_Target]) -> list[list[_Target]]:
    """Targets that are decoded in one go: where the next one's keyframe is far enough ahead, it is sought."""
    groups = [targets[:1]]
    for before, target in pairwise(targets):
        if target.key - before.number > _SEEK_COSTS:
            groups.append([target])
        else:
            groups[-1].append(target)
    return groups


def _in_order(container: Any, stream: Any, index: _Index, check: Callable[[], None]) -> Sampled | None:
    """Everything from the start, for videos that are damaged or have no times: in place of a frame that does not come,
    the next one. ``None`` where nothing can be decoded."""
    painter = _Painter(stream)
    pictures: dict[int, np.ndarray] = {}
    replaced: list[int] = []
    missing = index.wanted[::-1]
    due = {target.number: target.time for target in index.targets}
    frame = None
    decoded = 0
    for frame in _frames(stream.codec_context, _demux(container, stream)):
        check()
        while missing:
            number = missing[-1]
            late = frame.pts - due[number] if due and frame.pts is not None else decoded - number
            if late < 0:
                break
            pictures[missing.pop()] = painter(frame)
            if late:
                replaced.append(number)
        decoded += 1
        if not missing:
            break
    if frame is None:
        return None
    for number in missing:
        pictures[number] = painter(frame)
    return Sampled(pictures, index.count, decoded, "linear", sorted(replaced + missing), _rate(stream))


def _demux(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, as far as the file goes: of one that was cut short, what came before."""
    try:
        yield from container.demux(stream)
    except (av.FFmpegError, IndexError):  # The latter where damage seems to begin another stream.
        return


def _frames(context: Any, packets: Iterable[Any], times: Sequence[int] = (), tolerance: int = 0) -> Iterator[Any]:
    """What the packets decode to; those that are damaged are left out. Ends when the packets of all ``times``, in
    order, were decoded: one that is shown earlier may come later."""
    left = len(times)
    for packet in packets:
        if not packet.size:
            continue
        try:
            yield from context.decode(packet)
        except av.FFmpegError:
            continue
        if times and packet.pts is not None:
            place = bisect.bisect_left(times, packet.pts - tolerance)
            left -= place < len(times) and times[place] <= packet.pts + tolerance
            if not left:
                break
    try:
        yield from context.decode(None)
    except av.FFmpegError:
        return


class _Painter:
    """Frames as RGB pictures, upright. One a stream: what it takes to convert is set up once."""

    def __init__(self, stream: Any) -> None:
        self._reformatter = VideoReformatter()
        self._threads = 0 if _is_large(stream) else 1

    def __call__(self, frame: Any) -> np.ndarray:
        converted = self._reformatter.reformat(frame, format="rgb24", threads=self._threads)
        array = converted.to_ndarray()
        if converted is frame:
            array = array.copy()  # It was the decoder's own.
        return np.ascontiguousarray(_upright(array, frame))


def _upright(array: np.ndarray, frame: Any) -> np.ndarray:
    """As the container's display matrix has it: x' = a·x + c·y, y' = b·x + d·y. Turned by quarters, and mirrored."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return array
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
    if abs(a) < abs(b):
        array, right, down = array.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return array[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


# --- containers ----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream. Raises :class:`BrokenInput`."""
    try:
        container = av.open(str(source), options=_OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BrokenInput(
            source,
            f"not a video that can be read ({why(error)}); "
            "give an mp4, mkv, webm or avi, an image, or a folder of images",
        ) from None
    with container:
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams:
            raise BrokenInput(source, "has no video stream (audio only?); give a file with pictures in it")
        stream = streams[0]
        if stream.codec_context is None:
            raise BrokenInput(source, "its video codec is not known to this FFmpeg; re-encode it, as H.264 for one")
        if stream.width * stream.height > _MOST_PIXELS:
            raise BrokenInput(source, f"has too many pixels ({_MOST_PIXELS:,} at most); make it smaller")
        stream.codec_context.options = _LIMITS
        # Small frames are decoded sooner than they are handed from core to core.
        stream.thread_type = "AUTO" if _is_large(stream) else "SLICE"
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise BrokenInput(source, f"cannot be decoded ({why(error)}); re-encode it, as H.264 for one") from None


def _is_large(stream: Any) -> bool:
    return bool(stream.width * stream.height >= _LARGE)


def _is_cover(stream: Any) -> bool:
    """Whether a "video" stream is an album's cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def _rate(stream: Any) -> float | None:
    return float(stream.average_rate) if stream.average_rate else None


def _undecodable(source: Path) -> BrokenInput:
    return BrokenInput(source, "no frame of it can be decoded (cut short, damaged or encrypted); copy or re-encode it")
