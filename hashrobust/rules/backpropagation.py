"""Backpropagation, the rule that all others are compared with."""

from __future__ import annotations

from torch import Tensor

from hashrobust.rules._rule import Rule, rules


@rules.register("bp")
class Backpropagation(Rule):
    """Backpropagation: V = W, the exact gradient.

    Source: Rumelhart, Hinton and Williams, Nature 323 (1986).
    """

    exact = True

    def feedback(self, weight: Tensor, drawn: Tensor | None, out: Tensor) -> Tensor:
        """V = W."""
        return weight
