"""Random noise: what a perturbation of the same size does by chance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import Attack, AttackContext, AttackResult, Clean, attacks, ball, project
from hashrobust.errors import InputError

from ._base import call_model
from ._center import hard_codes
from ._context import TASKS, Model
from ._logits import classes_to_leave, still_right
from ._random import uniform_noise


@attacks.register("noise")
@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Random noise in the ball, uniform or of full size with random signs; a baseline that asks no model.

    Its objective, agreement with the clean code in [-1, 1] or whether a classifier is still right, is measured
    after the fact: one draw, none chosen.

    Args:
        epsilon: radius of the ball in pixel units.
        seed: keys the draw, with the sample id.
        kind: "uniform" or "sign".
    """

    kind: str = "uniform"

    follows_gradient = False
    tasks = TASKS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("uniform", "sign"):
            raise InputError(f"unknown kind of noise '{self.kind}': give 'uniform' or 'sign'")

    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        noise = uniform_noise(clean.images, context.ids, "noise", self.seed)
        if self.kind == "sign":
            noise = torch.where(noise >= 0, 1.0, -1.0).to(noise.dtype)
        images = project(clean.images + self.epsilon * noise, *ball(clean.images, self.epsilon))
        with torch.no_grad():
            outputs = call_model(model, images)
        if context.task == "classification":
            classes = classes_to_leave(labels, clean.outputs)
            objective, before = still_right(outputs, classes), still_right(clean.outputs, classes)
        else:
            objective = (hard_codes(outputs) * clean.codes).mean(dim=1)
            before = torch.ones_like(objective)
        return AttackResult.at_once(images, objective, before)
