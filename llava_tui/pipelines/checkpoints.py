"""Small genuine checkpoints and clips, made on this machine: no download, the same bytes from the same seed.

They have the real architecture, files and processors of LLaVA, and random weights: what they say means nothing, what
they cost is real.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from llava_tui.models import CACHE_VARIABLE, cache_folder
from llava_tui.pipelines.base import PipelineError
from llava_tui.units import counted

log = logging.getLogger("llava_tui.pipelines")

_MODEL_NAME = "demo-llava-v1"
_VIDEO_NAME = "demo-clip-v1.mp4"
"""Raise the number whenever what is built changes: an old cache must not pass for the new."""


def chat_template(image: str = "<image>", video: str = "") -> str:
    """LLaVA-1.5's own form; ``image`` and ``video`` stand for a picture and a video in it ("" where there are none)."""
    videos = f"{{% elif content['type'] == 'video' %}}{video}\n" if video else ""
    return (
        "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
        "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
        + image
        + "\n"
        + videos
        + "{% else %}{{ content['text'] }}{% endif %}{% endfor %} {% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )


_SPECIAL = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "<pad>", 4: "<image>"}
_NAMED = {"image_token": "<image>"}
_WORDS = (  # noqa: SIM905  (a list of 55 literals reads worse)
    "a the one two three red green blue white dark bright small large round square circle box shape block line light "
    "shadow frame picture video scene left right up down slowly quickly moves turns grows shrinks passes crosses "
    "appears stays near far above below behind over under into across and then while again it is"
).split()


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes a LLaVA as large as it is."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    vision_hidden: int
    vision_layers: int
    vision_intermediate: int
    vision_heads: int
    image: int
    """Side of a frame, pixels."""
    patch: int
    context: int


TINY = Shape(64, 2, 128, 4, 32, 2, 64, 2, 32, 8, 1024)
"""16 tokens a frame; for tests."""
DEMO_SHAPE = Shape(512, 8, 1024, 8, 256, 8, 512, 4, 224, 14, 4096)
"""256 tokens a frame, 26 million parameters."""


