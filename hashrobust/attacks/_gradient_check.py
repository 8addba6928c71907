"""Are the gradients that an attacker gets the derivatives of the function under attack?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._base import input_gradient
from ._center import hard_codes
from ._context import Model

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GradientCheck:
    """Gradients against finite differences.

    `cosine`: the lowest over inputs, of the directional derivatives by either way. `relative_error`: the
    largest difference between the two, in units of the input's largest derivative. `kinks` of the
    `pairs` (input, direction) were discarded since two step sizes disagree there.
    """

    cosine: float
    relative_error: float
    kinks: int
    pairs: int

    @property
    def kink_share(self) -> float:
        """Share of pairs that were discarded; above 0.2 the check says nothing."""
        return self.kinks / self.pairs

    @property
    def passed(self) -> bool:
        """Cosine of at least 0.999 with at most a fifth of the pairs discarded."""
        return self.cosine >= 0.999 and self.kink_share <= 0.2


def check_gradient(
    model: Model,
    images: Tensor,
    objective: Objective | None = None,
    *,
    inputs: int = 8,
    directions: int = 20,
    step_sizes: tuple[float, float] = (1e-5, 1e-6),
    kink_tolerance: float = 1e-3,
    seed: int = 0,
) -> GradientCheck:
    """Compare directional derivatives with central finite differences in float64.

    `model` maps float64 images (B, C, H, W) to float64 z (B, K): give it a float64 copy. `objective`
    maps z to (B,); by default the agreement of tanh(z) with the images' own codes. Directions have unit
    2-norm; a kink is where the differences by the two step sizes disagree.

    Raises:
        InputError: no images, or a model that does not compute in float64.
    """
    x = images[:inputs].detach().double()
    if not len(x):
        raise InputError("no images to check gradients on: give at least one")
    with torch.no_grad():
        outputs = model(x)
    if outputs.dtype != torch.float64:
        raise InputError(f"the model computes in {outputs.dtype}: give a float64 copy (model.double())")
    own_codes = hard_codes(outputs)
    score = objective or (lambda z: (torch.tanh(z) * own_codes).mean(dim=1))

    generator = keyed_generator("gradient check", seed)
    rays = torch.randn(directions, *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device)
    rays = rays / rays.flatten(1).norm(dim=1)[:, None, None, None]
    with torch.enable_grad():
        x.requires_grad_(True)
        gradient = input_gradient(score(model(x)).sum(), x)
    exact = gradient.flatten(1) @ rays.flatten(1).T
    coarse, fine = (_differences(model, score, x.detach(), rays, size) for size in step_sizes)

    scale = fine.abs().amax(dim=1, keepdim=True)
    kink = (coarse - fine).abs() > kink_tolerance * torch.maximum(scale, fine.new_tensor(1e-9))
    cosines = [_cosine(e[~k], f[~k]) for e, f, k in zip(exact, fine, kink, strict=True)]
    error = ((exact - fine).abs() / scale.clamp(min=1e-9)).masked_fill(kink, 0.0)
    return GradientCheck(
        cosine=min(cosines), relative_error=float(error.max()), kinks=int(kink.sum()), pairs=kink.numel()
    )


@torch.no_grad()
def _differences(model: Model, score: Objective, x: Tensor, rays: Tensor, size: float) -> Tensor:
    """Central differences of each input along each direction, (inputs, directions)."""
    columns = [(score(model(x + size * ray)) - score(model(x - size * ray))) / (2 * size) for ray in rays]
    return torch.stack(columns, dim=1)


def _cosine(exact: Tensor, measured: Tensor, negligible: float = 1e-9) -> float:
    """Cosine of two vectors; 1 if both vanish, 0 if one does."""
    norms = exact.norm() * measured.norm()
    if exact.norm() < negligible and measured.norm() < negligible:
        return 1.0
    return float(exact @ measured / norms) if norms > 0 else 0.0
