"""Images that fit into memory, kept as bytes and resized when they are asked for."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hashrobust.datasets._base import IntArray
from hashrobust.errors import InputError
from hashrobust.options import MOST_IMAGE_SIZE, check_at_most

DIGEST_BYTES = 16


def check_image_size(image_size: int) -> int:
    """`image_size` itself.

    Raises:
        InputError: it is no whole number, below 1, or above `MOST_IMAGE_SIZE`.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise InputError(f"image_size is {image_size!r}: give a whole number of pixels, at least 1")
    check_at_most("image_size", image_size, MOST_IMAGE_SIZE)
    return image_size


def content_digest(content: bytes) -> bytes:
    """The hash by which two images count as copies of each other."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


class MemoryImages:
    """Pixels (N, C, H, W) uint8, of which the value `white` is 1.0; `image_size` None keeps their size."""

    def __init__(
        self, name: str, pixels: NDArray[np.uint8], *, white: int = 255, image_size: int | None = None
    ) -> None:
        self._name = name
        self._pixels = pixels
        self._white = white
        channels, height, width = pixels.shape[1:]
        if image_size is not None:
            height = width = check_image_size(image_size)
        self._shape = (channels, height, width)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a loaded image."""
        return self._shape

    def __len__(self) -> int:
        return len(self._pixels)

    def load(self, ids: IntArray) -> Tensor:
        """Float32 (B, C, H, W) in [0, 1], resized bilinearly where a size was asked for."""
        images = torch.from_numpy(self._pixels[ids]).float().div_(self._white)
        if images.shape[1:] == self._shape or len(images) == 0:
            return images.reshape(-1, *self._shape)
        resized = F.interpolate(
            images, size=self._shape[1:], mode="bilinear", align_corners=False, antialias=True
        )
        return resized.clamp_(0, 1)  # the weights of the interpolation sum to 1 only up to rounding

    def digests(self) -> list[bytes]:
        """A hash of the raw pixel bytes of every image."""
        return self._digests

    @cached_property
    def _digests(self) -> list[bytes]:
        return [content_digest(image.tobytes()) for image in self._pixels]

    def path(self, image_id: int) -> str:
        """`<dataset>/<id>`."""
        return f"{self._name}/{image_id}"
