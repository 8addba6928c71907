"""DSH: see the class."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, require_positive, require_weight
from hashrobust.objectives._pairs import pair_mean, similarity


@objectives.register("dsh")
class DSH(Objective):
    """DSH: contrastive loss on the squared distance of relaxed codes.

    Source: Liu, Wang, Shan, Chen, "Deep Supervised Hashing for Fast Image Retrieval", CVPR 2016,
    on u = tanh(z) with d = |u - u'|^2:

        mean over pairs (S/2 d + (1-S)/2 relu(margin - d)) + lambda mean over images sum ||u| - 1|

    The paper has no tanh. `margin` is 2 bits, as there, unless given; `quantization_weight` is lambda.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        margin: float | None = None,
        quantization_weight: float = 0.01,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        self.margin = 2.0 * bits if margin is None else margin
        require_positive(margin=self.margin)
        require_weight(quantization_weight=quantization_weight)
        self.quantization_weight = quantization_weight

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Contrastive loss of the pairs plus the weighted quantisation error."""
        u = torch.tanh(z)
        similar = similarity(labels)
        squares = u.square().sum(dim=1)
        distance = squares[:, None] + squares - 2 * u @ u.T
        pairs = (similar * distance + (1 - similar) * torch.relu(self.margin - distance)) / 2
        quantization = (u.abs() - 1).abs().sum(dim=1).mean()
        return pair_mean(pairs) + self.quantization_weight * quantization
