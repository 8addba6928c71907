"""Center-code attack toward other centers: the multi-targeted idea of Gowal et al., arXiv 1910.09338."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, GradientAttack, attacks
from hashrobust.errors import InputError

from ._average_precision import lowest, training_average_precision, training_counts
from ._base import State, check_count
from ._center import guide_codes, other_centers
from ._context import required
from .center import LOSSES, Center


@attacks.register("center-multi")
@dataclass(frozen=True, kw_only=True)
class CenterMulti(GradientAttack):
    """Toward each of the nearest other center codes, the best of them kept; knows labels, training codes.

    The multi-targeted attack of Gowal et al., arXiv 1910.09338, for codes: one run of the targeted
    `center` attack toward the center code of each of the `others` label vectors that share no label with
    the query and lie nearest to its own center by Hamming distance (see `other_centers`). Each sample
    keeps the iterate of lowest average precision against the training codes, that is the estimate of
    what the attack is scored by; agreement with the own center would reward leaving that center in
    any direction, not the arrival at another. Ties: nearest to the first of the other centers.
    The shared parameters are those of `GradientAttack`; each restart is one toward each center.

    Args:
        others: number of other centers.
        loss: that of the targeted `center` attack: "masked", "dot", "logit" or "saat".
    """

    others: int = 3
    loss: str = "masked"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("others", self.others, of="centers")
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss '{self.loss}' of attack center-multi: known: {', '.join(LOSSES)}")

    @property
    def _toward(self) -> Center:
        return Center(targeted=True, loss=self.loss)

    @property
    def needs(self) -> frozenset[str]:
        """Labels and training codes."""
        return frozenset({"train_codes", "labels"})

    @property
    def descents(self) -> int:
        """One toward each center in each restart."""
        return self.restarts * self.others

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """The other centers (B, others, K), the first of them, and the training codes to rank."""
        known = required(labels)
        own = guide_codes(codes, known, context, targeted=False)
        centers = other_centers(own, known, context, self.others)
        return {"centers": centers, "center": centers[:, 0], **training_counts(codes, known, context)}

    def state_of(self, state: State, descent: int) -> State:
        """The center whose turn it is."""
        return state | {"center": state["centers"][:, descent % self.others]}

    def relax(self, outputs: Tensor, alpha: float | Tensor) -> Tensor:
        """As `center` does."""
        return self._toward.relax(outputs, alpha)

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """That of the targeted `center` attack toward the center whose turn it is."""
        return self._toward.objective(u, images, clean, state)

    def at_goal(self, u: Tensor, clean: Clean, state: State) -> Tensor:
        """That of the targeted `center` attack."""
        return self._toward.at_goal(u, clean, state)

    def hard_objective(self, codes: Tensor, clean: Clean, state: State) -> Tensor:
        """Average precision against the training codes, in [0, 1]."""
        return training_average_precision(codes, state).to(codes)

    def goal_codes(self, codes: Tensor, state: State) -> Tensor:
        """The other center that lowers the average precision against the training codes most."""
        return lowest(state["centers"], state)
