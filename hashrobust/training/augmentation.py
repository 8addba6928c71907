"""Random flips and shifts of training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Random horizontal flips and shifts of up to an eighth of the size (zero padding), per image.

    Args:
        images: (B, C, H, W).
        mode: `none`, `flip`, `crop` or `crop-flip`.
        generator: the source of randomness, on the CPU.
    """
    if "flip" in mode:
        flips = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
    if "crop" in mode:
        height, width = images.shape[-2:]
        reach = max(height // 8, 1)
        padded = F.pad(images, (reach, reach, reach, reach))
        top, left = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
        rows = (top[:, None] + torch.arange(height))[:, None, :, None]
        columns = (left[:, None] + torch.arange(width))[:, None, None, :]
        batch = torch.arange(len(images))[:, None, None, None]
        channels = torch.arange(images.shape[1])[None, :, None, None]
        images = padded[batch, channels, rows, columns]
    return images
