"""The L-infinity ball around the clean images, intersected with [0, 1], safe against float rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.errors import InputError

# k/255 is not exact in float32: two levels that lie 8/255 apart may differ by one rounding more.
_LEVEL_TOLERANCE = 2.0**-23


def ball(clean: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest images of the ball, in the precision of `clean` (B, C, H, W).

    Every x between them has |x - clean| <= epsilon, be the difference taken exactly or in the precision
    of the images.
    """
    # Rounding is monotone: a distance of at most a float of the images' precision rounds to at most that.
    radius = torch.tensor(epsilon, dtype=clean.dtype)
    if radius.item() > epsilon:
        radius = torch.nextafter(radius, torch.zeros_like(radius))
    lower, upper = clean.double() - radius.item(), clean.double() + radius.item()
    return (
        _toward(clean, lower.clamp(min=0.0).to(clean.dtype), radius.item()),
        _toward(clean, upper.clamp(max=1.0).to(clean.dtype), radius.item()),
    )


def _toward(clean: Tensor, bound: Tensor, radius: float) -> Tensor:
    """Where rounding put a bound outside, the next float toward `clean`."""
    outside = (bound.double() - clean.double()).abs() > radius
    return torch.where(outside, torch.nextafter(bound, clean), bound)


def project(images: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The nearest images between the bounds of `ball`."""
    return torch.minimum(torch.maximum(images, lower), upper)


def outward(images: Tensor, clean: Tensor, old_epsilon: float, new_epsilon: float) -> Tensor:
    """Images (B, C, H, W) of the ball of the old radius moved along their way from `clean` into the new one.

    A start for an attack in a larger ball: an attack fills its ball, and the same direction fills the next.

    Raises:
        InputError: a radius that is not above 0.
    """
    if not (old_epsilon > 0 and new_epsilon > 0):
        raise InputError(f"epsilon {old_epsilon:g} to {new_epsilon:g} has no ratio: give two above 0")
    return project(clean + (images - clean) * (new_epsilon / old_epsilon), *ball(clean, new_epsilon))


def inside_ball(images: Tensor, clean: Tensor, epsilon: float, *, tolerance: float = 0.0) -> bool:
    """Whether every image (B, C, H, W) lies in [0, 1] and within epsilon (+ tolerance) of the clean one."""
    distance = (images.double() - clean.double()).abs()
    # Comparisons are false for NaN, so a NaN pixel counts as outside.
    return bool(((distance <= epsilon + tolerance) & (images >= 0.0) & (images <= 1.0)).all())


def round_to_8_bits(images: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Images (B, C, H, W) with each pixel at the nearest of the 256 levels that lies inside the ball.

    A pixel with no level inside keeps its value. The result is what an 8-bit file can hold wherever the
    clean image was one; levels are compared with a tolerance of one float32 rounding (2^-23).
    """
    nearest = (images.double() * 255.0).round()
    result = images.clone()
    settled = torch.zeros_like(images, dtype=torch.bool)
    # The ball is an interval that holds the pixel: if the nearest level is outside, the one on the
    # pixel's other side is the nearest that can be inside.
    other = nearest + torch.where(images.double() * 255.0 >= nearest, 1.0, -1.0)
    for level in (nearest, other):
        value = level.to(images.dtype) / 255.0
        inside = (value.double() - clean.double()).abs() <= epsilon + _LEVEL_TOLERANCE
        take = inside & (level >= 0) & (level <= 255) & ~settled
        result = torch.where(take, value, result)
        settled |= take
    return result
