"""GreedyHash: see the class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, hard_codes, require_positive, require_weight

# Outputs beyond it are too far from 1 for float32 to hold the cube.
LARGEST_OUTPUT = 1e6


@objectives.register("greedyhash")
class GreedyHash(Objective):
    """GreedyHash: a linear classifier on the codes themselves, whose gradient passes straight through sign.

    Source: Su et al., "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN",
    NeurIPS 2018, on z itself, without tanh, with h = sign z:

        mean over images cross-entropy(softmax(W h), label) + lambda mean over images and bits ||z| - 1|^3

    The gradient with respect to z is that with respect to h, as if h were z, plus that of the second term,
    which keeps the two near each other. For images of one label: its softmax has no place for several.
    `quantization_weight` lambda is 0.1 in the paper; the classifier W (C, K), without bias, learns at
    `classifier_learning_rate` and is no part of the model.
    """

    single_label = True

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        quantization_weight: float = 0.1,
        classifier_learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        require_weight(quantization_weight=quantization_weight)
        require_positive(classifier_learning_rate=classifier_learning_rate)
        self.quantization_weight = quantization_weight
        self.own_learning_rate = classifier_learning_rate
        bound = 1 / math.sqrt(bits)
        self.classifier = nn.Parameter(nn.init.uniform_(torch.empty(num_classes, bits), -bound, bound))

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Cross-entropy of the classifier on codes plus the weighted quantisation error."""
        codes = straight_through(z)
        classification = F.cross_entropy(codes @ self.classifier.to(z).T, labels.argmax(dim=1))
        quantization = (z.abs().clamp(max=LARGEST_OUTPUT) - 1).abs().pow(3).mean()
        return classification + self.quantization_weight * quantization


def straight_through(z: Tensor) -> Tensor:
    """Codes in {-1, +1}, the sign of z; their gradient becomes that of z (Bengio et al., arXiv 1308.3432)."""
    return hard_codes(z) + (z - z.detach())
