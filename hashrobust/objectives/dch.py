"""DCH: see the class."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, require_positive, require_weight, unit_rows
from hashrobust.objectives._pairs import pair_mean, pair_weights, similarity

# Keeps log(d) finite for equal codes.
SMALLEST_DISTANCE = 1e-5


@objectives.register("dch")
class DCH(Objective):
    """DCH: Cauchy likelihood of pairwise similarity under the Hamming distance.

    Source: Cao, Long, Liu, Wang, "Deep Cauchy Hashing for Hamming Space Retrieval", CVPR 2018,
    on u = tanh(z) with d(a, b) = K (1 - cos(a, b)) / 2:

        mean over pairs w (S log(d/gamma) + log(1 + gamma/d))
        + lambda mean over images log(1 + d(|u|, 1)/gamma),  w = S/p + (1-S)/(1-p)

    `gamma` is the scale of the Cauchy distribution in bits, `quantization_weight` lambda.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        gamma: float = 10.0,
        quantization_weight: float = 0.01,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        require_positive(gamma=gamma)
        require_weight(quantization_weight=quantization_weight)
        self.gamma = gamma
        self.quantization_weight = quantization_weight

    def _distance(self, cosine: Tensor) -> Tensor:
        distance = self.bits * (1 - cosine) / 2
        return distance.clamp(SMALLEST_DISTANCE, self.bits - SMALLEST_DISTANCE)

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Cauchy cross-entropy of the pairs plus the weighted quantisation error."""
        u = torch.tanh(z)
        rows = unit_rows(u)
        similar = similarity(labels)
        ratio = self._distance(rows @ rows.T) / self.gamma
        # S log r + log(1 + 1/r) = log(1 + r) - (1-S) log r, which has no 1/r.
        pairs = torch.log1p(ratio) - (1 - similar) * torch.log(ratio)
        to_corner = unit_rows(u.abs()).sum(dim=1) / self.bits**0.5
        quantization = torch.log1p(self._distance(to_corner) / self.gamma).mean()
        weighted = pair_weights(similar, self.similar_share) * pairs
        return pair_mean(weighted) + self.quantization_weight * quantization
