"""Auto-PGD's step size: Croce and Hein, "Reliable Evaluation of Adversarial Robustness", arXiv 2003.01690."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ._ball import project
from ._classifier import ClassifierAttack
from ._loop import Mover

MOMENTUM = 0.75
RHO = 0.75
"""The share of improving steps up to which a sample counts as stalled."""


def checkpoints(steps: int) -> dict[int, int]:
    """The steps at which progress is looked at, each with the number of steps since the one before.

    A first window of 22% of the steps; each next one is shorter by 3% of them, and none shorter than 6%.
    """
    window, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found, place = {}, window
    while place < steps:
        found[place] = window
        window = max(window - shorter, shortest)
        place += window
    return found


@dataclass(frozen=True, kw_only=True)
class AutoPGD(ClassifierAttack):
    """Sign steps with momentum; each sample halves its step size and returns to its best where it stalls.

    Croce and Hein, arXiv 2003.01690, Algorithm 1. The step size begins at 2 epsilon. At each checkpoint (see
    `checkpoints`) it is halved if at most 75% of the steps since the last one made the objective lower, or if
    neither the step size nor the lowest objective has changed since then. The shared parameters are those of
    `ClassifierAttack`, without the step size.
    """

    step_size: float | None = field(default=None, init=False)

    def step_size_at(self, step: int) -> float:
        """2 epsilon, before any halving."""
        return 2 * self.epsilon

    def mover(self, lower: Tensor, upper: Tensor) -> Mover:
        """See the class."""
        return _AutoSteps(self.step_size_at(0), checkpoints(self.steps), lower, upper)


class _AutoSteps:
    """The moves of one descent, called with step 0, 1, 2 ...; all that it remembers has one entry a sample."""

    def __init__(self, size: float, windows: dict[int, int], lower: Tensor, upper: Tensor) -> None:
        self._windows, self._lower, self._upper = windows, lower, upper
        samples = len(lower)
        self._size = torch.full((samples, 1, 1, 1), size, dtype=lower.dtype, device=lower.device)
        self._value = self._best = self._best_before = self._size.new_full((samples,), torch.inf)
        self._best_images = self._best_gradient = self._last = lower
        self._improving = self._size.new_zeros(samples)
        self._halved = torch.ones(samples, dtype=torch.bool, device=lower.device)

    def __call__(self, step: int, images: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        """See `Mover`."""
        self._remember(step, images, gradient, value)
        if step in self._windows:
            images, gradient = self._look(self._windows[step], images, gradient)
        moved = self._inside(images - self._size * gradient.sign())
        if step > 0:
            moved = self._inside(
                images + MOMENTUM * (moved - images) + (1 - MOMENTUM) * (images - self._last)
            )
        self._last = images
        return moved

    def _remember(self, step: int, images: Tensor, gradient: Tensor, value: Tensor) -> None:
        if step > 0:
            self._improving = self._improving + (value < self._value)
        better = value < self._best
        if step == 0:
            better, self._best_before = torch.ones_like(better), value
        self._value, self._best = value, torch.where(better, value, self._best)
        self._best_images = torch.where(better[:, None, None, None], images, self._best_images)
        self._best_gradient = torch.where(better[:, None, None, None], gradient, self._best_gradient)

    def _look(self, window: int, images: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the step size of samples that stall; they go on from their best images."""
        stalled = self._improving <= RHO * window
        stuck = ~self._halved & (self._best >= self._best_before)
        self._halved = stalled | stuck
        self._best_before, self._improving = self._best, torch.zeros_like(self._improving)
        back = self._halved[:, None, None, None]
        self._size = torch.where(back, self._size / 2, self._size)
        return torch.where(back, self._best_images, images), torch.where(back, self._best_gradient, gradient)

    def _inside(self, images: Tensor) -> Tensor:
        return project(images, self._lower, self._upper)
