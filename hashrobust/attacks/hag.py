"""HAG: Yang et al., "Adversarial Examples for Hamming Space Search", IEEE Trans. Cybernetics 2020."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import Clean, GradientAttack, attacks
from hashrobust.errors import InputError

from ._alpha import auto_alpha
from ._base import State


@attacks.register("hag")
@dataclass(frozen=True, kw_only=True)
class HAG(GradientAttack):
    """HAG: away from the image's own code, bit by bit; knows the model alone.

    Yang et al., "Adversarial Examples for Hamming Space Search", IEEE Trans. Cybernetics 2020. Minimises
    (sum over open bits of u o u0 / m + 1)^2 + beta (sum over open bits of u / K)^2, where u0 = tanh(z0)
    is the clean image's and the m open bits are those with |u - sign u0| < 1 + threshold. Of outputs that are small
    little is left but the balance: with alpha "auto" those whose mean |z0| is below 1 are scaled to that mean first.
    The shared parameters are those of `GradientAttack`.

    Args:
        beta: weight of the balance of the open bits.
        threshold: how far past zero a bit counts as flipped for good.
    """

    beta: float = 1.0
    threshold: float = 0.5

    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        "original": {
            "epsilon": 10 / 255,
            "steps": 2000,
            "step_size": 100 / 255**2,
            "optimizer": "gradient",
            "alpha": "A10",
            "random_start": False,
        },
        "saat": {
            "epsilon": 8 / 255,
            "steps": 2000,
            "step_size": 100 / 128,
            "optimizer": "momentum",
            "alpha": "A10",
            "random_start": False,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "threshold"):
            if not getattr(self, name) >= 0:
                raise InputError(
                    f"{name} {getattr(self, name):g} lets bits be before they flip: give 0 or more"
                )

    def _open_bits(self, u: Tensor, clean: Clean) -> Tensor:
        return (u - clean.codes).abs() < 1.0 + self.threshold

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class."""
        open_bits = self._open_bits(u, clean)
        count = open_bits.sum(dim=1).clamp(min=1)
        scale = auto_alpha(clean.outputs).clamp(min=1.0) if self.alpha == "auto" else 1.0
        similarity = (u * torch.tanh(scale * clean.outputs) * open_bits).sum(dim=1) / count
        balance = (u * open_bits).sum(dim=1) / u.shape[1]
        return ((similarity + 1.0) ** 2 + self.beta * balance**2) * open_bits.any(dim=1)

    def hard_objective(self, codes: Tensor, clean: Clean, state: State) -> Tensor:
        """Agreement with the clean code, in [-1, 1]; the masked formula forgets bits that are flipped."""
        return (codes * clean.codes).mean(dim=1)

    def finished(self, u: Tensor, clean: Clean, state: State) -> Tensor:
        """No open bit is left; outputs that are not numbers never count as that."""
        return ((u - clean.codes).abs() >= 1.0 + self.threshold).all(dim=1)

    def goal_codes(self, codes: Tensor, state: State) -> Tensor:
        """The opposite of the clean code."""
        return -codes
