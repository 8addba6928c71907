"""FGSM: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hashrobust.attacks import AttackContext, ClassifierAttack, Clean, attacks


@attacks.register("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(ClassifierAttack):
    """FGSM, classification: one step of epsilon from the clean image by the sign of the gradient.

    Goodfellow et al., arXiv 1412.6572, on the cross-entropy of the true class. Every image makes its step and
    keeps it, also where that helps the model, and wherever `start_images` would begin.

    Args:
        epsilon: radius of the ball in pixel units, and the size of the step.
        eot: passes whose mean gradient the step follows.
    """

    steps: int = field(default=1, init=False)
    step_size: float | None = field(default=None, init=False)
    random_start: bool = field(default=False, init=False)
    restarts: int = field(default=1, init=False)
    keep: str = field(default="last", init=False)

    must_cross = False

    def step_size_at(self, step: int) -> float:
        """epsilon."""
        return self.epsilon

    def _start(self, clean: Clean, descent: int, context: AttackContext) -> Tensor:
        return clean.images
