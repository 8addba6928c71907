"""SDHA: Lu et al., "Smart Adversarial Attack on Deep Hashing Based Image Retrieval", ICMR 2021."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, GradientAttack, attacks
from hashrobust.errors import InputError

from ._base import State
from ._context import required


@attacks.register("sdha")
@dataclass(frozen=True, kw_only=True)
class SDHA(GradientAttack):
    """SDHA: away from (targeted: toward) every training code that shares a label; knows labels and codes.

    Lu et al., "A Smart Adversarial Attack on Deep Hashing Based Image Retrieval", ICMR 2021. Minimises
    MSE(x', x) - (25/K) mean over those codes r of w_r sum of phi(u o r), with
    phi(v) = (1 - v)/2 s(5 v) + 1 - s(5 v), s the sigmoid, and w_r a detached power -1/2 of the Hamming
    distance of sign u and r. A query whose label no training image shares leaves its own code. Targeted:
    MSE + (25/K) mean over the target's codes of w_r sum of phi(u o r), phi(v) = (1 - v)/2 s(-10 v),
    w_r = distance^0.3. The shared parameters are those of `GradientAttack`.

    Args:
        targeted: go toward the targets of the context.
        weight: w_r if not targeted: "clamped", max(distance, 1)^-0.5, or "smoothed" as in SAAT's code,
            (distance + 1e-8)^-0.5.
        code_weight: the 25.
    """

    targeted: bool = False
    weight: str = "clamped"
    code_weight: float = 25.0

    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        name: {
            "weight": weight,
            "steps": 1500,
            "step_size": 0.01,
            "optimizer": "adam",
            "alpha": "A10",
            "random_start": False,
        }
        for name, weight in (("original", "clamped"), ("saat", "smoothed"))
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight not in ("clamped", "smoothed"):
            raise InputError(f"unknown weight '{self.weight}' of attack sdha: give 'clamped' or 'smoothed'")
        if not self.code_weight > 0:
            raise InputError(
                f"code_weight {self.code_weight:g} leaves codes where they are: give a weight above 0"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Training codes, and the labels to leave or the targets to reach."""
        return frozenset({"train_codes", "targets" if self.targeted else "labels"})

    @property
    def goal(self) -> str:
        """By `targeted`."""
        return "targeted" if self.targeted else "non-targeted"

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """Distinct codes (T, K), their shares (B, T) of the relevant codes, and who has none (B, 1)."""
        guide = required(context.targets if self.targeted else labels).to(codes)
        relevant = (guide @ required(context.train_labels).to(codes).T > 0).to(codes)
        distinct, place = torch.unique(required(context.train_codes).to(codes), dim=0, return_inverse=True)
        counts = codes.new_zeros(len(codes), len(distinct)).index_add_(1, place, relevant)
        total = counts.sum(dim=1, keepdim=True)
        if self.targeted and bool((total == 0).any()):
            raise InputError("no training image shares a label with some target: draw other targets")
        return {"codes": distinct, "shares": counts / total.clamp(min=1.0), "alone": total == 0}

    def _phi(self, v: Tensor) -> Tensor:
        """What a bit adds, v = u o r."""
        if self.targeted:
            return 0.5 * (1.0 - v) * torch.sigmoid(-10.0 * v)
        gate = torch.sigmoid(5.0 * v)
        return 0.5 * (1.0 - v) * gate + 1.0 - gate

    def _weights(self, distance: Tensor) -> Tensor:
        if self.targeted:
            return distance.clamp(min=0.0) ** 0.3
        if self.weight == "clamped":
            return distance.clamp(min=1.0) ** -0.5
        return (distance.clamp(min=0.0) + 1e-8) ** -0.5

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class; the table's bits are +-1, so that phi(u o r) is linear in r: two products do."""
        codes, bits = state["codes"], u.shape[1]
        signs = torch.where(u.detach() >= 0, 1.0, -1.0).to(u)
        weights = state["shares"] * self._weights((bits - signs @ codes.T) / 2.0)
        to_own = (bits - (signs * clean.codes).sum(dim=1, keepdim=True)) / 2.0
        own_weight = state["alone"] * self._weights(to_own)
        total = weights.sum(dim=1) + own_weight[:, 0]
        direction = weights @ codes + own_weight * clean.codes
        same, opposite = self._phi(u), self._phi(-u)
        even, odd = (same + opposite) / 2.0, (same - opposite) / 2.0
        surrogate = total * even.sum(dim=1) + (odd * direction).sum(dim=1)
        distortion = ((images - clean.images) ** 2).flatten(1).mean(dim=1)
        return distortion + self._sign * self.code_weight / bits * surrogate

    @property
    def _sign(self) -> float:
        """Of the codes' part of the objective."""
        return 1.0 if self.targeted else -1.0

    def _surrogate(self, distance: Tensor, bits: int) -> Tensor:
        """w_r sum of phi for a hard code at the distance."""
        ones = torch.ones((), dtype=distance.dtype, device=distance.device)
        inner = distance * self._phi(-ones) + (bits - distance) * self._phi(ones)
        return self._weights(distance) * inner

    def goal_codes(self, codes: Tensor, state: State) -> Tensor:
        """The code that no flip of a single bit improves, climbing from the majority or its opposite."""
        table, shares = state["codes"].double(), state["shares"].double()
        bits = table.shape[1]
        best = torch.where(shares @ table > 0, self._sign, -self._sign).to(table)
        for _ in range(4 * bits):
            distance = (bits - best @ table.T) / 2.0
            farther, nearer = self._surrogate(distance + 1, bits), self._surrogate(distance - 1, bits)
            mean, half = (farther + nearer) / 2.0, (farther - nearer) / 2.0
            flipped = (shares * mean).sum(dim=1, keepdim=True) + best * ((shares * half) @ table)
            present = (shares * self._surrogate(distance, bits)).sum(dim=1, keepdim=True)
            gain, bit = (self._sign * (present - flipped)).max(dim=1)
            improving = gain > 1e-9
            if not bool(improving.any()):
                break
            rows = improving.nonzero().flatten()
            best[rows, bit[rows]] *= -1.0
        return torch.where(state["alone"], -codes, best.to(codes))
