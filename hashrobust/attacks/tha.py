"""Prototype attack: Wang et al., "Targeted Attack and Defense for Deep Hashing", SIGIR 2021."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, GradientAttack, attacks

from ._base import State
from ._context import required
from ._prototypes import PrototypeAttack


@attacks.register("tha")
@dataclass(frozen=True, kw_only=True)
class THA(PrototypeAttack, GradientAttack):
    """THA: toward a code that a network learns for the target label; knows training codes and labels.

    Wang et al., SIGIR 2021. Minimises -(u . p) / K with the prototype p = sign(PrototypeNet(target)).
    `fit` trains the network on the training codes and labels alone, see `train_prototypes`. The shared
    parameters are those of `GradientAttack` and `PrototypeAttack`. The preset `original` starts at the
    clean image; the default trains the network for 100 steps with a ten times higher rate instead of
    30,000, after which prototypes were measured to rank no worse than center codes.
    """

    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        "original": {
            "steps": 100,
            "step_size": 1 / 255,
            "alpha": 1.0,
            "random_start": False,
            "prototype_steps": 30_000,
            "prototype_rate": 1e-4,
        },
    }

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """The prototypes (B, K)."""
        return {"prototype": self.prototypes(required(context.targets), codes, context)}

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class."""
        return -(u * state["prototype"]).mean(dim=1)
