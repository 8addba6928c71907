"""The best iterate of each sample, and the counts of what went wrong on the way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._base import call_model
from ._context import AttackResult, Clean, Model

Scores = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class BestIterates:
    """Starts from the clean images; `scores` maps images and outputs to hard and relaxed objective (B,).

    A sample whose hard objective has come down to the `optimum` is finished.
    """

    def __init__(self, clean: Clean, scores: Scores, optimum: float = -math.inf) -> None:
        self._scores, self._optimum = scores, optimum
        self._clean_outputs = clean.outputs
        self._rows = torch.arange(len(clean.images), device=clean.images.device)
        self._images = clean.images.clone()
        with torch.no_grad():
            self._hard, relaxed = scores(clean.images, clean.outputs)
        self._clean_hard = self._hard.clone()
        finite = clean.outputs.isfinite().all(dim=1)
        self._relaxed = torch.where(finite, relaxed, torch.inf)
        self.finished = finite & (self._hard <= optimum)
        self.at_goal = torch.zeros_like(self.finished)
        self._evaluations = torch.zeros_like(self._hard, dtype=torch.int64)
        self._zero = torch.zeros_like(self._evaluations)
        self._nonfinite = torch.zeros_like(self._evaluations)

    def outputs(self, model: Model, images: Tensor) -> Tensor:
        """Outputs (B, K) of the model; those of finished samples mean nothing.

        Finished samples leave the batch that the model sees once they are half of it or more: each time
        that its shape changes, float rounding does. In their place stand the clean outputs.
        """
        active = ~self.finished
        if 0 < 2 * int(active.sum()) <= len(self._rows):
            self._rows = active.nonzero().flatten()
        if len(self._rows) == len(images):
            return call_model(model, images)
        return self._clean_outputs.index_copy(0, self._rows, call_model(model, images[self._rows]))

    @torch.no_grad()
    def offer(self, images: Tensor, outputs: Tensor) -> Tensor:
        """Keep each sample that beats its best: by hard codes, ties by the relaxed.

        Returns the relaxed objective (B,), infinite where the outputs are not numbers.
        """
        hard, relaxed = self._scores(images, outputs)
        # Outputs that are not numbers have no code: such an iterate is never the best.
        finite = outputs.isfinite().all(dim=1)
        relaxed = torch.where(finite, relaxed, torch.inf)
        better = self._better(hard, relaxed) & finite & ~self.finished
        self._hard = torch.where(better, hard, self._hard)
        self._relaxed = torch.where(better, relaxed, self._relaxed)
        self._images[better] = images.detach()[better]
        self.finished |= better & (hard <= self._optimum)
        return relaxed

    def _better(self, hard: Tensor, relaxed: Tensor) -> Tensor:
        """Which samples (B,) with these objectives beat the best."""
        return (hard < self._hard) | ((hard == self._hard) & (relaxed < self._relaxed))

    def usable(self, gradient: Tensor, passes: int = 1) -> Tensor:
        """The gradient, the mean of some passes, with zeros for what is not a finite number.

        Counts the passes, and the steps at which that happened or all was zero short of the goal.
        """
        finite = gradient.isfinite()
        active = ~self.finished
        self._evaluations += active * passes
        self._nonfinite += active & ~finite.flatten(1).all(dim=1)
        gradient = torch.where(finite, gradient, 0.0)
        self._zero += active & ~self.at_goal & (gradient == 0).flatten(1).all(dim=1)
        return gradient

    def result(self, queries: Tensor | None = None) -> AttackResult:
        """What the attack hands back; `queries` (B,) of a search."""
        return AttackResult(
            images=self._images,
            objective=self._hard,
            clean_objective=self._clean_hard,
            gradient_evaluations=self._evaluations,
            finished=self.finished,
            zero_gradients=self._zero,
            nonfinite_gradients=self._nonfinite,
            queries=torch.zeros_like(self._zero) if queries is None else queries,
        )


class LastIterates(BestIterates):
    """Each sample's last iterate whose outputs are numbers, for attacks that are published so."""

    def _better(self, hard: Tensor, relaxed: Tensor) -> Tensor:
        return torch.ones_like(hard, dtype=torch.bool)
