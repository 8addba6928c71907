"""Layers whose forward pass is the plain one and whose error travels back through V: one a kind."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.modules.conv import _ConvNd

from hashrobust.rules._exact import is_exact
from hashrobust.rules._folding import Folding
from hashrobust.rules._rule import LearningRule, Rule


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


@dataclass(frozen=True)
class Assignment:
    """The rule that a layer follows, and what its draws depend on."""

    name: str  # of the layer, in the model that was converted
    rule_name: str
    rule: LearningRule
    seed: int
    scale: str
    layers: str  # the patterns by which it was chosen
    norm: float | None = None  # that of V, to which every draw is scaled; None: as drawn


class ConvertedLayer(nn.Module):
    """What the converted layers have in common."""

    assignment: Assignment
    feedback: Tensor | None  # what the rule drew: a buffer, absent from state_dict()
    weight: Tensor

    def carries_feedback(self, input: Tensor) -> bool:
        """Whether the graph now under construction sends the rule's error to the input."""
        return torch.is_grad_enabled() and input.requires_grad and not is_exact(self)


class _Carried(NamedTuple):
    """What a backward pass makes V of."""

    weight: Tensor
    drawn: Tensor | None
    gain: Tensor | None
    rule: Rule | None  # None: `drawn` is V itself

    def v(self, dtype: torch.dtype) -> Tensor:
        """V, in memory that the next call may overwrite."""
        if self.rule is None:
            assert self.drawn is not None
            return self.drawn.to(dtype)
        return feedback_weight(self.rule, self.weight, self.drawn, dtype, self.gain)


class FeedbackLayer(ConvertedLayer):
    """A layer whose error goes to its input through V."""

    # Of copies made to be attacked fast:
    folding: Folding | None = None
    fixed: bool = False  # W never changes again, so that V is made once for each draw
    _made: tuple[Rule, Tensor | None, Tensor] | None = None  # that V, behind what it was made of

    @property
    def rule(self) -> Rule:
        """What chooses V."""
        assert isinstance(self.assignment.rule, Rule)
        return self.assignment.rule

    def carried(self) -> _Carried:
        """What the backward pass of a graph under construction makes V of: V itself where W is fixed."""
        gain = None if self.folding is None else self.folding.gain
        weight = self.rule_weight()
        if not self.fixed:
            return _Carried(weight, self.feedback, gain, self.rule)
        made = self._made
        if made is None or made[0] is not self.rule or made[1] is not self.feedback:
            v = feedback_weight(self.rule, weight, self.feedback, weight.dtype, gain)
            # Laid out as W is: convolutions would do it at every step.
            made = self._made = (self.rule, self.feedback, torch.empty_like(self.weight).copy_(v))
        return _Carried(weight, made[2], None, None)

    def feedback_weight(self) -> Tensor:
        """The present V (see `feedback_weight` for how long it is valid)."""
        weight = self.rule_weight()
        return feedback_weight(self.rule, weight, self.feedback, weight.dtype)

    def rule_weight(self) -> Tensor:
        """The W that the rule makes V of."""
        return self.weight.detach() if self.folding is None else self.folding.weight


def _autocast(tensor: Tensor) -> Tensor:
    """The tensor as autocast hands it to a plain layer: cast outside the step, for autograd to cast back."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


class _Geometry(NamedTuple):
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class _ConvolutionStep(Function):
    """y = W * x + b forward; dL/dx = V^T delta backward, the other gradients as ever."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: _Geometry,
        rule_weight: Tensor,
        drawn: Tensor | None,
        gain: Tensor | None,
        rule: Rule | None,
    ) -> Tensor:
        ctx.save_for_backward(input, rule_weight, drawn, gain)
        ctx.rule, ctx.geometry = rule, geometry
        stride, padding, dilation, groups = geometry
        return torch.convolution(
            input, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, drawn, gain = ctx.saved_tensors
        v = _Carried(weight, drawn, gain, ctx.rule).v(input.dtype)
        stride, padding, dilation, groups = ctx.geometry
        gradients = torch.ops.aten.convolution_backward.default(
            delta,
            input,
            v,
            [weight.shape[0]],
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            ctx.needs_input_grad[:3],
        )
        return (*gradients, None, None, None, None, None)


class _LinearStep(Function):
    """y = x W^T + b forward; dL/dx = delta V backward, the other gradients as ever."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rule_weight: Tensor,
        drawn: Tensor | None,
        gain: Tensor | None,
        rule: Rule | None,
    ) -> Tensor:
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, rule_weight, drawn, gain)
        ctx.rule = rule
        return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, drawn, gain = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_input = to_weight = to_bias = None
        if needs_input:
            to_input = delta @ _Carried(weight, drawn, gain, ctx.rule).v(delta.dtype)
        rows = delta.reshape(-1, delta.shape[-1])
        if needs_weight:
            to_weight = rows.t() @ input.reshape(-1, input.shape[-1])
        if needs_bias:
            to_bias = rows.sum(0)
        return to_input, to_weight, to_bias, None, None, None, None


class _FeedbackConv(FeedbackLayer, _ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        if not self.carries_feedback(input):
            plain: Tensor = super().forward(input)
            return plain
        input, padding = self._pad(input)
        geometry = _Geometry(self.stride, padding, self.dilation, self.groups)
        unbatched = input.dim() == len(self.stride) + 1
        output: Tensor = _ConvolutionStep.apply(
            _autocast(input.unsqueeze(0) if unbatched else input),
            _autocast(self.weight),
            None if self.bias is None else _autocast(self.bias),
            geometry,
            *self.carried(),
        )
        return output.squeeze(0) if unbatched else output

    def _pad(self, input: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The input, padded by what the step cannot pad itself, and the zero padding left to the step."""
        none = (0,) * len(self.stride)
        if self.padding_mode != "zeros":
            return F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode), none
        if not isinstance(self.padding, str):
            return input, self.padding
        if self.padding == "valid":
            return input, none
        # "same": as much before as after, and where the sum is odd one more after
        total = [
            dilation * (size - 1) for dilation, size in zip(self.dilation, self.kernel_size, strict=True)
        ]
        after = [amount for t in reversed(total) for amount in (0, t % 2)]
        return (F.pad(input, after) if any(after) else input), tuple(t // 2 for t in total)


class FeedbackConv1d(_FeedbackConv, nn.Conv1d):
    """nn.Conv1d with feedback V."""


class FeedbackConv2d(_FeedbackConv, nn.Conv2d):
    """nn.Conv2d with feedback V."""


class FeedbackConv3d(_FeedbackConv, nn.Conv3d):
    """nn.Conv3d with feedback V."""


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """nn.Linear with feedback V."""

    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        if not self.carries_feedback(input):
            return super().forward(input)
        output: Tensor = _LinearStep.apply(
            _autocast(input),
            _autocast(self.weight),
            None if self.bias is None else _autocast(self.bias),
            *self.carried(),
        )
        return output


FEEDBACK_KIND: dict[type[nn.Module], type[FeedbackLayer]] = {
    nn.Conv1d: FeedbackConv1d,
    nn.Conv2d: FeedbackConv2d,
    nn.Conv3d: FeedbackConv3d,
    nn.Linear: FeedbackLinear,
}
