"""Sign symmetry: the feedback has the signs of the current weights, and magnitudes of its own.

V = M o sign(W) with sign(0) = 0 and M >= 0; the three rules differ in M.

Source: Liao, Leibo and Poggio, AAAI 2016, arXiv 1510.05067.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hashrobust.rules._draws import xavier_bound, xavier_deviation
from hashrobust.rules._rule import Rule, rules


class SignSymmetry(Rule):
    """V = M o sign(W), `drawn` being M."""

    def feedback(self, weight: Tensor, drawn: Tensor | None, out: Tensor) -> Tensor:
        """V = M o sign(W)."""
        assert drawn is not None
        return torch.sign(weight, out=out).mul_(drawn)


@rules.register("usf")
class UniformSign(SignSymmetry):
    """Uniform sign-concordant feedback: M = sqrt(2 / (fan_in + fan_out)) everywhere.

    Source: Liao et al. 2016; the scale from Xiao et al. 2018, arXiv 1811.03567.
    """

    def draw(self, shape: torch.Size, uniform: Callable[[float], Tensor]) -> Tensor:
        """M, of shape ()."""
        return torch.tensor(xavier_deviation(shape))


@rules.register("frsf")
class FixedRandomSign(SignSymmetry):
    """Fixed random-magnitude sign-concordant feedback: abs(M), M ~ Xavier-uniform, drawn once.

    Source: Liao et al. 2016.
    """

    def draw(self, shape: torch.Size, uniform: Callable[[float], Tensor]) -> Tensor:
        """abs(M), of the weight's shape."""
        return uniform(xavier_bound(shape)).abs_()


@rules.register("brsf")
class BatchwiseRandomSign(FixedRandomSign):
    """Batchwise random-magnitude sign-concordant feedback: abs(M), drawn anew for every mini-batch.

    Source: Liao et al. 2016.
    """

    redraws = True
