"""The two steps whose error travels back through V: a convolution's and a linear layer's."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.modules.conv import _ConvNd

from hashrobust.rules._blocks import Geometry, block_size, gradient_in_blocks
from hashrobust.rules._rule import Rule

_convolution_backward = torch.ops.aten.convolution_backward.default


class _Scratch(threading.local):
    """One buffer a data type, as large as the largest layer so far; each thread has its own."""

    def __init__(self) -> None:
        self.buffers: dict[torch.dtype, Tensor] = {}

    def like(self, weight: Tensor) -> Tensor:
        """Uninitialised memory like that of `weight`, in its memory format, valid until the next call.

        Only main memory is worth keeping, where fresh pages cost more than filling them; other devices
        have allocators that reuse memory themselves.
        """
        if weight.device.type != "cpu":
            return torch.empty_like(weight)
        buffer = self.buffers.get(weight.dtype)
        if buffer is None or buffer.numel() < weight.numel():
            with torch.inference_mode(False):
                buffer = self.buffers[weight.dtype] = torch.empty(weight.numel(), dtype=weight.dtype)
        return buffer.as_strided(weight.shape, torch.empty_like(weight, device="meta").stride())


_scratch = _Scratch()


def feedback_weight(
    rule: Rule, weight: Tensor, drawn: Tensor | None, dtype: torch.dtype, gain: Tensor | None = None
) -> Tensor:
    """V in the shape of `weight`, which carries no gradient, times `gain` if one is given (see `Folding`).

    It may lie in memory that the next call on this thread overwrites.
    """
    scratch = _scratch.like(weight)
    v = rule.feedback(weight, drawn, scratch)
    return (v if gain is None else torch.mul(v, gain, out=scratch)).to(dtype)


class Carried(NamedTuple):
    """What a backward pass makes V of."""

    weight: Tensor  # V itself, if no rule makes one
    drawn: Tensor | None = None
    gain: Tensor | None = None
    rule: Rule | None = None

    def v(self, dtype: torch.dtype) -> Tensor:
        """V, in memory that the next call may overwrite."""
        if self.rule is None:
            return self.weight.to(dtype)
        return feedback_weight(self.rule, self.weight, self.drawn, dtype, self.gain)


def _autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors as autocast hands them to a plain layer: cast outside the step, for autograd to cast back."""
    first = tensors[0]
    assert first is not None
    device = first.device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)


class _ConvolutionStep(Function):
    """y = W * x + b forward; dL/dx = V^T delta backward, the other gradients as ever."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, carried: Carried
    ) -> Tensor:
        ctx.save_for_backward(input, carried.weight, carried.drawn, carried.gain)
        ctx.rule, ctx.geometry = carried.rule, geometry
        stride, padding, dilation, groups = geometry
        return torch.convolution(
            input, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, drawn, gain = ctx.saved_tensors
        v = Carried(weight, drawn, gain, ctx.rule).v(input.dtype)
        needed = ctx.needs_input_grad[:3]
        block = block_size(v, ctx.geometry) if needed == (True, False, False) else None
        if block is not None:
            to_input = gradient_in_blocks(delta, v, input.shape[2:], ctx.geometry, block)
            return to_input, None, None, None, None
        stride, padding, dilation, groups = ctx.geometry
        bias_shape, output_padding = [weight.shape[0]], [0] * len(stride)
        gradients = _convolution_backward(
            delta, input, v, bias_shape, stride, padding, dilation, False, output_padding, groups, needed
        )
        return (*gradients, None, None)


class _LinearStep(Function):
    """y = x W^T + b forward; dL/dx = delta V backward, the other gradients as ever."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, carried: Carried) -> Tensor:
        kept = input if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(kept, carried.weight, carried.drawn, carried.gain)
        ctx.rule = carried.rule
        return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, drawn, gain = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_input = to_weight = to_bias = None
        if needs_input:
            to_input = delta @ Carried(weight, drawn, gain, ctx.rule).v(delta.dtype)
        rows = delta.reshape(-1, delta.shape[-1])
        if needs_weight:
            to_weight = rows.t() @ input.reshape(-1, input.shape[-1])
        if needs_bias:
            to_bias = rows.sum(0)
        return to_input, to_weight, to_bias, None


def convolve(layer: _ConvNd, input: Tensor, carried: Carried) -> Tensor:
    """The plain layer's output, whose error goes to the input through what is carried."""
    input, padding = _pad(layer, input)
    geometry = Geometry(layer.stride, padding, layer.dilation, layer.groups)
    unbatched = input.dim() == len(layer.stride) + 1
    operands = _autocast(input.unsqueeze(0) if unbatched else input, layer.weight, layer.bias)
    output: Tensor = _ConvolutionStep.apply(*operands, geometry, carried)
    return output.squeeze(0) if unbatched else output


def multiply(layer: nn.Linear, input: Tensor, carried: Carried) -> Tensor:
    """The same of a linear layer."""
    return multiply_by(input, layer.weight, layer.bias, carried)


def multiply_by(input: Tensor, weight: Tensor, bias: Tensor | None, carried: Carried) -> Tensor:
    """The same of a weight (outputs, inputs) without a layer."""
    output: Tensor = _LinearStep.apply(*_autocast(input, weight, bias), carried)
    return output


def _pad(layer: _ConvNd, input: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input, padded by what the step cannot pad itself, and the zero padding left to the step."""
    none = (0,) * len(layer.stride)
    if layer.padding_mode != "zeros":
        return F.pad(input, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), none
    if not isinstance(layer.padding, str):
        return input, layer.padding
    if layer.padding == "valid":
        return input, none
    # "same": as much before as after, and where the sum is odd one more after
    total = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    after = [amount for t in reversed(total) for amount in (0, t % 2)]
    return (F.pad(input, after) if any(after) else input), tuple(t // 2 for t in total)
