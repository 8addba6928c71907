"""Step rules: from the gradient to the images (B, C, H, W) to the update that is subtracted from them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Update = Callable[[Tensor], Tensor]


def sign(step_size: float) -> Update:
    """Each pixel moves by the step size."""
    return lambda gradient: step_size * gradient.sign()


def gradient_descent(step_size: float) -> Update:
    """The step size is a learning rate, not a distance."""
    return lambda gradient: step_size * gradient


def normalized(step_size: float) -> Update:
    """Each image moves by the step size in its 2-norm."""

    def update(gradient: Tensor) -> Tensor:
        rows = gradient.flatten(1)
        norm: Tensor = rows.norm(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
        return step_size * (rows / norm[:, None]).view_as(gradient)

    return update


def momentum(step_size: float, decay: float = 0.9) -> Update:
    """Stochastic gradient descent with momentum, as torch.optim.SGD; the step size is a learning rate."""
    velocity: Tensor | float = 0.0

    def update(gradient: Tensor) -> Tensor:
        nonlocal velocity
        velocity = decay * velocity + gradient
        return step_size * velocity

    return update


def adam(step_size: float, decays: tuple[float, float] = (0.9, 0.999), tiny: float = 1e-8) -> Update:
    """Adam, Kingma and Ba, arXiv 1412.6980; each pixel moves by about the step size."""
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    step = 0

    def update(gradient: Tensor) -> Tensor:
        nonlocal first, second, step
        step += 1
        first = decays[0] * first + (1 - decays[0]) * gradient
        second = decays[1] * second + (1 - decays[1]) * gradient**2
        spread: Tensor = (torch.as_tensor(second) / (1 - decays[1] ** step)).sqrt()
        moved: Tensor = step_size * (first / (1 - decays[0] ** step)) / (spread + tiny)
        return moved

    return update


OPTIMIZERS: dict[str, Callable[[float], Update]] = {
    "sign": sign,
    "gradient": gradient_descent,
    "normalized": normalized,
    "momentum": momentum,
    "adam": adam,
}

# Those whose step size bounds how far a pixel moves in a step.
BOUNDED = frozenset({"sign", "normalized", "adam"})
