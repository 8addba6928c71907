"""OrthoHash: see the class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.objectives import objectives
from hashrobust.objectives._base import require_positive, unit_rows
from hashrobust.objectives._centres import CentreObjective, labelled
from hashrobust.objectives._pairs import masked_mean


@objectives.register("orthohash")
class OrthoHash(CentreObjective):
    """OrthoHash: classification by the cosine to nearly orthogonal codes, one a class.

    Source: Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning
    Objective", NeurIPS 2021, arXiv 2109.14449, on z itself, without tanh:

        mean over images cross-entropy(softmax(scale (cos(z, centres) - margin y)), y / sum y)

    with multi-hot labels y, which several labels share equally. Centres are those of CSQ (`_centres`).
    Images without a label do not count. `scale` 8 and `margin` 0.2 are those of the authors' code. Their
    network also has batch normalisation on z, to balance the bits; here the network is the user's.
    `seed` draws the random bits.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        scale: float = 8.0,
        margin: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(bits, num_classes, similar_share, seed=seed)
        require_positive(scale=scale)
        if not 0 <= margin < 2:
            raise InputError(f"margin is {margin}: give a difference of cosines between 0 and 2")
        self.scale = scale
        self.margin = margin

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Cross-entropy of the scaled cosines."""
        cosines = unit_rows(z) @ unit_rows(self.centres.to(z)).T
        logits = self.scale * (cosines - self.margin * labels)
        shares = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
        return masked_mean(F.cross_entropy(logits, shares, reduction="none"), labelled(labels))
