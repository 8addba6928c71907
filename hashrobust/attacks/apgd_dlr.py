"""APGD-DLR: Croce and Hein, "Reliable Evaluation of Adversarial Robustness", ICML 2020, arXiv 2003.01690."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, attacks
from hashrobust.errors import InputError

from ._apgd import AutoPGD
from ._base import State
from ._logits import logits_ratio


@attacks.register("apgd-dlr")
@dataclass(frozen=True, kw_only=True)
class APGDDLR(AutoPGD):
    """APGD-DLR, classification: Auto-PGD up the difference of logits ratio, which no scale of logits masks.

    Croce and Hein, ICML 2020, arXiv 2003.01690. Minimises (z_y - max of the other logits) / (z_1 - z_3), z_1
    and z_3 the largest and the third largest. The loop and the parameters are those of `AutoPGD`.

    Raises:
        InputError: the model has fewer than three classes.
    """

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """See `ClassifierAttack.prepare`."""
        if codes.shape[1] < 3:
            raise InputError(
                f"attack apgd-dlr takes the third largest logit, the model has {codes.shape[1]}: use apgd-ce"
            )
        return super().prepare(codes, labels, context)

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class."""
        return logits_ratio(u, state["classes"])
