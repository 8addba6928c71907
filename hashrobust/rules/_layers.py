"""Layers whose forward pass is the plain one and whose error travels back through V: one a kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from hashrobust.rules._blocks import FEW_CHANNELS
from hashrobust.rules._exact import is_exact
from hashrobust.rules._folding import Folding
from hashrobust.rules._rule import LearningRule, Rule
from hashrobust.rules._small_maps import SmallMaps, convolve_small_maps, has_small_maps
from hashrobust.rules._steps import Carried, convolve, feedback_weight, multiply


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

    def carried(self) -> Carried:
        """What the backward pass of a graph under construction makes V of: V itself where W is fixed."""
        gain = None if self.folding is None else self.folding.gain
        weight = self.rule_weight()
        if not self.fixed:
            return Carried(weight, self.feedback, gain, self.rule)
        made = self._made
        if made is None or made[0] is not self.rule or made[1] is not self.feedback:
            v = feedback_weight(self.rule, weight, self.feedback, weight.dtype, gain)
            # Laid out as W is: convolutions would do it at every step.
            made = self._made = (self.rule, self.feedback, torch.empty_like(self.weight).copy_(v))
        return Carried(made[2])

    def feedback_weight(self) -> Tensor:
        """The present V (see `feedback_weight` for how long it is valid)."""
        weight = self.rule_weight()
        return feedback_weight(self.rule, weight, self.feedback, weight.dtype)

    def rule_weight(self) -> Tensor:
        """The W that the rule makes V of."""
        return self.weight.detach() if self.folding is None else self.folding.weight


class _FeedbackConv(FeedbackLayer, _ConvNd):
    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        if self.carries_feedback(input):
            return convolve(self, input, self.carried())
        plain: Tensor = super().forward(input)
        return plain


def _asks_for_images(layer: _ConvNd, input: Tensor) -> bool:
    """Whether the graph now under construction has a gradient to images, by the channels that the layer reads."""
    return layer.in_channels <= FEW_CHANNELS and torch.is_grad_enabled() and input.requires_grad


class FeedbackConv1d(_FeedbackConv, nn.Conv1d):
    """nn.Conv1d with feedback V."""


class FeedbackConv2d(_FeedbackConv, SmallMaps, nn.Conv2d):
    """nn.Conv2d with feedback V."""

    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        if not self.fixed:
            return super().forward(input)
        exact = not self.carries_feedback(input)
        if has_small_maps(self, input) and (exact or not self.rule.redraws):
            return convolve_small_maps(self, input, self.weight if exact else self.carried().weight)
        if exact and _asks_for_images(self, input):
            return convolve(self, input, Carried(self.weight))
        return super().forward(input)


class FeedbackConv3d(_FeedbackConv, nn.Conv3d):
    """nn.Conv3d with feedback V."""


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """nn.Linear with feedback V."""

    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        return (
            multiply(self, input, self.carried()) if self.carries_feedback(input) else super().forward(input)
        )


class FixedConv2d(SmallMaps, nn.Conv2d):
    """nn.Conv2d whose W never changes again."""

    def forward(self, input: Tensor) -> Tensor:
        """The plain layer's output."""
        if has_small_maps(self, input):
            return convolve_small_maps(self, input, self.weight)
        if _asks_for_images(self, input):
            return convolve(self, input, Carried(self.weight))
        return super().forward(input)


FEEDBACK_KIND: dict[type[nn.Module], type[FeedbackLayer]] = {
    nn.Conv1d: FeedbackConv1d,
    nn.Conv2d: FeedbackConv2d,
    nn.Conv3d: FeedbackConv3d,
    nn.Linear: FeedbackLinear,
}


def fix_weights(model: nn.Module) -> None:
    """Let all layers take their W as given for ever, in place.

    V is made once a draw; gradients to images, and convolutions over maps of very few pixels, take less time.
    Weights that change afterwards give wrong outputs and errors.
    """
    for layer in model.modules():
        if isinstance(layer, FeedbackLayer):
            layer.fixed = True
        elif type(layer) is nn.Conv2d:
            layer.__class__ = FixedConv2d
