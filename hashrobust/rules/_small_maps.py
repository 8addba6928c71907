"""2D convolutions over maps of very few pixels, where most of a kernel meets padding: as one matrix without it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.rules._steps import Carried, multiply_by

_MOST_PIXELS = 4


class _Matrix(NamedTuple):
    """A matrix, and what it was made of."""

    weight: Tensor
    size: torch.Size
    matrix: Tensor


class SmallMaps(nn.Module):
    """A convolution whose weights never change again, and which keeps the matrices that it was made into."""

    _matrices: dict[str, _Matrix] | None = None

    def matrix(self, role: str, weight: Tensor, size: torch.Size) -> Tensor:
        """That of `weight`, made once for each `role` ("forward", "backward") until weight or size is another."""
        assert isinstance(self, nn.Conv2d)
        if self._matrices is None:
            self._matrices = {}
        kept = self._matrices.get(role)
        if kept is None or kept.weight is not weight or kept.size != size:
            made = as_matrix(weight.detach(), size, self.stride, self.padding)
            kept = self._matrices[role] = _Matrix(weight, size, made)
        return kept.matrix


def has_small_maps(layer: nn.Module, input: Tensor) -> bool:
    """Whether the layer is a 2D convolution for which a matrix has fewer products than the kernel."""
    if not isinstance(layer, nn.Conv2d) or input.dim() != 4:
        return False
    pixels = input.shape[2] * input.shape[3]
    return (
        pixels <= _MOST_PIXELS
        and pixels < layer.kernel_size[0] * layer.kernel_size[1]
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def convolve_small_maps(layer: SmallMaps, input: Tensor, v: Tensor) -> Tensor:
    """The plain layer's output for maps (B, C, H, W), whose error goes to them through V, W or of its shape."""
    assert isinstance(layer, nn.Conv2d)
    size = input.shape[2:]
    forward = layer.matrix("forward", layer.weight, size)
    backward = forward if v is layer.weight else layer.matrix("backward", v, size)
    heights = _output_size(size[0], layer.kernel_size[0], layer.stride[0], int(layer.padding[0]))
    widths = _output_size(size[1], layer.kernel_size[1], layer.stride[1], int(layer.padding[1]))
    bias = None if layer.bias is None else layer.bias.repeat_interleave(heights * widths)
    output = multiply_by(input.flatten(1), forward, bias, Carried(backward))
    return output.view(len(input), layer.out_channels, heights, widths)


def as_matrix(
    weight: Tensor, size: torch.Size, stride: tuple[int, ...], padding: tuple[int, ...] | str
) -> Tensor:
    """(O x output pixels, C x input pixels) of W (O, C, kernel): y = W * x is its product with x as one column."""
    down = _taps(size[0], weight.shape[2], stride[0], int(padding[0]))
    right = _taps(size[1], weight.shape[3], stride[1], int(padding[1]))
    # (O, C, output row, input row, output column, input column), 0 where the kernel does not reach
    spread = F.pad(weight, (0, 1, 0, 1))[:, :, down][..., right]
    outputs, channels = weight.shape[:2]
    matrix = spread.permute(0, 2, 4, 1, 3, 5)
    return matrix.reshape(outputs * down.shape[0] * right.shape[0], channels * size[0] * size[1])


def _taps(size: int, kernel_size: int, stride: int, padding: int) -> Tensor:
    """Which weight joins each output (rows) to each input; `kernel_size` stands for none."""
    outputs = torch.arange(_output_size(size, kernel_size, stride, padding))
    taps = torch.arange(size) + padding - stride * outputs[:, None]
    return torch.where((taps >= 0) & (taps < kernel_size), taps, kernel_size)


def _output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel_size) // stride + 1
