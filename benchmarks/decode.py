"""Step 1's decoding beside PyAV written out by hand: the same frames of the same clips, in turns.

Run with ``python benchmarks/decode.py`` on a machine that does nothing else (ten minutes on two cores; ``--only mkv``
for a part of it, ``taskset -c 0`` for one core, ``--cpu-time`` where others work beside). By hand there are four ways:
*linear* decodes from the start up to the last frame wanted, *seek* seeks to the keyframe before each and rolls forward,
both with PyAV's own threading (slices) and with ``AUTO`` (frames as well), all with one reformatter for all frames.
They take the number of frames from the container where it says it, and count packets where it does not (mkv, webm);
that the clips have a constant rate they are told. The quickest of them in a first look is what step 1 is measured
against, in pairs of alternating order; a ratio is the median of the pairs', with its 95 % interval. All must give the
same pixels. Exits 1 where a ratio is above the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from llava_tui.analysis.statistics import median_interval
from llava_tui.pipelines.frames import sample_frames, uniform_indices

RATE = 30
COUNTS = (4, 8, 16, 64)
LOOKS = 3
MOST_PAIRS = 60
FEWEST_PAIRS = 10

clock = time.perf_counter

Pictures = list[np.ndarray]
Way = Callable[[Path, int], Pictures]


@dataclass(frozen=True)
class Clip:
    """One of those that are tried."""

    suffix: str
    codec: str
    gop: int
    size: tuple[int, int]
    frames: int
    options: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.codec} gop {self.gop:<3} {self.size[0]}x{self.size[1]} {self.frames:>4} frames .{self.suffix}"


def clips() -> list[Clip]:
    """Short and long, in two sizes."""
    vp9 = (("deadline", "realtime"), ("cpu-used", "8"), ("row-mt", "1"))
    kinds = [
        ("mp4", "libx264", 12, (("preset", "veryfast"),)),
        ("mp4", "libx264", 250, (("preset", "veryfast"),)),
        ("mkv", "libx264", 48, (("preset", "veryfast"),)),
        ("webm", "libvpx-vp9", 60, vp9),
        ("avi", "mpeg4", 12, ()),
    ]
    lengths = [((320, 240), 120), ((320, 240), 1800), ((1280, 720), 120), ((1280, 720), 600)]
    return [
        Clip(suffix, codec, gop, size, frames, options)
        for suffix, codec, gop, options in kinds
        for size, frames in lengths
    ]


def write(clip: Clip, path: Path) -> None:
    """Encodes the clip: a textured ground that drifts, with a box that moves over it."""
    width, height = clip.size
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 120, (height // 8 + 2, width // 8 + 2, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    building = path.with_name(f"building-{path.name}")
    with av.open(str(building), "w") as container:
        stream = container.add_stream(clip.codec, rate=RATE, options=dict(clip.options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = width * height * 4
        stream.codec_context.gop_size = clip.gop
        for number in range(clip.frames):
            image = np.roll(ground[:height, :width], number % width, 1)
            left = (number * 5) % (width - 40)
            image[height // 3 : height // 2, left : left + 40] = 250, 200, number % 250
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    building.rename(path)


def frames_of(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """The container's word, or its packets counted."""
    if stream.frames:
        return stream.frames
    count = sum(1 for packet in container.demux(stream) if packet.size)
    container.seek(0)
    return count


def linear(threads: str) -> Way:
    def way(path: Path, count: int) -> Pictures:
        reformatter = VideoReformatter()
        pictures: Pictures = []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = threads
            wanted = uniform_indices(frames_of(container, stream), count)
            for number, frame in enumerate(container.decode(stream)):
                while len(pictures) < count and wanted[len(pictures)] == number:
                    pictures.append(reformatter.reformat(frame, format="rgb24").to_ndarray())
                if len(pictures) == count:
                    break
        return pictures

    return way


