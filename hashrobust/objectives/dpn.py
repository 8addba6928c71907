"""DPN: see the class."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import require_positive
from hashrobust.objectives._centres import CentreObjective, labelled
from hashrobust.objectives._pairs import masked_mean


@objectives.register("dpn")
class DPN(CentreObjective):
    """DPN: every output is pushed past a margin, to the side that the target of its class has.

    Source: Fan et al., "Deep Polarized Network for Supervised Learning of Accurate Binary Hashing
    Codes", IJCAI 2020, on z itself, without tanh:

        mean over images and bits relu(margin - z t)

    with targets t in {-1, +1}. The paper draws them at random; here they are kept far from each other, and
    for several labels they are the majority, as in CSQ (`_centres`). Images without a label have no
    target and do not count. `margin` is 1 in the paper; `seed` draws the random bits.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        margin: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(bits, num_classes, similar_share, seed=seed)
        require_positive(margin=margin)
        self.margin = margin

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """The mean hinge of all bits."""
        hinge = torch.relu(self.margin - z * self.targets(labels))
        return masked_mean(hinge.mean(dim=1), labelled(labels))
