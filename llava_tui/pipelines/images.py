"""Pictures in files: read upright, in RGB, eight bits a channel.

Animated GIF, WebP and PNG are sampled as videos are; of every other file with several pictures (TIFF, a photograph
with its preview) the first counts.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from llava_tui.pipelines.base import BrokenInput, Cancelled, shown

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
MOST_PIXELS = 1 << 27
"""Of one picture: 400 MB in RGB. A small file may unpack to more than there is memory."""

_ANIMATED = frozenset({"GIF", "WEBP", "PNG"})


def images_of(folder: Path) -> list[Path]:
    """Image files in ``folder``, in the order a person counts: frame2 before frame10. Raises :class:`BrokenInput`."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise BrokenInput(folder, f"cannot be listed ({why(error)})") from None
    files = [
        entry
        for entry in entries
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not files:
        raise BrokenInput(folder, "no image in this folder; it needs .png, .jpg, .webp, .bmp or .tiff files")
    return sorted(
        files, key=lambda file: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]
    )


def read_first(file: Path) -> tuple[np.ndarray, int]:
    """The first picture of ``file``, uint8 (height, width, 3), and how many it has. Raises :class:`BrokenInput`."""
    pictures, total, _ = read(file, lambda total: [0])
    return pictures[0], total


def read(
    file: Path, choose: Callable[[int], list[int]], check: Callable[[], None] = lambda: None
) -> tuple[dict[int, np.ndarray], int, int]:
    """The pictures of ``file`` whose numbers ``choose`` gives, told how many there are; by number, uint8
    (height, width, 3). Also how many there are, and how many were decoded for it. ``check`` is called before each.

    Raises :class:`BrokenInput`.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            total = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
            pictures = {}
            for number in sorted(set(choose(total))):
                check()
                if total > 1:
                    image.seek(number)
                pictures[number] = _rgb(file, image)
            # Each is drawn over the one before, so that those between were decoded as well.
            return pictures, total, max(pictures) + 1
    except Image.DecompressionBombError:
        raise BrokenInput(file, f"has too many pixels ({MOST_PIXELS:,} at most); make it smaller") from None
    except (BrokenInput, Cancelled):
        raise
    except Exception as error:  # noqa: BLE001 - of damaged files Pillow raises what it likes
        raise BrokenInput(file, f"not an image that can be read ({why(error)}); save it again as PNG or JPEG") from None


def why(error: BaseException) -> str:
    """What a library says of a file, on one line."""
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return shown(lines[0] if lines else type(error).__name__)


def _rgb(file: Path, image: Any) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise BrokenInput(file, "has floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if upright.mode.startswith("I"):  # Sixteen bits: Pillow would cut off what is above 255.
        grey = (np.asarray(upright).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(upright.convert("RGB"))