def seek(threads: str) -> Way:
    def way(path: Path, count: int) -> Pictures:
        reformatter = VideoReformatter()
        pictures: Pictures = []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = threads
            start = stream.start_time or 0
            for number in uniform_indices(frames_of(container, stream), count):
                target = start + round(Fraction(number, RATE) / stream.time_base)
                near = target - 0.5 / RATE / stream.time_base
                container.seek(target, stream=stream)
                for frame in container.decode(stream):
                    if (frame.pts if frame.pts is not None else frame.dts) >= near:
                        pictures.append(reformatter.reformat(frame, format="rgb24").to_ndarray())
                        break
        return pictures

    return way


WAYS: dict[str, Way] = {
    "linear": linear("SLICE"),
    "linear auto": linear("AUTO"),
    "seek": seek("SLICE"),
    "seek auto": seek("AUTO"),
}


def timed(way: Way, path: Path, count: int) -> tuple[float, Pictures]:
    """Seconds, and the pictures."""
    begin = clock()
    pictures = way(path, count)
    return clock() - begin, pictures


def step_1(path: Path, count: int) -> Pictures:
    return sample_frames(path, count).images


def same(first: Pictures, second: Pictures) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def best_by_hand(path: Path, count: int) -> str:
    """The quickest way in a first look. Raises where one has other pixels than step 1."""
    looks: dict[str, list[float]] = {name: [] for name in WAYS}
    _, ours = timed(step_1, path, count)
    for turn in range(LOOKS):
        for name, way in WAYS.items():
            if turn and looks[name][0] > 3 * min(times[0] for times in looks.values()):
                continue
            seconds, pictures = timed(way, path, count)
            if not same(pictures, ours):
                raise SystemExit(f"{path.name}: {count} frames by hand ({name}) are others than those of step 1")
            looks[name].append(seconds)
    return min(looks, key=lambda name: min(looks[name]))


def compared(path: Path, count: int, limit: float, patience_s: float) -> tuple[str, list[float], list[float]]:
    """The way by hand, and the seconds of step 1 and of that way, pair by pair.

    Goes on until the interval lies on one side of the limit, or as long as the patience lasts.
    """
    name = best_by_hand(path, count)
    ours: list[float] = []
    theirs: list[float] = []
    begin = time.perf_counter()
    while len(ours) < MOST_PAIRS:
        order = ((step_1, ours), (WAYS[name], theirs))
        for way, times in order if len(ours) % 2 else reversed(order):
            times.append(timed(way, path, count)[0])
        if len(ours) >= FEWEST_PAIRS:
            low, high = interval(ours, theirs)
            if high < limit or low > limit or time.perf_counter() - begin > patience_s:
                break
    return name, ours, theirs


def ratios(ours: list[float], theirs: list[float]) -> np.ndarray:
    return np.array(ours) / np.array(theirs)


def interval(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    return median_interval(ratios(ours, theirs)) or (0.0, float("inf"))


def main() -> int:
    """Prints a line a clip and count; 0 if the figure is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=1.1, help="times the best by hand")
    parser.add_argument("--only", default="", help="clips whose line holds this text")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--patience", type=float, default=8, help="seconds of pairs at most, a line")
    parser.add_argument("--clips", type=Path, help="folder to keep the clips in")
    parser.add_argument("--cpu-time", action="store_true", help="of all threads, where others work beside")
    given = parser.parse_args()
    if given.cpu_time:
        global clock
        clock = time.process_time
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.clips or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for clip in clips():
            if given.only not in clip.name:
                continue
            path = folder / f"{clip.name.replace(' ', '_')}"
            if not path.exists():
                write(clip, path)
            for count in map(int, given.counts.split(",")):
                name, ours, theirs = compared(path, count, given.limit, given.patience)
                ratio, (low, high) = float(np.median(ratios(ours, theirs))), interval(ours, theirs)
                missed += ratio > given.limit
                chosen = sample_frames(path, count)
                print(
                    f"{clip.name:<50} {count:>3}  {count / median(ours):7,.0f} frames/s ({chosen.sampling}, "
                    f"{chosen.decoded} decoded)  by hand {count / median(theirs):7,.0f} ({name})  "
                    f"{ratio:.2f} × [{low:.2f}, {high:.2f}]{'  MISSED' if ratio > given.limit else ''}",
                    flush=True,
                )
    print(f"{missed} above {given.limit:g} ×" if missed else f"all within {given.limit:g} ×")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
