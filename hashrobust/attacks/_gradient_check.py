"""Are the gradients that an attacker gets the derivatives of the function under attack?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._alpha import auto_alpha
from ._ball import ball
from ._base import input_gradient
from ._center import hard_codes
from ._context import Model

Objective = Callable[[Tensor], Tensor]

# What rounding makes of a derivative that is zero, in float64 at the finer step size.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class GradientAgreement:
    """Gradients against finite differences at one place; `kinks` of `pairs` (input, direction) were discarded.

    `cosine`: the lowest over inputs, of the directional derivatives by either way. An input of which less
    than half the pairs are left says nothing; None if no input says anything. `relative_error`: the
    largest difference between the two, in units of the input's largest derivative.
    """

    cosine: float | None
    relative_error: float
    kinks: int
    pairs: int

    @property
    def kink_share(self) -> float:
        """Share of pairs that were discarded."""
        return self.kinks / self.pairs


@dataclass(frozen=True)
class GradientCheck:
    """Gradients against finite differences at the clean images and at a random start of an attack."""

    clean: GradientAgreement
    start: GradientAgreement

    @property
    def cosine(self) -> float:
        """The lower of both places, of those that say something; 0 if none does."""
        said = [place.cosine for place in (self.clean, self.start) if place.cosine is not None]
        return min(said, default=0.0)

    @property
    def kink_share(self) -> float:
        """That of the start; a clean image may lie on a kink whatever the direction."""
        return self.start.kink_share

    @property
    def passed(self) -> bool:
        """Cosine of at least 0.999 wherever a place says something, at most a fifth kinks at the start."""
        return self.cosine >= 0.999 and self.kink_share <= 0.2


def check_gradient(
    model: Model,
    images: Tensor,
    objective: Objective | None = None,
    *,
    epsilon: float = 8 / 255,
    inputs: int = 8,
    directions: int = 20,
    step_sizes: tuple[float, float] = (1e-6, 1e-7),
    kink_tolerance: float = 1e-3,
    seed: int = 0,
) -> GradientCheck:
    """Compare directional derivatives with central finite differences in float64, at two places.

    The places are the clean images, and images drawn uniformly from the ball of radius `epsilon` around
    them, where an attack works: a clean image may lie exactly on a kink, such as the maximum of a constant
    background, where no gradient is right in all directions. A kink is where the differences by the two
    step sizes disagree, or the forward and the backward difference by the smaller.

    `model` maps float64 images (B, C, H, W) to float64 z (B, K): give it a float64 copy. `objective`
    maps z to (B,); by default the agreement of tanh(alpha z) with the images' own codes, alpha by `auto_alpha`:
    where tanh saturates any gradient would pass. Directions have unit 2-norm; they and the start are keyed by `seed`.

    Raises:
        InputError: no images, or a model that does not compute in float64.
    """
    clean = images[:inputs].detach().double()
    if not len(clean):
        raise InputError("no images to check gradients on: give at least one")
    with torch.no_grad():
        outputs = model(clean)
    if outputs.dtype != torch.float64:
        raise InputError(f"the model computes in {outputs.dtype}: give a float64 copy (model.double())")
    alpha, own_codes = auto_alpha(outputs), hard_codes(outputs)
    score = objective or (lambda z: (torch.tanh(alpha * z) * own_codes).mean(dim=1))

    generator = keyed_generator("gradient check", seed)
    rays = torch.randn(directions, *clean.shape[1:], generator=generator, dtype=torch.float64).to(
        clean.device
    )
    rays = rays / rays.flatten(1).norm(dim=1)[:, None, None, None]
    # Drawn from the ball's part of [0, 1], not clipped to it: clipped pixels are equal, on kinks again.
    lower, upper = ball(clean, epsilon)
    generator = keyed_generator("gradient check start", seed)
    place = torch.rand(clean.shape, generator=generator, dtype=torch.float64).to(clean.device)
    start = lower + place * (upper - lower)
    return GradientCheck(
        *(_compare(model, score, x, rays, step_sizes, kink_tolerance) for x in (clean, start))
    )


def _compare(
    model: Model,
    score: Objective,
    x: Tensor,
    rays: Tensor,
    step_sizes: tuple[float, float],
    kink_tolerance: float,
) -> GradientAgreement:
    """Gradients at x (B, C, H, W) along the rays (directions, C, H, W) against finite differences."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        values = score(model(x))
        gradient = input_gradient(values.sum(), x)
    x, values = x.detach(), values.detach()
    exact = gradient.flatten(1) @ rays.flatten(1).T
    coarse, fine = [_one_sided(model, score, x, values, rays, size) for size in step_sizes]
    measured = fine.mean(dim=0)

    scale = measured.abs().amax(dim=1, keepdim=True)
    bend = torch.maximum((coarse.mean(dim=0) - measured).abs(), (fine[0] - fine[1]).abs())
    kink = bend > (kink_tolerance * scale).clamp(min=_ROUNDING)
    error = ((exact - measured).abs() / scale.clamp(min=_ROUNDING)).masked_fill(kink, 0.0)
    rows = zip(exact, measured, ~kink, strict=True)
    # The few pairs that most kinks leave are those of small derivatives, where a small bend is large.
    cosines = [_cosine(e[keep], m[keep]) for e, m, keep in rows if 2 * keep.sum() >= len(keep)]
    return GradientAgreement(
        cosine=min(cosines, default=None),
        relative_error=float(error.max()),
        kinks=int(kink.sum()),
        pairs=kink.numel(),
    )


@torch.no_grad()
def _one_sided(
    model: Model, score: Objective, x: Tensor, values: Tensor, rays: Tensor, size: float
) -> Tensor:
    """Forward and backward differences of each input along each direction, (2, inputs, directions)."""
    forward = [(score(model(x + size * ray)) - values) / size for ray in rays]
    backward = [(values - score(model(x - size * ray))) / size for ray in rays]
    return torch.stack([torch.stack(forward, dim=1), torch.stack(backward, dim=1)])


def _cosine(exact: Tensor, measured: Tensor) -> float:
    """Cosine of two vectors; 1 if both vanish, 0 if one does."""
    norms = exact.norm() * measured.norm()
    if exact.norm() < _ROUNDING and measured.norm() < _ROUNDING:
        return 1.0
    return float(exact @ measured / norms) if norms > 0 else 0.0
