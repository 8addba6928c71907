"""What a learning rule is: for all but one the choice of a layer's feedback weight, and nothing else.

A layer computes y = W x + b. With delta = dL/dy, every rule has dL/dW = delta x^T and
dL/db = sum delta; rules differ in what goes to x. A `Rule` chooses the V of dL/dx = V^T delta, a tensor of the
shape of W. Direct feedback alignment has no such V: it is a `LearningRule` with a mechanism of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from hashrobust.registry import Registry


class LearningRule:
    """What all that is registered has in common."""

    exact: ClassVar[bool] = False
    """The error is that of backpropagation, so that layers stay plain."""

    redraws: ClassVar[bool] = False
    """`redraw_feedback` gives the layer a new draw."""


class Rule(LearningRule, ABC):
    """The feedback weight V of a layer, from its weight W and what was drawn for it."""

    def draw(self, shape: torch.Size, uniform: Callable[[float], Tensor]) -> Tensor | None:
        """What is kept for a layer whose weight has this shape, of any shape; None if nothing is.

        `uniform(bound)` gives independent draws from U(-bound, bound), in the shape of the weight.
        """
        return None

    @abstractmethod
    def feedback(self, weight: Tensor, drawn: Tensor | None, out: Tensor) -> Tensor:
        """V, in the shape of `weight`: written to `out` (same shape) and returned, or `drawn` itself."""


rules: Registry[LearningRule] = Registry("rule", "hashrobust.rules")
