"""Image files of many kinds, written by Pillow or byte by byte; never by the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SaveImage = Callable[..., None]


@pytest.fixture
def save_image() -> SaveImage:
    def save(
        file: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (20, 16), **options: object
    ) -> None:
        """An image of random pixels, different for each seed."""
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(file, **options)

    return save
