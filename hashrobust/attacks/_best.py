"""The best iterate of each sample, and the counts of what went wrong on the way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._context import AttackResult, Clean

Scores = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class BestIterates:
    """Starts from the clean images; `scores` maps images and outputs to hard and relaxed objective (B,)."""

    def __init__(self, clean: Clean, scores: Scores) -> None:
        self._scores = scores
        self._images = clean.images.clone()
        with torch.no_grad():
            self._hard, self._relaxed = scores(clean.images, clean.outputs)
        self._clean_hard = self._hard.clone()
        self.finished = torch.zeros_like(self._hard, dtype=torch.bool)
        self._evaluations = torch.zeros_like(self._hard, dtype=torch.int64)
        self._zero = torch.zeros_like(self._evaluations)
        self._nonfinite = torch.zeros_like(self._evaluations)

    @torch.no_grad()
    def offer(self, images: Tensor, outputs: Tensor) -> Tensor:
        """Keep each sample that beats its best: by hard codes, ties by the relaxed.

        Returns the relaxed objective (B,), infinite where the outputs are not numbers.
        """
        hard, relaxed = self._scores(images, outputs)
        # Outputs that are not numbers have no code: such an iterate is never the best.
        finite = outputs.isfinite().all(dim=1)
        relaxed = torch.where(finite, relaxed, torch.inf)
        better = (hard < self._hard) | ((hard == self._hard) & (relaxed < self._relaxed))
        better &= finite & ~self.finished
        self._hard = torch.where(better, hard, self._hard)
        self._relaxed = torch.where(better, relaxed, self._relaxed)
        self._images[better] = images.detach()[better]
        return relaxed

    def finish_at(self, optimum: float) -> None:
        """Samples whose hard objective has come down to the optimum are finished."""
        self.finished |= self._hard <= optimum

    def usable(self, gradient: Tensor) -> Tensor:
        """The gradient with zeros for what is not a finite number; counts it and what is zero throughout."""
        finite = gradient.isfinite()
        active = ~self.finished
        self._evaluations += active
        self._nonfinite += active & ~finite.flatten(1).all(dim=1)
        gradient = torch.where(finite, gradient, 0.0)
        self._zero += active & (gradient == 0).flatten(1).all(dim=1)
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
