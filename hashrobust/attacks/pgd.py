"""PGD: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv 1706.06083."""

from __future__ import annotations

from dataclasses import dataclass

from hashrobust.attacks import ClassifierAttack, attacks
from hashrobust.errors import InputError


@attacks.register("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(ClassifierAttack):
    """PGD, classification: sign steps up the cross-entropy from a random start in the ball.

    Madry et al., arXiv 1706.06083. The shared parameters are those of `ClassifierAttack`; the step size is
    constant, unless given max(2/255, 2.5 epsilon / steps). The preset "madry" returns the last iterate, as
    published.

    Args:
        keep: "best", or "last": what the last step led to, whatever it is; then no sample is finished.
    """

    keep: str = "best"

    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        "madry": {"epsilon": 8 / 255, "steps": 10, "step_size": 2 / 255, "keep": "last"},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep not in ("best", "last"):
            raise InputError(f"unknown iterate '{self.keep}' to keep: give 'best' or 'last'")
        if self.keep == "last" and self.restarts > 1:
            raise InputError("of several restarts only the last one's images would be kept: set keep='best'")

    def step_size_at(self, step: int) -> float:
        """The step size given, or max(2/255, 2.5 epsilon / steps)."""
        return self.step_size or max(2 / 255, 2.5 * self.epsilon / self.steps)
