"""Twenty labelled photographs of ImageNet, which foolbox ships."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


def photographs(size: int) -> tuple[Tensor, Tensor]:
    """Images (20, 3, size, size) in [0, 1] and their classes; skips the test where foolbox is missing."""
    spec = find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        # `make setup` installs it, for its pictures alone; a plain `pip install` does not.
        pytest.skip("foolbox, whose photographs are classified, is not installed")
    files = sorted(Path(spec.submodule_search_locations[0], "data").glob("imagenet_*.jpg"))
    assert len(files) == 20
    pixels = []
    for file in files:
        with Image.open(file) as picture:
            pixels.append(np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor([int(file.stem.rpartition("_")[2]) for file in files])
