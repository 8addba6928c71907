"""Center-code attack: Wang et al. 2022 (CgAT), Yuan et al. 2023 (SAAT, mainstay codes)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, GradientAttack, attacks
from hashrobust.errors import InputError

from ._base import State
from ._center import guide_codes

LOSSES = ("masked", "dot", "logit", "saat")


@attacks.register("center")
@dataclass(frozen=True, kw_only=True)
class Center(GradientAttack):
    """Away from the center code of the labels, or toward the target's; knows labels and training codes.

    CgAT, Wang et al., arXiv 2204.10779; PgA, arXiv 2303.12658; SAAT, Yuan et al., arXiv 2310.14637. The
    center code c is that of `center_codes`; a query without labels is driven away from its own code.
    With s = u o c, minimised is for the losses
    "masked": sum of s(s + 2) over the open bits s > -1/2, divided by their number, as SAAT has it; targeted
    its mirror image, sum of s(s - 2) over s < 1/2;
    "dot": mean of s (non-targeted), mean of -s (targeted);
    "logit": as "dot" with u = alpha z, no tanh;
    "saat": as "masked", but targeted as published: sum of -s(s + 2) over s < 1/2, whose gradient vanishes
    where s = -1, that is at the start.
    The shared parameters are those of `GradientAttack`.

    Args:
        targeted: go toward the targets of the context.
        loss: "masked", "dot", "logit" or "saat".
    """

    targeted: bool = False
    loss: str = "masked"

    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        "saat": {"loss": "saat", "step_size": 1 / 255, "steps": 100, "alpha": "A10"},
        "saat-fixed": {"loss": "masked", "step_size": 1 / 255, "steps": 100, "alpha": "A10"},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss '{self.loss}' of attack center: known: {', '.join(LOSSES)}")

    @property
    def needs(self) -> frozenset[str]:
        """Training codes, and the labels to leave or the targets to reach."""
        return frozenset({"train_codes", "targets" if self.targeted else "labels"})

    @property
    def goal(self) -> str:
        """By `targeted`."""
        return "targeted" if self.targeted else "non-targeted"

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """The center code c (B, K)."""
        return {"center": guide_codes(codes, labels, context, targeted=self.targeted)}

    def relax(self, outputs: Tensor, alpha: float | Tensor) -> Tensor:
        """tanh(alpha z), or alpha z for the logit loss."""
        return alpha * outputs if self.loss == "logit" else super().relax(outputs, alpha)

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class."""
        s = u * state["center"]
        if self.loss in ("dot", "logit"):
            return -s.mean(dim=1) if self.targeted else s.mean(dim=1)
        open_bits = s < 0.5 if self.targeted else s > -0.5
        terms = s * (s + 2)
        if self.targeted:
            terms = s * (s - 2) if self.loss == "masked" else -terms
        return (terms * open_bits).sum(dim=1) / open_bits.sum(dim=1).clamp(min=1)

    def at_goal(self, u: Tensor, clean: Clean, state: State) -> Tensor:
        """No open bit is left to a masked loss."""
        if self.loss in ("dot", "logit"):
            return super().at_goal(u, clean, state)
        s = u * state["center"]
        return (s >= 0.5 if self.targeted else s <= -0.5).all(dim=1)

    def hard_objective(self, codes: Tensor, clean: Clean, state: State) -> Tensor:
        """Agreement with the center code (non-targeted) or its negative (targeted), in [-1, 1]."""
        agreement = (codes * state["center"]).mean(dim=1)
        return -agreement if self.targeted else agreement

    def goal_codes(self, codes: Tensor, state: State) -> Tensor:
        """The opposite of the center code, or the target's center code."""
        return state["center"] if self.targeted else -state["center"]
