"""Layers that are sent the error at the network's output itself: one a kind, and what carries it to them."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from hashrobust.errors import InputError
from hashrobust.rules._draws import keyed_uniform
from hashrobust.rules._layers import Assignment, ConvertedLayer
from hashrobust.rules._probe import Reading, readings
from hashrobust.rules.direct_feedback_alignment import DirectFeedbackAlignment


class OutputError:
    """The error e (B, K) at the output of one forward pass, once its backward pass has begun."""

    value: Tensor | None = None


class Broadcast:
    """Hands the error at a network's output to its layers, by two hooks of the network; one for each forward pass.

    So several passes may wait for their backward passes at a time, on several threads.
    """

    def __init__(self) -> None:
        self.errors: dict[int, OutputError] = {}

    def attach(self, network: nn.Module) -> None:
        """Follow the network's forward passes; what followed them before does no more."""
        detach(network)
        network.register_forward_pre_hook(self.begin)
        network.register_forward_hook(self.end)

    def begin(self, network: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A pass begins on this thread."""
        self.errors[threading.get_ident()] = OutputError()

    def end(self, network: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """The pass is over: its output, whose error is taken down on the way back."""
        error = self.errors.pop(threading.get_ident(), None)
        tapped: Tensor = output if error is None or not output.requires_grad else _Tap.apply(output, error)
        return tapped

    @property
    def error(self) -> OutputError:
        """That of the pass under way; one that never comes where a part of the network is called by itself."""
        return self.errors.get(threading.get_ident()) or OutputError()


def detach(network: nn.Module) -> None:
    """Take all hooks of broadcasts off a network and its parts."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), Broadcast):
                    del hooks[number]


class _Tap(Function):
    """The output as it is; on the way back its error is taken down before any layer needs it."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, error: OutputError) -> Tensor:
        ctx.error = error
        return output.clone()  # no view, which could not be written to

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None]:
        ctx.error.value = delta.detach().flatten(1)
        return delta, None


class _DirectStep(Function):
    """The layer's output y as it is; on the way back e M goes to the layer's input h, and dL/dy to y as ever."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, h: Tensor, matrix: Tensor, error: OutputError) -> Tensor:
        ctx.save_for_backward(matrix)
        ctx.error, ctx.shape, ctx.dtype = error, h.shape, h.dtype
        ctx.mark_dirty(y)  # y itself, no view of it: activations may write to it
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        (matrix,) = ctx.saved_tensors
        error = ctx.error.value
        if error is None:
            raise InputError(
                "rule 'dfa' needs the error at the output of the whole network, and the loss was taken of a part: "
                "call the module that was converted, and take the loss of what it returns"
            )
        to_input = (error.to(matrix.dtype) @ matrix).view(ctx.shape).to(ctx.dtype)
        return (delta if ctx.needs_input_grad[0] else None), to_input, None, None


class DirectLayer(ConvertedLayer):
    """A layer whose input is sent e M; M is `feedback`, None in layers that read the image."""

    broadcast: Broadcast

    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        matrix = self.feedback
        if matrix is None or not self.carries_feedback(input):
            plain: Tensor = super().forward(input)
            return plain
        elements = math.prod(input.shape[1:])
        if elements != matrix.shape[1]:
            raise InputError(
                f"layer '{self.assignment.name}' reads {elements} numbers of a sample, and dfa drew a matrix for "
                f"{matrix.shape[1]}: convert the network anew for images of this size"
            )
        output: Tensor = _DirectStep.apply(
            super().forward(input.detach()), input, matrix, self.broadcast.error
        )
        return output


class DirectConv1d(DirectLayer, nn.Conv1d):
    """nn.Conv1d that is sent the output's error."""


class DirectConv2d(DirectLayer, nn.Conv2d):
    """nn.Conv2d that is sent the output's error."""


class DirectConv3d(DirectLayer, nn.Conv3d):
    """nn.Conv3d that is sent the output's error."""


class DirectLinear(DirectLayer, nn.Linear):
    """nn.Linear that is sent the output's error."""


DIRECT_KIND: dict[type[nn.Module], type[DirectLayer]] = {
    nn.Conv1d: DirectConv1d,
    nn.Conv2d: DirectConv2d,
    nn.Conv3d: DirectConv3d,
    nn.Linear: DirectLinear,
}


def prepare_direct(
    model: nn.Module,
    chosen: dict[str, nn.Module],
    rule: DirectFeedbackAlignment,
    seed: int,
    layers: str,
    probe: Tensor,
) -> tuple[dict[str, tuple[Assignment, Tensor | None]], dict[str, str]]:
    """Assignment and M of each of the chosen layers, and the reason for those that cannot have one.

    Raises:
        InputError: the network does not answer with a tensor (B, ...), or no layer can have an M (all read the image).
    """
    read, answer = readings(model, probe)
    if not isinstance(answer, Tensor) or answer.dim() < 2 or len(answer) != len(probe):
        raise InputError(
            f"rule 'dfa' carries back the error at outputs (B, K), which this {type(model).__name__} does not give: "
            "choose another rule"
        )
    outputs = math.prod(answer.shape[1:])
    prepared: dict[str, tuple[Assignment, Tensor | None]] = {}
    left: dict[str, str] = {}
    for name, layer in chosen.items():
        reading = read.get(layer, Reading())
        obstacle = _obstacle(reading, len(probe))
        if obstacle:
            left[name] = obstacle
            continue
        matrix = None
        if reading.after_weights:
            (shape,) = reading.shapes
            draw = partial(_keyed, seed=seed, name=name)
            matrix = rule.draw(outputs, math.prod(shape[1:]), draw).to(layer.get_parameter("weight"))
        prepared[name] = Assignment(name, "dfa", rule, seed, "xavier", layers), matrix
    if all(matrix is None for _, matrix in prepared.values()):
        reasons = left | dict.fromkeys(prepared, "it reads the image itself")
        raise InputError(
            f"rule 'dfa' changes nothing of this {type(model).__name__}, choose other layers or another rule: "
            f"{'; '.join(f'{name!r}: {reason}' for name, reason in list(reasons.items())[:5])}"
        )
    return prepared, left


def _keyed(shape: torch.Size, bound: float, *, seed: int, name: str) -> Tensor:
    return keyed_uniform(shape, bound, seed, name, 0)


def _obstacle(reading: Reading, batch: int) -> str | None:
    """Why no M fits what a layer reads; None if one does."""
    if not reading.shapes:
        return "the forward pass of the probe never calls it"
    if len(reading.shapes) > 1:
        return "it reads inputs of several shapes, and the output's error is projected to one"
    (shape,) = reading.shapes
    if len(shape) < 2 or shape[0] != batch:
        return "what it reads is not one row a sample, as the output's error is"
    return None
