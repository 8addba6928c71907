"""The L-infinity ball around the clean images, intersected with [0, 1], safe against float rounding."""

from __future__ import annotations

import torch
from torch import Tensor

# k/255 is not exact in float32: two levels that lie 8/255 apart may differ by one rounding more.
_LEVEL_TOLERANCE = 2.0**-23


def ball(clean: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest images of the ball, in the precision of `clean` (B, C, H, W).

    Every x between them has |x - clean| <= epsilon, be the difference taken exactly or in the precision
    of the images.
    """
    exact = clean.double()
    return (
        _toward(clean, (exact - epsilon).clamp(min=0.0).to(clean.dtype), epsilon),
        _toward(clean, (exact + epsilon).clamp(max=1.0).to(clean.dtype), epsilon),
    )


def _toward(clean: Tensor, bound: Tensor, epsilon: float) -> Tensor:
    """Move a rounded bound toward `clean`, a float at a time, until it lies inside."""
    for _ in range(2):
        exact = (bound.double() - clean.double()).abs() > epsilon
        rounded = (bound - clean).abs().double() > epsilon
        bound = torch.where(exact | rounded, torch.nextafter(bound, clean), bound)
    return bound


def project(images: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The nearest images between the bounds of `ball`."""
    return torch.minimum(torch.maximum(images, lower), upper)


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
