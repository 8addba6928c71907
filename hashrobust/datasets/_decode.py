"""Image files of anybody, decoded: no other program is run, and no more memory is taken than photographs need."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps

RUNS_OTHER_PROGRAMS = {"EPS", "IPTC"}
"""Pillow hands PostScript to Ghostscript, and an image in an envelope of IPTC to any of its readers, of any size."""
MOST_PIXELS = 1 << 26
"""Of one image, which takes a few times as many bytes decoded; several are decoded at a time."""
MOST_TIMES_AS_LONG = 100
"""One side of the other: where the short side is enlarged, a line of pixels would become more than any memory."""


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.OPEN if name not in RUNS_OTHER_PROGRAMS)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits, three channels: 16-bit greys are scaled, transparency is laid on white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers of unknown range")
    if image.mode == "I" or image.mode.startswith("I;"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its pixels exceed 16 bits")
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def decode(content: bytes, *, coarse: bool = False) -> Image.Image:
    """An image file's bytes as an upright RGB image; the first frame where there are several.

    `coarse` lets JPEG skip detail that a check for damage does not need.

    Raises:
        Exception: whatever Pillow's reader of that format raises on a damaged file.
    """
    if not content:
        raise ValueError("it is empty")
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS}")
        if max(image.size) > MOST_TIMES_AS_LONG * min(image.size):
            raise ValueError(f"it is {image.width} x {image.height} pixels, a line and no image")
        if coarse:
            image.draft(None, (1, 1))
        return _to_rgb(ImageOps.exif_transpose(image))
