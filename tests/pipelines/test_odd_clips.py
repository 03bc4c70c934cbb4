"""Clips as phones, cameras and editors make them: the frames that were asked for, upright and in the right colours."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from llava_tui.pipelines import videos
from llava_tui.pipelines.base import BrokenInput
from llava_tui.pipelines.checkpoints import COUNTER_BITS, COUNTER_CELL, frame_number
from llava_tui.pipelines.frames import Frames, probe_input, sample_frames, uniform_indices

pytestmark = pytest.mark.models

WIDTH, HEIGHT, COUNT = COUNTER_BITS * COUNTER_CELL, 64, 24
RGB = {"red": (230, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220), "grey": (128, 128, 128)}
CONTAINERS = ("mp4", "mkv", "webm", "avi")
CODECS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}
FAST = {
    "libx264": {"preset": "ultrafast", "x264-params": "log-level=none"},
    "libx264rgb": {"preset": "ultrafast", "x264-params": "log-level=none"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    # No AV1: libsvtav1, the only encoder for it here, makes the process and all that it starts real-time ones, as root.
}


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture with its number in binary along its upper edge, and a dark ground below."""
    image = np.full((height, width, 3), 60, np.uint8)
    for bit in range(COUNTER_BITS):
        image[:COUNTER_CELL, bit * COUNTER_CELL : (bit + 1) * COUNTER_CELL] = 255 * (number >> bit & 1)
    return image


def write(
    path: Path,
    images: Iterable[np.ndarray] | None = None,
    codec: str = "",
    pixels: str = "yuv420p",
    times: list[int] | None = None,
    gop: int = 6,
    audio: str = "",
    options: dict[str, str] | None = None,
    set_up: Callable[[Any], None] = lambda stream: None,
    shape: Callable[[Any], Any] = lambda frame: frame,
) -> Path:
    """A clip at 12 frames a second; ``audio`` is a codec, whose stream comes first."""
    images = [numbered(number) for number in range(COUNT)] if images is None else list(images)
    codec = codec or CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        sound = container.add_stream(audio, rate=8000) if audio else None
        stream = container.add_stream(codec, rate=12, options=FAST.get(codec, {}) | (options or {}))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = gop
        stream.codec_context.bit_rate = 2_000_000
        set_up(stream)
        if sound is not None:
            quiet = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            quiet.sample_rate = 8000
            for number in range(16):
                quiet.pts = number * 1024
                for part in av.AudioResampler(format=sound.format, layout="mono", rate=8000).resample(quiet):
                    container.mux(sound.encode(part))
            container.mux(sound.encode(None))
        for number, image in enumerate(images):
            frame = shape(av.VideoFrame.from_ndarray(image, format="rgb24"))
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 12)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(frames: Frames) -> list[int]:
    return [frame_number(image) for image in frames.images]


def assert_sampled(path: Path, count: int = 5, total: int = COUNT) -> Frames:
    frames = sample_frames(path, count)
    assert frames.total == total
    assert numbers(frames) == frames.indices == uniform_indices(total, count)
    assert not frames.replaced
    assert frames.decoded <= total
    for image in frames.images:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.flags.c_contiguous
        assert image.flags.writeable
    return frames


# --- times and order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("count", [2, 5, 23])
def test_frames_of_a_plain_clip_are_exact(container: str, count: int, tmp_path: Path) -> None:
    assert_sampled(write(tmp_path / f"clip.{container}"), count)


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize("kind", ["a gap", "a late frame", "crowded"])
def test_a_variable_rate_is_sampled_by_frame_and_not_by_time(container: str, kind: str, tmp_path: Path) -> None:
    times = {
        "a gap": [number + (500 if number > 13 else 0) for number in range(COUNT)],
        "a late frame": [number * 10 + 4 * (number == 12) for number in range(COUNT)],
        "crowded": [number**2 for number in range(COUNT)],
    }[kind]
    assert_sampled(write(tmp_path / f"variable.{container}", times=times), 7)


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("gop", ["closed", "open"])
def test_frames_that_are_stored_out_of_order_come_in_order(container: str, gop: str, tmp_path: Path) -> None:
    """B-frames: a frame may be decoded three frames before it is shown."""
    params = f"log-level=none:bframes=3:b-adapt=0:keyint=8:scenecut=0:open-gop={int(gop == 'open')}"
    path = write(tmp_path / f"ordered.{container}", codec="libx264", options={"preset": "fast", "x264-params": params})
    for count in (3, 7, 13, 24):
        assert_sampled(path, count)


