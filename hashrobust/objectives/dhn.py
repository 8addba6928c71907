"""DHN: see the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, require_positive, require_weight
from hashrobust.objectives._pairs import pair_mean, similarity


@objectives.register("dhn")
class DHN(Objective):
    """DHN: likelihood of pairwise similarity as in DPSH, with a smooth quantisation error.

    Source: Zhu, Long, Wang, Cao, "Deep Hashing Network for Efficient Similarity Retrieval", AAAI 2016,
    on u = tanh(z):

        -mean over pairs (S a<u,u'> + logsigmoid(-a<u,u'>)) + lambda mean over images sum log cosh(|u| - 1)

    `inner_scale` a is 1/2 as in DPSH, and 1 in the code of H2Q (Schwengber et al.), whose quantisation
    log cosh(|u|) - 1 draws outputs to 0, a slip; `quantization_weight` is lambda.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        inner_scale: float = 0.5,
        quantization_weight: float = 0.01,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        require_positive(inner_scale=inner_scale)
        require_weight(quantization_weight=quantization_weight)
        self.inner_scale = inner_scale
        self.quantization_weight = quantization_weight

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Negative log-likelihood of the pairs plus the weighted quantisation error."""
        u = torch.tanh(z)
        theta = self.inner_scale * u @ u.T
        pairs = F.binary_cross_entropy_with_logits(theta, similarity(labels), reduction="none")
        quantization = torch.log(torch.cosh(u.abs() - 1)).sum(dim=1).mean()
        return pair_mean(pairs) + self.quantization_weight * quantization
