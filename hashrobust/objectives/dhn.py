"""DHN: see the class."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.objectives import objectives
from hashrobust.objectives.dpsh import DPSH


@objectives.register("dhn")
class DHN(DPSH):
    """DHN: likelihood of pairwise similarity as in DPSH, with a smooth quantisation error.

    Source: Zhu, Long, Wang, Cao, "Deep Hashing Network for Efficient Similarity Retrieval", AAAI 2016,
    on u = tanh(z):

        -mean over pairs (S a<u,u'> + logsigmoid(-a<u,u'>)) + lambda mean over images sum log cosh(|u| - 1)

    `inner_scale` a is 1/2 as in DPSH, and 1 in the code of H2Q (Schwengber et al.), whose quantisation
    log cosh(|u|) - 1 draws outputs to 0, a slip; `quantization_weight` is lambda.
    """

    def quantization(self, u: Tensor) -> Tensor:
        """Quantisation error (B,) of relaxed codes u (B, bits)."""
        return torch.log(torch.cosh(u.abs() - 1)).sum(dim=1)
