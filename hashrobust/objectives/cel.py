"""CEL: see the class."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, unit_rows
from hashrobust.objectives._margin import cosine_margin
from hashrobust.objectives._pairs import pair_mean, similarity


@objectives.register("cel")
class CEL(Objective):
    """CEL: cosine embedding loss, similar pairs to cosine 1 and dissimilar ones below a margin.

    Source: torch.nn.CosineEmbeddingLoss, for hashing Schwengber et al., "Deep Hashing via Householder
    Quantization", arXiv 2311.04207, on u = tanh(z):

        mean over pairs (S (1 - cos(u,u')) + (1-S) relu(cos(u,u') - margin))

    `margin` follows from bits and classes unless given (`_margin.class_margin`).
    """

    def __init__(
        self, bits: int, num_classes: int, similar_share: float, *, margin: float | None = None
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        self.margin = cosine_margin(margin, bits, num_classes)

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """The mean over pairs."""
        rows = unit_rows(torch.tanh(z))
        cosine = rows @ rows.T
        similar = similarity(labels)
        return pair_mean(similar * (1 - cosine) + (1 - similar) * torch.relu(cosine - self.margin))