@pytest.mark.parametrize("container", CONTAINERS)
def test_several_cores_give_the_same_frames(container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large frames are decoded side by side, and come out later than they went in."""
    params = "log-level=none:bframes=3:b-adapt=0:keyint=8:scenecut=0"
    options = {"x264-params": params} if CODECS[container] == "libx264" else {}
    path = write(tmp_path / f"large.{container}", options=options)
    alone = [sample_frames(path, count).images for count in (4, 13)]
    monkeypatch.setattr(videos, "_LARGE", 0)
    for count, expected in zip((4, 13), alone, strict=True):
        assert np.array_equal(assert_sampled(path, count).images, expected)


def test_the_list_of_an_mp4_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the whole file first would make step 1 slower than by hand."""

    def refused(*_: Any) -> None:
        raise AssertionError("read through")

    monkeypatch.setattr(videos, "_read_through", refused)
    params = "log-level=none:bframes=3:b-adapt=0:keyint=8:scenecut=0"
    for name, codec, options in (("clip.mp4", "libx264", {"x264-params": params}), ("clip.avi", "mpeg4", {})):
        for count in (2, 13, 23):
            assert_sampled(write(tmp_path / name, codec=codec, options=options), count)


def test_an_hour_at_a_low_rate_is_not_decoded(tmp_path: Path) -> None:
    images = (numbered(number) for number in range(720))
    path = write(tmp_path / "hour.mp4", images, times=[number * 60 for number in range(720)], gop=30)
    assert probe_input(str(path)).seconds == pytest.approx(3600, rel=0.01)
    frames = assert_sampled(path, 4, 720)
    assert frames.sampling == "seek"
    assert frames.decoded <= 1 + 3 * 30  # at most a group for each but the first


@pytest.mark.parametrize("container", ["mkv", "webm"])
def test_what_is_too_large_to_keep_is_read_again(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "_KEPT_BYTES", 1000)
    path = write(tmp_path / f"large.{container}")
    for count in (2, 5, 23):
        assert_sampled(path, count)


@pytest.mark.parametrize("container", ["mkv", "webm"])
def test_frames_that_are_never_shown_are_not_counted(container: str, tmp_path: Path) -> None:
    """VP8 stores pictures that only others are made from."""
    path = write(
        tmp_path / f"hidden.{container}",
        codec="libvpx",
        options={"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "good", "arnr-maxframes": "5"},
        gop=60,
    )
    assert_sampled(path, 23)


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_interlaced_frames_are_frames(container: str, tmp_path: Path) -> None:
    params = "log-level=none:tff=1"
    assert_sampled(write(tmp_path / f"fields.{container}", codec="libx264", options={"x264-params": params}))


# --- what else a file holds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "audio"), [("mp4", "aac"), ("mkv", "flac"), ("avi", "pcm_s16le")])
def test_a_file_that_begins_with_sound_has_its_pictures_read(container: str, audio: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"sound.{container}", audio=audio)
    with av.open(str(path)) as opened:
        assert opened.streams[0].type == "audio"
    assert_sampled(path)


def test_an_albums_cover_is_no_video(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "cover.png")
    cover = av.Packet((tmp_path / "cover.png").read_bytes())
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        picture = container.add_stream("png", rate=1)
        picture.width = picture.height = 32
        picture.pix_fmt = "rgb24"
        picture.disposition = av.stream.Disposition.attached_pic
        container.start_encoding()
        cover.stream, cover.pts, cover.dts, cover.is_keyframe = picture, 0, 0, True
        container.mux(cover)
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        quiet.sample_rate = 8000
        container.mux(sound.encode(quiet))
        container.mux(sound.encode(None))
    with av.open(str(path)) as opened:
        assert len(opened.streams.video) == 1
    with pytest.raises(BrokenInput, match="no video stream"):
        probe_input(str(path))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_video_stream_without_a_picture_is_said_so(container: str, tmp_path: Path) -> None:
    path = tmp_path / f"bare.{container}"
    with av.open(str(path), "w") as opened:
        stream = opened.add_stream(CODECS[container], rate=12)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        opened.start_encoding()
    for read in (probe_input, lambda path: sample_frames(path, 2)):
        with pytest.raises(BrokenInput) as caught:
            read(str(path))
        assert "bare" in str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("left", [9, 20])
def test_what_is_left_of_a_file_that_was_cut_short_is_read(container: str, left: int, tmp_path: Path) -> None:
    path = write(tmp_path / f"cut.{container}")
    if container == "mp4":  # With its list of frames in front, as those are that are made to be streamed.
        path = _list_in_front(path)
    with av.open(str(path)) as opened:
        places = [packet.pos for packet in opened.demux(video=0) if packet.size]
    os.truncate(path, places[left])
    frames = sample_frames(path, 4)
    assert left - 2 <= frames.total <= left
    assert numbers(frames)[:-1] == frames.indices[:-1]


def _list_in_front(path: Path) -> Path:
    moved = path.with_name(f"front-{path.name}")
    with (
        av.open(str(path)) as source,
        av.open(str(moved), "w", container_options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return moved


# --- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [
        ("mp4", "libx265", "yuv420p10le"),
        ("mkv", "libx265", "yuv420p10le"),
        ("avi", "ffv1", "yuv420p10le"),
    ],
)
def test_ten_bits_become_eight(container: str, codec: str, pixels: str, tmp_path: Path) -> None:
    frames = assert_sampled(write(tmp_path / f"deep.{container}", codec=codec, pixels=pixels))
    assert frames.images[-1].max() > 240


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv444p"),
        ("mkv", "libx264rgb", "bgr0"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("avi", "ffv1", "bgr0"),
        ("avi", "rawvideo", "bgr24"),
        ("mkv", "mpeg4", "yuv420p"),
    ],
)
def test_an_odd_size_keeps_every_pixel(container: str, codec: str, pixels: str, tmp_path: Path) -> None:
    width, height = WIDTH + 1, HEIGHT + 3
    images = (numbered(number, width, height) for number in range(COUNT))
    frames = assert_sampled(write(tmp_path / f"odd.{container}", images, codec=codec, pixels=pixels))
    assert frames.images[0].shape == (height, width, 3)


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize(("space", "matrix"), [("ITU601", 6), ("ITU709", 1)])
@pytest.mark.parametrize("scale", ["limited", "full"])
def test_colours_are_those_that_were_filmed(
    container: str, space: str, matrix: int, scale: str, tmp_path: Path
) -> None:
    """Read with the other matrix green is 20 levels off; with the other range grey is."""
    image = np.concatenate([np.full((HEIGHT, 48, 3), colour, np.uint8) for colour in RGB.values()], axis=1)
    reach = 2 if scale == "full" else 1

    def set_up(stream: Any) -> None:
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = reach

    def shape(frame: Any) -> Any:
        return frame.reformat(
            format="yuv444p" if container != "webm" else "yuv420p",
            dst_colorspace=getattr(av.video.reformatter.Colorspace, space),
            dst_color_range=reach,
        )

    pixels = "yuv444p" if container != "webm" else "yuv420p"
    path = write(tmp_path / f"colours.{container}", [image] * 3, pixels=pixels, set_up=set_up, shape=shape)
    got = sample_frames(path, 1).images[0]
    for place, colour in enumerate(RGB.values()):
        assert np.abs(got[24, 24 + 48 * place].astype(int) - colour).max() <= 6, list(RGB)[place]


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_video_is_read_without_its_transparency(codec: str, tmp_path: Path) -> None:
    frames = assert_sampled(
        write(tmp_path / "clear.webm", codec=codec, pixels="yuva420p", options={"auto-alt-ref": "0"})
    )
    assert frames.images[0].shape == (HEIGHT, WIDTH, 3)


MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
MIRRORED = {0: (-1, 0, 0, 1), 90: (0, -1, -1, 0), 180: (1, 0, 0, -1), 270: (0, 1, 1, 0)}


@pytest.mark.parametrize("degrees", MATRICES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_phone_held_any_way_gives_upright_pictures(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    """The matrix in an mp4's header says how the stored picture is to be turned to be shown."""
    path = write(tmp_path / "turned.mp4", [_corners()] * 3, pixels="yuv444p")
    a, b, c, d = (value << 16 for value in (MIRRORED if mirrored else MATRICES)[degrees])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    shown = _corners()[:, ::-1] if mirrored else _corners()
    expected = np.rot90(shown, -degrees // 90)
    got = sample_frames(path, 1).images[0]
    assert got.shape == expected.shape
    assert np.abs(got[4::8, 4::8].astype(int) - expected[4::8, 4::8]).max() < 20
    facts = probe_input(str(path))
    assert (facts.height, facts.width) == expected.shape[:2]


def _corners() -> np.ndarray:
    image = np.full((64, 96, 3), 128, np.uint8)
    image[:32, :32], image[:32, -32:], image[32:, :32] = RGB["red"], RGB["green"], RGB["blue"]
    return image


# --- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "webp", "apng", "png"])
def test_an_animated_picture_is_a_video(suffix: str, tmp_path: Path) -> None:
    images = [Image.fromarray(numbered(number)) for number in range(8)]
    path = tmp_path / f"moving.{suffix}"
    kind = {"apng": "PNG"}.get(suffix, suffix.upper())
    images[0].save(
        path,
        format=kind,
        save_all=True,
        append_images=images[1:],
        duration=80,
        **({"lossless": True} if suffix == "webp" else {}),
    )
    frames = sample_frames(path, 4)
    assert numbers(frames) == frames.indices == uniform_indices(8, 4)
    assert (frames.total, frames.decoded, frames.sampling) == (8, 8, "linear")
    assert (probe_input(str(path)).kind, probe_input(str(path)).frames) == ("video", 8)


def test_of_a_file_with_pages_the_first_counts(tmp_path: Path) -> None:
    pages = [Image.fromarray(numbered(number)) for number in (5, 6)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    frames = sample_frames(tmp_path / "pages.tiff", 2)
    assert numbers(frames) == [5, 5]
    assert (frames.total, frames.sampling) == (1, "files")


def _save(folder: Path, kind: str) -> Path:
    grey = np.full((20, 30), 128, np.uint8)
    if kind == "16 bits":
        Image.fromarray(grey.astype(np.uint16) << 8).save(folder / "deep.png")
        return folder / "deep.png"
    image = Image.fromarray(np.dstack([grey, grey, grey]))
    if kind == "CMYK":
        image.convert("CMYK").save(folder / "print.jpg", quality=95)
        return folder / "print.jpg"
    if kind == "transparent":
        image.putalpha(Image.fromarray(np.full((20, 30), 7, np.uint8)))
        image.save(folder / "clear.png")
        return folder / "clear.png"
    if kind == "palette":
        image.quantize(4).save(folder / "few.png")
        return folder / "few.png"
    image.convert({"grey": "L", "grey and alpha": "LA"}[kind]).save(folder / "plain.png")
    return folder / "plain.png"


@pytest.mark.parametrize("kind", ["16 bits", "CMYK", "transparent", "grey", "palette", "grey and alpha"])
def test_every_kind_of_picture_is_middle_grey(kind: str, tmp_path: Path) -> None:
    image = sample_frames(_save(tmp_path, kind), 1).images[0]
    assert image.shape == (20, 30, 3)
    assert np.abs(image.astype(int) - 128).max() <= 4


def test_a_photograph_in_a_mirror_is_put_right(tmp_path: Path) -> None:
    upright = Image.fromarray(_corners())
    exif = upright.getexif()
    for orientation, stored in ((6, np.rot90(_corners(), 1)), (2, _corners()[:, ::-1]), (3, np.rot90(_corners(), 2))):
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.jpg", exif=exif, quality=95)
        got = sample_frames(tmp_path / "photo.jpg", 1).images[0]
        assert np.abs(got[8::16, 8::16].astype(int) - _corners()[8::16, 8::16]).max() < 16


def test_pixels_without_a_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(BrokenInput, match="floating-point"):
        sample_frames(tmp_path / "float.tiff", 1)


# --- names and hostile files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b.mp4", "Küche–猫.mp4", "two\nlines.mp4", "-i.mp4", "file:x%03d.mp4", "100%.mp4"])
def test_any_name_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "clip.mp4", [numbered(3)]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers(sample_frames(tmp_path / name, 1)) == numbers(sample_frames(name, 1)) == [3]


def test_a_name_that_is_no_text_will_do(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    write(tmp_path / "clip.mp4", [numbered(3)]).rename(tmp_path / name)
    assert numbers(sample_frames(tmp_path / name, 1)) == [3]


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat", "list.mp4", "list.mkv", "list.sdp", "list.mpd"])
@pytest.mark.parametrize("kind", ["hls", "concat", "dash"])
def test_a_list_of_other_files_is_not_followed(name: str, kind: str, tmp_path: Path) -> None:
    """A file must not choose which of the user's other files is read."""
    write(tmp_path / "private.ts", codec="libx264", images=[numbered(3)] * 3)
    (tmp_path / name).write_text(
        {
            "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nprivate.ts\n#EXT-X-ENDLIST\n",
            "concat": "ffconcat version 1.0\nfile private.ts\n",
            "dash": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>private.ts</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>",
        }[kind]
    )
    with pytest.raises(BrokenInput, match="not a video that can be read"):
        sample_frames(tmp_path / name, 1)


@pytest.mark.parametrize("side", [12_000, 14_000])
def test_a_picture_that_unpacks_to_fill_memory_is_refused(side: int, tmp_path: Path) -> None:
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(BrokenInput, match="too many"):
        probe_input(str(tmp_path / "bomb.png"))


def test_a_frame_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    """Its size stands in the header of the picture; the file is as small as before."""
    path = write(tmp_path / "huge.avi", [numbered(number) for number in range(3)], codec="png", pixels="rgb24")
    data = path.read_bytes()
    header = struct.pack(">II", WIDTH, HEIGHT)
    assert header in data
    path.write_bytes(data.replace(header, struct.pack(">II", 16_000, 16_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BrokenInput):
        sample_frames(path, 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_damage_anywhere_is_one_line_or_does_no_harm(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    whole = [write(tmp_path / f"clip.{container}").read_bytes() for container in CONTAINERS]
    for turn in range(120):
        data = bytearray(whole[turn % 4])
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] = rng.integers(256)
        path = tmp_path / f"damaged.{CONTAINERS[turn % 4]}"
        path.write_bytes(data[: rng.integers(len(data) // 4, len(data))] if turn % 3 == 0 else data)
        said, shapes = "", []
        try:
            shapes = [image.shape for image in sample_frames(path, 3).images]
        except BrokenInput as error:
            said = str(error)
        assert said.isprintable()
        assert said.startswith(str(path)) if said else [shape[2] for shape in shapes] == [3, 3, 3]


@pytest.mark.parametrize("container", ["mov", "mkv", "webm"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_every_container_that_can_say_so_is_turned(container: str, degrees: int, tmp_path: Path) -> None:
    codec = "libvpx-vp9" if container == "webm" else "libx264"

    def set_up(stream: Any) -> None:
        stream.set_display_rotation(degrees)

    path = write(tmp_path / f"turned.{container}", codec=codec, set_up=set_up)
    with av.open(str(path)) as opened:
        turned = next(opened.decode(video=0)).rotation
    if not turned:
        pytest.skip(f"this FFmpeg writes no rotation into .{container}")
    upright = np.rot90(numbered(COUNT - 1), turned // 90)
    got = sample_frames(path, 2).images[1]
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < 12