def build_tiny(folder: Path, seed: int = 0, shape: Shape = TINY) -> Path:
    """Writes a LLaVA of ``shape`` to ``folder``, as ``save_pretrained`` does; under a second for the tiny one.

    The folder loads through AutoModelForImageTextToText and AutoProcessor. Returns ``folder``.
    """
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    tokenizer = byte_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=shape.vision_hidden,
            intermediate_size=shape.vision_intermediate,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_heads,
            image_size=shape.image,
            patch_size=shape.patch,
            projection_dim=shape.vision_hidden,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.context,
            # Wide enough that frames and prompt tell in the output: initialised as for training they would not.
            initializer_range=2 * shape.hidden**-0.5,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(shape.image // shape.patch) ** 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        # Only whole words are ever said: a row of zeros never wins over the best of many random ones.
        model.lm_head.weight[: len(tokenizer) - len(_WORDS)] = 0
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    side = {"height": shape.image, "width": shape.image}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": shape.image}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_demo(folder: Path, seed: int = 0) -> Path:
    """Writes the 26 million parameter demo model (104 MB) to ``folder``; 4 frames make about 1,100 tokens."""
    return build_tiny(folder, seed, DEMO_SHAPE)


def demo_config() -> dict[str, Any]:
    """What the demo model's ``config.json`` will say of its context, whether or not it was built already."""
    shape = DEMO_SHAPE
    return {
        "model_type": "llava",
        "vision_config": {"model_type": "clip_vision_model", "image_size": shape.image, "patch_size": shape.patch},
        "text_config": {"max_position_embeddings": shape.context},
    }


def demo_model() -> Path:
    """The folder of the demo model, built on first use and kept in the user's cache folder.

    Raises :class:`PipelineError` where it cannot be written.
    """

    def build(target: Path) -> None:
        log.info("building the demo model (104 MB, once) in %s", cache_folder())
        build_demo(target)

    return _cached(_MODEL_NAME, build)


def demo_video() -> Path:
    """The demo clip: 4 s of moving shapes, synthesised on first use and kept in the user's cache folder.

    Raises :class:`PipelineError` where it cannot be written.
    """
    return _cached(_VIDEO_NAME, synthesise_video)


def _cached(name: str, build: Callable[[Path], Any]) -> Path:
    """``build`` in a folder of its own, then renamed: whoever looks finds it whole or not at all."""
    folder = cache_folder()
    target = folder / name
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
        try:
            build(workshop / name)
            try:
                (workshop / name).rename(target)
            except OSError:
                if not target.exists():  # another process was first: its copy is the same
                    raise
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    except OSError as error:
        raise PipelineError(
            f"{folder}: cannot keep {name} here ({error.strerror or error}); "
            f"set {CACHE_VARIABLE} to a folder with room (110 MB)"
        ) from None
    return target


def byte_tokenizer(special: Mapping[int, str] = _SPECIAL, size: int = 0, named: Mapping[str, str] = _NAMED) -> Any:
    """Every byte a token, so any prompt can be written; and words at the end, which are only ever read.

    ``special`` has the id of each special token. ``size`` is that of the whole vocabulary, made full with invented
    words; 0: as large as it has to be. ``named`` has the attributes under which a family's processor asks for its
    special tokens, like ``image_token``. Raises :class:`PipelineError` where ``size`` is less.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(special) + len(alphabet)
    size = size or least + len(_WORDS)
    if size < least or max(special) >= size:
        raise PipelineError(
            f"a vocabulary of {size:,} has no room for bytes and {counted(len(special), 'special token')} "
            f"({max(least, max(special) + 1):,}): put the model's tokenizer files beside its config.json"
        )
    # "Ġ" is how byte-level tokenizers write a space. Without merges no text is ever encoded to these.
    others = itertools.chain(alphabet, ("Ġ" + word for word in itertools.chain(_WORDS, _invented())))
    entries = [special.get(i) or next(others) for i in range(size)]
    tokenizer = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin = next(i for i, token in special.items() if token == "<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=dict(named),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _invented() -> Iterator[str]:
    """Words of three syllables and more, each once; none of :data:`_WORDS`, all of which have no such shape."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    for count in itertools.count(3):
        yield from map("".join, itertools.product(syllables, repeat=count))


# --- video ---------------------------------------------------------------------------------------------------------

_CODECS = {".webm": ("libvpx", "libvpx-vp9"), ".avi": ("mpeg4",)}
COUNTER_BITS = 12
COUNTER_CELL = 16
"""Pixels a side of a counter's cell."""


def synthesise_video(
    path: Path, seconds: float = 4.0, fps: int = 12, size: tuple[int, int] = (320, 240), times: list[int] | None = None
) -> Path:
    """Writes a clip of moving shapes to ``path``; its suffix chooses the container and with it the codec.

    ``size`` is (width, height), both even. Along the upper edge of every frame its number is drawn in binary, so that a
    reader can tell which frame it got (:func:`frame_number`). ``times`` gives each frame's time in units of ``1/fps``
    s, for a variable rate, instead of ``seconds``. Returns ``path``.
    """
    import av

    width, height = size
    ticks = list(range(round(seconds * fps))) if times is None else times
    wanted = _CODECS.get(path.suffix.lower(), ("libx264", "mpeg4"))
    codec = next((name for name in wanted if name in av.codecs_available), "mpeg4")
    rows, columns = np.mgrid[0:height, 0:width]
    background = np.stack(
        [40 + 60 * rows / height, 50 + 50 * columns / width, 90 - 40 * rows / height], axis=-1
    ).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 600_000
        stream.codec_context.gop_size = 12
        stream.codec_context.time_base = Fraction(1, fps)
        if codec.startswith("libvpx"):
            stream.options = {"deadline": "realtime", "cpu-used": "8"}
        for number, tick in enumerate(ticks):
            image = _draw(background, rows, columns, number, len(ticks))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frame_number(image: np.ndarray) -> int:
    """The number drawn into a frame of :func:`synthesise_video`, (height, width, 3) uint8."""
    cells = image[:COUNTER_CELL, : COUNTER_BITS * COUNTER_CELL].reshape(COUNTER_CELL, COUNTER_BITS, COUNTER_CELL, 3)
    bits = cells[4:-4, :, 4:-4].mean(axis=(0, 2, 3)) > 127
    return int(sum(1 << int(position) for position in np.flatnonzero(bits)))


def _draw(background: np.ndarray, rows: np.ndarray, columns: np.ndarray, number: int, count: int) -> np.ndarray:
    height, width = rows.shape
    image = background.copy()
    phase = number / max(1, count - 1)
    x, y = 0.15 * width + 0.7 * width * phase, height * (0.55 + 0.25 * np.sin(2 * np.pi * phase))
    image[(columns - x) ** 2 + (rows - y) ** 2 < (height / 8) ** 2] = (230, 80, 60)
    left, top, side = int(0.75 * width * (1 - phase)), int(0.3 * height), height // 6
    image[top : top + side, left : left + side] = (70, 190, 110)
    grown = height / 20 + height / 6 * phase
    image[np.abs(columns - 0.8 * width) + np.abs(rows - 0.75 * height) < grown] = (240, 210, 70)
    strip = np.array([255 * (number >> bit & 1) for bit in range(COUNTER_BITS)], np.uint8).repeat(COUNTER_CELL)[:width]
    image[:COUNTER_CELL, : len(strip)] = strip[None, :, None]
    return image
