"""WGLHH: see the class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, hard_codes, require_positive, require_weight, unit_rows
from hashrobust.objectives._pairs import pair_mean, pair_weights, similarity


@objectives.register("wglhh")
class WGLHH(Objective):
    """WGLHH: Gaussian likelihood of pairwise similarity, hard pairs weighing more.

    Source: Tu et al., "Weighted Gaussian Loss based Hamming Hashing", MM 2021, as in the code of H2Q
    (Schwengber et al., arXiv 2311.04207), on u = tanh(z) with d = K (1 - cos(u, u')) / 2, x = alpha d^2
    and a = exp(|(1 + cos)/2 - S|):

        mean over pairs w a ((1-S) e^-x + S f(x)) + lambda mean over images |u - sign u|^2,
        f(x) = (1 + e^-x) logsigmoid(x) - x e^-x + 2 log 2,  w = S/p + (1-S)/(1-p)

    The 2 log 2 is ours. Without it f is right by itself (f' = e^-x log(1 + e^x) > 0, so that similar pairs come
    closer) but negative, from -2 log 2 at d = 0, and the weight a, which grows with d, lowers the loss of similar
    pairs that part as long as d < 1/(alpha K), as its gradient shows. With it, similar pairs approach from
    every distance. The pull is Gaussian: it has faded at some 3/sqrt(alpha) bits, 10 by default, however
    many bits there are, so that similar images have to begin nearer than that.

    `gaussian_scale` is alpha, `quantization_weight` lambda.
    """

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        gaussian_scale: float = 0.1,
        quantization_weight: float = 0.01,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        require_positive(gaussian_scale=gaussian_scale)
        require_weight(quantization_weight=quantization_weight)
        self.gaussian_scale = gaussian_scale
        self.quantization_weight = quantization_weight

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Weighted Gaussian loss of the pairs plus the weighted quantisation error."""
        u = torch.tanh(z)
        rows = unit_rows(u)
        cosine = rows @ rows.T
        similar = similarity(labels)
        x = self.gaussian_scale * (self.bits * (1 - cosine) / 2).square()
        fading = torch.exp(-x)
        apart = (1 + fading) * F.logsigmoid(x) - x * fading + 2 * math.log(2)
        hardness = torch.exp(((1 + cosine) / 2 - similar).abs())
        pairs = hardness * ((1 - similar) * fading + similar * apart)
        quantization = (u - hard_codes(z)).square().sum(dim=1).mean()
        weighted = pair_weights(similar, self.similar_share) * pairs
        return pair_mean(weighted) + self.quantization_weight * quantization
