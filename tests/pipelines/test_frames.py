"""Frames are those that were asked for, from every container; what cannot be read is said so, with the mend."""

from __future__ import annotations

import os
import socket
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava_tui.pipelines import checkpoints, event_streams
from llava_tui.pipelines.base import BrokenInput, Cancelled, PipelineError
from llava_tui.pipelines.checkpoints import frame_number, synthesise_video
from llava_tui.pipelines.frames import probe_input, sample_frames, uniform_indices


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of 48 numbered frames in every container."""
    folder = tmp_path_factory.mktemp("clips")
    for suffix in ("mp4", "mkv", "webm", "avi"):
        synthesise_video(folder / f"clip.{suffix}")
    return folder


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi"])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 48])
def test_the_frames_asked_for_come_out(clips: Path, suffix: str, count: int) -> None:
    frames = sample_frames(clips / f"clip.{suffix}", count)
    assert frames.total == 48
    assert [frame_number(image) for image in frames.images] == frames.indices == uniform_indices(48, count)
    assert frames.images[0].shape == (240, 320, 3)
    assert frames.images[0].dtype == np.uint8
    assert frames.decoded <= 48
    assert not frames.replaced


@given(total=st.integers(1, 10_000), count=st.integers(1, 200))
def test_uniform_indices_span_the_input(total: int, count: int) -> None:
    indices = uniform_indices(total, count)
    assert len(indices) == count
    assert indices == sorted(indices)
    assert indices[0] == 0
    assert indices[-1] == (total - 1 if count > 1 else 0)
    steps = np.diff(indices)
    assert not len(steps) or steps.max() - steps.min() <= 1


def test_a_few_frames_of_a_long_video_are_not_decoded_from_the_start(tmp_path: Path) -> None:
    clip = synthesise_video(tmp_path / "long.mp4", seconds=40, size=(192, 64))
    frames = sample_frames(clip, 3)
    assert [frame_number(image) for image in frames.images] == [0, 239, 479]
    assert frames.sampling == "seek"
    assert frames.decoded < 48  # at most a few groups of 12 pictures


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_is_sampled_by_frame(tmp_path: Path, suffix: str) -> None:
    times = [0, 1, 2, 3, 40, 41, 42, 90, 91, 92, 93, 94, 95, 200, 201, 202, 203, 204, 205, 300]
    clip = synthesise_video(tmp_path / f"variable.{suffix}", times=times)
    frames = sample_frames(clip, 5)
    assert frames.total == 20  # 300 ticks long: duration times rate would say 300
    assert [frame_number(image) for image in frames.images] == uniform_indices(20, 5)


@pytest.mark.parametrize("suffix", ["h264", "mpegts"])
def test_streams_without_an_index_are_read_too(tmp_path: Path, suffix: str) -> None:
    """A bare H.264 stream has no times at all; a transport stream has neither count nor index."""
    name = "clip.h264" if suffix == "h264" else "clip.ts"
    clip = synthesise_video(tmp_path / name, seconds=2)
    frames = sample_frames(clip, 4)
    assert [frame_number(image) for image in frames.images] == uniform_indices(24, 4)


def test_more_frames_than_there_are_come_more_than_once(tmp_path: Path) -> None:
    clip = synthesise_video(tmp_path / "short.mp4", times=[0, 1, 2])
    frames = sample_frames(clip, 5)
    assert [frame_number(image) for image in frames.images] == [0, 0, 1, 1, 2]
    assert frames.total == frames.decoded == 3


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_phone_held_sideways_is_put_upright(clips: Path, tmp_path: Path, quarter_turns: int) -> None:
    """The turn is a matrix in the track's header; the picture is stored unturned."""
    matrices = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}  # clockwise, as phones write them
    a, b, c, d = (value << 16 for value in matrices[quarter_turns])
    data = bytearray((clips / "clip.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    upright = np.rot90(sample_frames(turned, 2).images[1], quarter_turns)  # turned back, counter-clockwise
    assert frame_number(upright) == 47
    facts = probe_input(str(turned))
    assert (facts.width, facts.height) == ((240, 320) if quarter_turns % 2 else (320, 240))


def test_probing_tells_what_a_video_is(clips: Path) -> None:
    facts = probe_input(str(clips / "clip.mp4"))
    assert (facts.kind, facts.name, facts.frames, facts.width, facts.height) == ("video", "clip.mp4", 48, 320, 240)
    assert facts.codec == "h264"
    assert facts.seconds == pytest.approx(4, abs=0.2)
    assert probe_input(str(clips / "clip.mkv")).frames is None  # not in its header; counted when it is sampled


def test_demo_is_a_clip_made_here() -> None:
    assert probe_input("demo").path == checkpoints.demo_video()
    assert sample_frames("demo", 4).total == 48


def test_a_cut_comes_between_frames(clips: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        sample_frames(clips / "clip.mp4", 8, check)
    assert calls == 5


# --- images --------------------------------------------------------------------------------------------------------


def _paint(path: Path, value: int, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Path:
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)
    return path


def test_a_folder_is_read_in_the_order_a_person_counts(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11, 100):
        _paint(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_bytes(b"not one either")
    frames = sample_frames(tmp_path, 6)
    assert [int(image[0, 0, 0]) for image in frames.images] == [1, 2, 9, 10, 11, 100]
    assert frames.sampling == "files"
    facts = probe_input(str(tmp_path))
    assert (facts.kind, facts.frames, facts.width, facts.height) == ("folder", 6, 40, 30)


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB", "CMYK"])
def test_one_image_is_every_frame(tmp_path: Path, mode: str) -> None:
    path = _paint(tmp_path / ("image.tiff" if mode == "CMYK" else "image.png"), 200, mode)
    frames = sample_frames(path, 3)
    assert [image.shape for image in frames.images] == [(30, 40, 3)] * 3
    assert frames.decoded == 1
    frames.images[0][0, 0] = 0  # writable, as torch wants it


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 30), (10, 10, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    image.save(tmp_path / "photo.jpg", exif=exif)
    assert sample_frames(tmp_path / "photo.jpg", 1).images[0].shape == (40, 30, 3)


# --- what cannot be read ---------------------------------------------------------------------------------------------


def _bad_inputs(folder: Path, clip: bytes) -> dict[str, tuple[Path, str, str]]:
    """Name: (path, what is said, the mend)."""
    folder.mkdir(exist_ok=True)
    (folder / "empty").mkdir()
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(clip[: len(clip) // 2])
    (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(5000))
    os.mkfifo(folder / "pipe.mp4")
    with wave.open(str(folder / "song.wav"), "wb") as song:
        song.setparams((1, 2, 8000, 800, "NONE", ""))
        song.writeframes(bytes(1600))
    return {
        "missing": (folder / "gone.mp4", "no such file", "an input is a video"),
        "empty folder": (folder / "empty", "no image in this folder", "it needs .png"),
        "text": (folder / "text.mp4", "not a video that can be read", "give an mp4"),
        "zero bytes": (folder / "zero.mp4", "the file is empty", "again"),
        "cut short": (folder / "cut.mp4", "not a video that can be read", "give an mp4"),
        "broken image": (folder / "image.png", "not an image that can be read", "save it again"),
        "noise": (folder / "noise.mkv", "not a video that can be read", "give an mp4"),
        "pipe": (folder / "pipe.mp4", "neither a file nor a folder", "to a file first"),
        "audio": (folder / "song.wav", "no video stream", "with pictures"),
        "null byte": (folder / "a\0b.mp4", "cannot be opened", "check the path"),
        "under a file": (folder / "text.mp4" / "x", "cannot be opened", "check the path"),
    }


_BAD = [
    "missing",
    "empty folder",
    "text",
    "zero bytes",
    "cut short",
    "broken image",
    "noise",
    "pipe",
    "audio",
    "null byte",
    "under a file",
]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> dict[str, tuple[Path, str, str]]:
    return _bad_inputs(tmp_path_factory.mktemp("bad"), (clips / "clip.mp4").read_bytes())


@pytest.mark.parametrize("name", _BAD)
def test_what_cannot_be_read_is_named_with_its_mend(bad: dict[str, tuple[Path, str, str]], name: str) -> None:
    path, what, mend = bad[name]
    for read in (probe_input, lambda path: sample_frames(path, 2)):
        with pytest.raises(PipelineError) as caught:
            read(str(path))
        message = str(caught.value)
        assert what in message
        assert mend in message
        assert path.name.replace("\0", "?") in message
        assert message.isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_someone_else_is_said_so(tmp_path: Path) -> None:
    file = _paint(tmp_path / "mine.png", 1)
    file.chmod(0)
    with pytest.raises(PipelineError, match="permission denied"):
        probe_input(str(file))


def test_a_video_without_decodable_frames_is_said_so(clips: Path, tmp_path: Path) -> None:
    """The headers are whole, every picture is noise."""
    data = bytearray((clips / "clip.avi").read_bytes())
    start, end = data.index(b"movi") + 4, data.index(b"idx1")
    at = start
    while at < end:  # blank each chunk's payload, keep its header
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at + 8 : at + 8 + size] = bytes(size)
        at += 8 + size + size % 2
    broken = tmp_path / "noise.avi"
    broken.write_bytes(data)
    for read in (probe_input, lambda path: sample_frames(path, 2)):
        with pytest.raises(PipelineError, match=r"noise\.avi: no frame of it can be decoded"):
            read(str(broken))


def test_a_damaged_video_gives_what_it_has(clips: Path, tmp_path: Path) -> None:
    data = bytearray((clips / "clip.mkv").read_bytes())
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    frames = sample_frames(cut, 4)
    assert 5 < frames.total < 48
    assert [frame_number(image) for image in frames.images] == uniform_indices(frames.total, 4)

    data[len(data) // 3 : len(data) // 2] = np.random.default_rng(1).bytes(len(data) // 2 - len(data) // 3)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(data)
    assert len(sample_frames(damaged, 6).images) == 6


def test_a_playlist_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        playlist = tmp_path / "list.m3u8"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/part.ts"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(PipelineError):
            probe_input(str(playlist))
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()


def test_a_hostile_name_is_harmless_in_a_message(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        probe_input(str(tmp_path / "\x1b]0;owned\x07\x1b[31m.mp4"))
    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)


def test_a_broken_input_says_which_one_it_is(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BrokenInput) as caught:
        sample_frames(tmp_path / "text.mp4", 2)
    assert caught.value.path == str(tmp_path / "text.mp4")
    assert str(caught.value) == f"{caught.value.path}: {caught.value.reason}"
    with pytest.raises(BrokenInput):
        event_streams.read(tmp_path / "text.mp4")
