"""HyP2: see the class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, require_positive, require_weight, unit_rows
from hashrobust.objectives._margin import cosine_margin
from hashrobust.objectives._pairs import distinct_pairs, masked_mean, similarity


@objectives.register("hyp2")
class HyP2(Objective):
    """HyP2: learned class proxies attract, other proxies and dissimilar images repel.

    Source: Xu et al., "HyP2 Loss: Beyond Hypersphere Metric Space for Multi-label Image Retrieval",
    MM 2022, arXiv 2208.06866, on u = tanh(z) and P = tanh(proxies):

        pair_weight mean over dissimilar pairs relu(cos(u,u') - margin)
        + mean over own labels -cos(u,P) + mean over other labels relu(cos(u,P) - margin)

    All as in H2Q (Schwengber et al., arXiv 2311.04207). The code of HyP2's authors has no tanh, and of dissimilar
    pairs takes only those of images with two labels or more. `pair_weight` is 1.25 in H2Q (0.75 for NUS-WIDE),
    0.5 by default in the code of HyP2's authors, 0.01 in the scripts of Berriche et al. (arXiv 2502.05925);
    `margin` follows from bits and classes unless given (`_margin.class_margin`).
    The proxies (C, K) are drawn by Kaiming's normal rule and learn at `proxy_learning_rate`.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        pair_weight: float = 1.25,
        margin: float | None = None,
        proxy_learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        require_weight(pair_weight=pair_weight)
        require_positive(proxy_learning_rate=proxy_learning_rate)
        self.pair_weight = pair_weight
        self.margin = cosine_margin(margin, bits, num_classes)
        self.own_learning_rate = proxy_learning_rate
        self.proxies = nn.Parameter(nn.init.kaiming_normal_(torch.empty(num_classes, bits), mode="fan_out"))

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Proxy terms plus the weighted term of dissimilar pairs."""
        rows = unit_rows(torch.tanh(z))
        to_proxies = rows @ unit_rows(torch.tanh(self.proxies)).T
        attraction = masked_mean(-to_proxies, labels)
        repulsion = masked_mean(torch.relu(to_proxies - self.margin), 1 - labels)
        between = rows @ rows.T
        dissimilar = (1 - similarity(labels)) * distinct_pairs(between)
        pairs = masked_mean(torch.relu(between - self.margin), dissimilar)
        return attraction + repulsion + self.pair_weight * pairs
