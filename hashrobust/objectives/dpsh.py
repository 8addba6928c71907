"""DPSH: see the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, hard_codes, require_positive, require_weight
from hashrobust.objectives._pairs import pair_mean, similarity


@objectives.register("dpsh")
class DPSH(Objective):
    """DPSH: likelihood of pairwise similarity under the inner product of codes.

    Source: Li, Wang, Kang, "Feature Learning based Deep Supervised Hashing with Pairwise Labels",
    IJCAI 2016, arXiv 1511.03855, on u = tanh(z):

        -mean over pairs (S a<u,u'> + logsigmoid(-a<u,u'>)) + lambda mean over images |u - sign u|^2

    `inner_scale` a is 1/2 in the paper and 1 in the code of H2Q (Schwengber et al.);
    `quantization_weight` is lambda.
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
        # The negative log-likelihood of S under theta is binary cross-entropy with logits.
        pairs = F.binary_cross_entropy_with_logits(theta, similarity(labels), reduction="none")
        return pair_mean(pairs) + self.quantization_weight * self.quantization(u).mean()

    def quantization(self, u: Tensor) -> Tensor:
        """Quantisation error (B,) of relaxed codes u (B, bits)."""
        return (u - hard_codes(u)).square().sum(dim=1)
