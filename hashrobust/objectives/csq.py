"""CSQ: see the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import require_weight
from hashrobust.objectives._centres import CentreObjective, labelled
from hashrobust.objectives._pairs import masked_mean


@objectives.register("csq")
class CSQ(CentreObjective):
    """CSQ: every image moves to the hash centre of its class.

    Source: Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval",
    CVPR 2020, arXiv 1908.00347, on u = tanh(z):

        mean over images and bits BCE((1+u)/2, centre) + lambda mean over images sum (|u| - 1)^2

    Centres are rows of a Hadamard matrix where there are enough, else random codes
    (`_centres.hash_centres`), for several labels their majority (`_centres.CentreObjective`). Images
    without a label have no centre and only their quantisation counts.
    The quantisation term is squared, as in the authors' code, where the paper has log cosh. Their code takes its mean
    over bits, with weight 0.05, and adds a pairwise term that the paper has not; that of DeepHash-pytorch takes the
    mean with weight 1e-4. Here it is the sum over bits, with weight `quantization_weight` lambda. `seed` draws the
    random bits.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        quantization_weight: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(bits, num_classes, similar_share, seed=seed)
        require_weight(quantization_weight=quantization_weight)
        self.quantization_weight = quantization_weight

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Cross-entropy to the centres plus the weighted quantisation error."""
        # (1 + tanh z) / 2 = sigmoid(2z), so that the logits are 2z and nothing saturates.
        bitwise = F.binary_cross_entropy_with_logits(2 * z, (1 + self.targets(labels)) / 2, reduction="none")
        quantization = (torch.tanh(z).abs() - 1).square().sum(dim=1).mean()
        return masked_mean(bitwise.mean(dim=1), labelled(labels)) + self.quantization_weight * quantization
