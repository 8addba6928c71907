"""HashNet: see the class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, require_positive
from hashrobust.objectives._pairs import pair_mean, pair_weights, similarity


@objectives.register("hashnet")
class HashNet(Objective):
    """HashNet: weighted pairwise likelihood on codes that sharpen towards sign as training goes on.

    Source: Cao, Long, Wang, Yu, "HashNet: Deep Learning to Hash by Continuation", ICCV 2017,
    arXiv 1702.00758:

        -mean over pairs w (S a<u,u'> + logsigmoid(-a<u,u'>)),  u = tanh(beta z),
        beta = sqrt(1 + floor(step / continuation_steps)),  w = S/p + (1-S)/(1-p)

    `inner_scale` a is 10/bits unless given.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        inner_scale: float | None = None,
        continuation_steps: int = 200,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        self.inner_scale = 10 / bits if inner_scale is None else inner_scale
        self.continuation_steps = continuation_steps
        require_positive(inner_scale=self.inner_scale, continuation_steps=continuation_steps)

    def beta(self, step: int) -> float:
        """Sharpness of the tanh after `step` training steps."""
        return math.sqrt(1 + step // self.continuation_steps)

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Weighted negative log-likelihood of the pairs."""
        u = torch.tanh(self.beta(step) * z)
        similar = similarity(labels)
        theta = self.inner_scale * u @ u.T
        pairs = F.binary_cross_entropy_with_logits(theta, similar, reduction="none")
        return pair_mean(pair_weights(similar, self.similar_share) * pairs)
