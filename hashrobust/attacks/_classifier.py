"""What the attacks by gradient on classifiers share: the loop of `GradientAttack`, on logits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from ._base import State
from ._best import BestIterates, LastIterates
from ._context import AttackContext, Clean, required
from ._logits import log_odds, still_right, true_classes
from ._loop import GradientAttack


@dataclass(frozen=True, kw_only=True)
class ClassifierAttack(GradientAttack):
    """Away from the true class: sign steps that raise the cross-entropy of the logits, or another loss.

    The best iterate is one that is misclassified, among those or without any the one with the lowest
    objective. A misclassified sample is finished, unless the images are meant for another model
    (`AttackContext.transfer`). The shared parameters are those of `GradientAttack`, without alpha and the
    choice of an optimizer.
    """

    optimizer: str = field(default="sign", init=False)
    alpha: float | str = field(default=1.0, init=False)
    keep: str = field(default="best", init=False)

    version = 1
    tasks = frozenset({"classification"})

    @property
    def needs(self) -> frozenset[str]:
        """The true classes."""
        return frozenset({"labels"})

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """The true classes (B,)."""
        return {"classes": true_classes(required(labels), codes.shape[1]).to(codes.device)}

    def relax(self, outputs: Tensor, alpha: float | Tensor) -> Tensor:
        """The logits as they are."""
        return outputs

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """The log-odds of the true class, which to signs of gradients are the cross-entropy (see `log_odds`)."""
        return log_odds(u, state["classes"])

    def iterates(self, clean: Clean, state: State, context: AttackContext) -> BestIterates:
        """See `GradientAttack.iterates`; hard is whether the class is still the predicted one."""

        def scores(images: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            return still_right(outputs, state["classes"]), self.objective(outputs, images, clean, state)

        if self.keep == "last":
            return LastIterates(clean, scores)
        return BestIterates(clean, scores, optimum=-math.inf if context.transfer else 0.0)

    def theory_codes(
        self, clean_codes: Tensor, labels: Tensor | None = None, context: AttackContext | None = None
    ) -> None:
        """None: a classifier has no codes."""
