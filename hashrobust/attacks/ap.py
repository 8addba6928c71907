"""Attack on a surrogate of average precision: Cakir et al., CVPR 2019; Brown et al., ECCV 2020."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, GradientAttack, attacks
from hashrobust.errors import InputError

from ._average_precision import lowest, smooth_average_precision, training_average_precision, training_counts
from ._base import State
from ._center import guide_codes, other_centers
from ._context import required


@attacks.register("ap")
@dataclass(frozen=True, kw_only=True)
class AveragePrecision(GradientAttack):
    """Down with the average precision itself, by a smooth surrogate; knows labels and training codes.

    Minimises `smooth_average_precision` of the query against the training codes, relevant where they share
    a label: ranks smoothed by a sigmoid (Smooth-AP, Brown et al., ECCV 2020) over soft histograms of the
    Hamming distances (FastAP, Cakir et al., CVPR 2019). The best iterate has the lowest average precision
    of its code, ties in expectation. A query that no training image shares a label with leaves its own
    code. `theory_codes` gives the lowest of four candidates, the opposite of the query's center code and
    the three nearest other centers: full success may go below it.
    The shared parameters are those of `GradientAttack`.

    Args:
        temperature: of the sigmoid, in bits: distances that differ by much less count as tied.
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise InputError(
                f"temperature {self.temperature:g} smooths nothing: give a number of bits above 0"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Labels and training codes."""
        return frozenset({"train_codes", "labels"})

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """The training codes to rank, who has no relevant one (B,), and candidates for the goal (B, 4, K)."""
        known = required(labels)
        counts = training_counts(codes, known, context)
        own = guide_codes(codes, known, context, targeted=False)
        others = other_centers(own, known, context, 3)
        alone = counts["relevant"].sum(dim=1) == 0
        return {**counts, "alone": alone, "candidates": torch.cat([-own[:, None], others], dim=1)}

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class."""
        surrogate = smooth_average_precision(u, state, self.temperature)
        return torch.where(state["alone"], (u * clean.codes).mean(dim=1), surrogate)

    def hard_objective(self, codes: Tensor, clean: Clean, state: State) -> Tensor:
        """Average precision in [0, 1], or where nothing is relevant agreement with the own code."""
        precision = training_average_precision(codes, state).to(codes)
        return torch.where(state["alone"], (codes * clean.codes).mean(dim=1), precision)

    def goal_codes(self, codes: Tensor, state: State) -> Tensor:
        """The best candidate; the opposite of the own code where nothing is relevant."""
        return torch.where(state["alone"][:, None], -codes, lowest(state["candidates"], state))
