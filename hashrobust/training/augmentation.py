"""Random flips and shifts of training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.training.parallel import Share


def augment(images: Tensor, mode: str, generator: torch.Generator, share: Share | None = None) -> Tensor:
    """Random horizontal flips and shifts of up to an eighth of the size (zero padding), per image.

    Args:
        images: (B, C, H, W).
        mode: `none`, `flip`, `crop` or `crop-flip`.
        generator: the source of randomness, on the CPU.
        share: the part of a batch that the images are, if not all of it: what is drawn is drawn for the whole batch.
    """
    count, rows = (len(images), slice(None)) if share is None else (share.count, share.rows)
    if "flip" in mode:
        flips = torch.rand(count, generator=generator)[rows] < 0.5
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
    if "crop" in mode:
        height, width = images.shape[-2:]
        reach = max(height // 8, 1)
        padded = F.pad(images, (reach, reach, reach, reach))
        top, left = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)[:, rows]
        rows = (top[:, None] + torch.arange(height))[:, None, :, None]
        columns = (left[:, None] + torch.arange(width))[:, None, None, :]
        batch = torch.arange(len(images))[:, None, None, None]
        channels = torch.arange(images.shape[1])[None, :, None, None]
        images = padded[batch, channels, rows, columns]
    return images
