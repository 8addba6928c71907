"""The gradient of a 2D convolution to images: too few channels to fill a CPU's vectors, which blocks of pixels do."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_CHANNELS = 4
_ENOUGH = 12
"""Numbers side by side that vectors of eight or sixteen are worth it for: 3 channels of 2 x 2 pixels."""


class Geometry(NamedTuple):
    """How a convolution walks over its input."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def block_size(weight: Tensor, geometry: Geometry) -> int | None:
    """Height and width of blocks of pixels, a multiple of the stride; None where torch's own way is as good."""
    if weight.ndim != 4 or weight.device.type != "cpu" or weight.shape[1] > FEW_CHANNELS:
        return None
    stride = geometry.stride[0]
    if geometry.stride[1] != stride or geometry.dilation != (1, 1) or geometry.groups != 1:
        return None
    block = stride
    while weight.shape[1] * block**2 < _ENOUGH:
        block += stride
    return block


def gradient_in_blocks(
    delta: Tensor, weight: Tensor, size: tuple[int, int], geometry: Geometry, block: int
) -> Tensor:
    """dL/dx (B, C, *size) of y = W * x, for delta = dL/dy (B, O, ...) and W (O, C, ...).

    What the transposed convolution of Dumoulin and Visin, arXiv 1603.07285, section 4 computes: pixel u of the padded
    image gets the sum of W[u - stride o]^T delta[o] over all o. It is an ordinary convolution over delta whose
    output channels are the pixels of a block, put in their places as by Shi et al., arXiv 1609.05158.
    """
    stride, (above, left) = geometry.stride[0], geometry.padding
    taps_down, reach_up = _taps(weight.shape[2], stride, block)
    taps_right, reach_left = _taps(weight.shape[3], stride, block)
    # (O, C, row in the block, row of delta, column in the block, column of delta), 0 where W has no weight
    spread = F.pad(weight, (0, 1, 0, 1))[:, :, taps_down][..., taps_right]
    kernel = spread.permute(1, 2, 4, 0, 3, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    step = block // stride
    # Rows and columns beyond delta, which the last blocks reach and the padding does not give.
    missing_below = -(-(size[0] + 2 * above) // block) * step - delta.shape[2] - reach_up
    missing_right = -(-(size[1] + 2 * left) // block) * step - delta.shape[3] - reach_left
    if missing_below > 0 or missing_right > 0:
        delta = F.pad(delta, (0, max(0, missing_right), 0, max(0, missing_below)))
    blocks = F.conv2d(delta, kernel, stride=step, padding=(reach_up, reach_left))
    pixels = F.pixel_shuffle(blocks, block)
    return pixels[:, :, above : above + size[0], left : left + size[1]]


def _taps(kernel_size: int, stride: int, block: int) -> tuple[Tensor, int]:
    """Which weight joins each pixel of a block (rows) to each delta that it takes part in, and how many lie before it.

    `kernel_size` stands for no weight.
    """
    reach = (kernel_size - 1) // stride
    taps = torch.arange(block)[:, None] - stride * torch.arange(-reach, block // stride)
    return torch.where((taps >= 0) & (taps < kernel_size), taps, kernel_size), reach
