"""Feedback alignment: fixed random feedback that the forward weights learn to agree with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hashrobust.rules._draws import xavier_bound
from hashrobust.rules._rule import Rule, rules


@rules.register("fa")
class FeedbackAlignment(Rule):
    """Feedback alignment: V = B, B ~ Xavier-uniform, drawn once and fixed.

    Source: Lillicrap et al. 2014, arXiv 1411.0247.
    """

    def draw(self, shape: torch.Size, uniform: Callable[[float], Tensor]) -> Tensor:
        """B."""
        return uniform(xavier_bound(shape))

    def feedback(self, weight: Tensor, drawn: Tensor | None, out: Tensor) -> Tensor:
        """V = B."""
        assert drawn is not None
        return drawn
