"""DTSH: see the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, hard_codes, require_weight
from hashrobust.objectives._pairs import distinct_pairs, masked_mean, similarity


@objectives.register("dtsh")
class DTSH(Objective):
    """DTSH: likelihood of triplets, an image nearer to a similar one than to a dissimilar one.

    Source: Wang, Shi, Kitani, "Deep Supervised Hashing with Triplet Labels", ACCV 2016,
    arXiv 1612.03900, on u = tanh(z) with theta(u, v) = <u, v>/2:

        -mean over triplets logsigmoid(theta(u, v) - theta(u, w) - margin) + lambda mean over images |u - sign u|^2

    Triplets are all those of the batch: v another image that shares a label with u, w one that shares
    none. Without both kinds only the quantisation counts. `margin` is bits/2, as in the paper, unless given;
    `quantization_weight` is lambda.
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
        self.margin = bits / 2 if margin is None else margin
        require_weight(margin=self.margin, quantization_weight=quantization_weight)
        self.quantization_weight = quantization_weight

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Negative log-likelihood of the triplets plus the weighted quantisation error."""
        u = torch.tanh(z)
        theta = u @ u.T / 2
        similar = similarity(labels)
        anchor, positive = (similar * distinct_pairs(similar)).nonzero(as_tuple=True)
        # One row a similar pair, one column an image that may be the dissimilar one.
        ahead = theta[anchor, positive][:, None] - theta[anchor] - self.margin
        triplets = masked_mean(F.softplus(-ahead), 1 - similar[anchor])
        quantization = (u - hard_codes(z)).square().sum(dim=1).mean()
        return triplets + self.quantization_weight * quantization
