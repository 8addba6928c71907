"""Directions of descent: from the gradient to the images (B, C, H, W) to what is subtracted, times the step size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Direction = Callable[[Tensor], Tensor]


def sign() -> Direction:
    """Each pixel moves by the step size."""
    return torch.sign


def gradient_descent() -> Direction:
    """The step size is a learning rate, not a distance."""
    return lambda gradient: gradient


def normalized() -> Direction:
    """Each image moves by the step size in its 2-norm."""

    def direction(gradient: Tensor) -> Tensor:
        rows = gradient.flatten(1)
        norm: Tensor = rows.norm(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
        return (rows / norm[:, None]).view_as(gradient)

    return direction


def momentum(decay: float = 0.9) -> Direction:
    """Stochastic gradient descent with momentum, as torch.optim.SGD; the step size is a learning rate."""
    velocity: Tensor | float = 0.0

    def direction(gradient: Tensor) -> Tensor:
        nonlocal velocity
        velocity = decay * velocity + gradient
        return velocity

    return direction


def adam(decays: tuple[float, float] = (0.9, 0.999), tiny: float = 1e-8) -> Direction:
    """Adam, Kingma and Ba, arXiv 1412.6980; each pixel moves by about the step size."""
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    step = 0

    def direction(gradient: Tensor) -> Tensor:
        nonlocal first, second, step
        step += 1
        first = decays[0] * first + (1 - decays[0]) * gradient
        second = decays[1] * second + (1 - decays[1]) * gradient**2
        spread: Tensor = (torch.as_tensor(second) / (1 - decays[1] ** step)).sqrt()
        scaled: Tensor = (first / (1 - decays[0] ** step)) / (spread + tiny)
        return scaled

    return direction


OPTIMIZERS: dict[str, Callable[[], Direction]] = {
    "sign": sign,
    "gradient": gradient_descent,
    "normalized": normalized,
    "momentum": momentum,
    "adam": adam,
}

# Those whose step size bounds how far a pixel moves in a step.
BOUNDED = frozenset({"sign", "normalized", "adam"})
# Those whose step size is how far each pixel moves, or about that.
BY_PIXEL = frozenset({"sign", "adam"})
