"""Universal adversarial perturbation: the idea of Moosavi-Dezfooli et al., CVPR 2017, arXiv 1610.08401."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, AttackResult, Clean, attacks, ball, project
from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._alpha import alpha_at
from ._base import State, call_model, check_count, input_gradient
from ._center import hard_codes
from ._context import Model, fitted_part, label_vectors, required, training_images
from ._optimizers import OPTIMIZERS
from ._random import keyed_uniform
from .center import Center


@attacks.register("uap")
@dataclass(frozen=True, kw_only=True)
class Universal(Center):
    """One perturbation for all images, fitted on training images; knows training images, labels, codes.

    The idea of Moosavi-Dezfooli et al., arXiv 1610.08401, by plain gradient steps: each step descends the
    `center` objective summed over `fit_batch` training images, drawn by (seed, step). Every image gets the
    same perturbation, then clipped to [0, 1], whether or not it helps there; targeted, there is one for
    each distinct label vector of the training images. `fit` finds them, each at the cost of attacking
    `fit_batch` images by `center`; `gradient_evaluations` of an image are those behind its perturbation,
    taken once however many images get it.
    The shared parameters are those of `Center`, `random_start` that of the perturbation.

    Args:
        fit_batch: training images a step.
    """

    fit_batch: int = 64

    presets = {}  # noqa: RUF012 - those of `Center` were published for single images
    fits = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts != 1:
            raise InputError("attack uap fits a single perturbation: leave restarts at 1")
        if self.eot != 1:
            raise InputError("attack uap takes a mean over training images, not over passes: leave eot at 1")
        check_count("fit_batch", self.fit_batch, of="images")

    @property
    def needs(self) -> frozenset[str]:
        """Training images and codes, and the targets to reach."""
        return frozenset({"train_codes", "train_images"} | ({"targets"} if self.targeted else set()))

    def learn(self, model: Model, context: AttackContext) -> State:
        """The perturbations (L, C, H, W), and at how many steps their gradient was zero or not finite (L,)."""
        aims = label_vectors(required(context.train_labels)) if self.targeted else [None]
        blank = torch.zeros_like(training_images(context, torch.tensor([0]))[0])
        found = [self._find(model, blank, context, aim) for aim in aims]
        if not found:
            raise InputError(
                "train_labels hold no label, so there is no target: give labelled training images"
            )
        changes, zero, nonfinite = zip(*found, strict=True)
        return {
            "change": torch.stack(changes),
            "zero": torch.tensor(zero),
            "nonfinite": torch.tensor(nonfinite),
        }

    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        fitted = {name: fitted_part(context, name) for name in ("change", "zero", "nonfinite")}
        which = self._places(clean.images, context, fitted["change"])
        chosen = {name: tensor.to(which.device)[which] for name, tensor in fitted.items()}
        change = chosen["change"].to(clean.images)
        images = project(clean.images + change, *ball(clean.images, self.epsilon))
        with torch.no_grad():
            codes = hard_codes(call_model(model, images))
        state = self.prepare(clean.codes, labels, context)
        result = AttackResult.at_once(
            images,
            self.hard_objective(codes, clean, state),
            self.hard_objective(clean.codes, clean, state),
        )
        return replace(
            result,
            gradient_evaluations=torch.full_like(which, self.steps),
            zero_gradients=chosen["zero"],
            nonfinite_gradients=chosen["nonfinite"],
        )

    def _places(self, images: Tensor, context: AttackContext, changes: Tensor) -> Tensor:
        """Which of the fitted perturbations each image gets, (B,)."""
        aims = label_vectors(required(context.train_labels)).to(images.device) if self.targeted else None
        count = 1 if aims is None else len(aims)
        if changes.shape != (count, *images.shape[1:]):
            raise InputError(
                f"context.fitted holds perturbations of shape {tuple(changes.shape)} where "
                f"{(count, *images.shape[1:])} is needed: fit the attack to this training set"
            )
        if aims is None:
            return torch.zeros(len(images), dtype=torch.int64, device=images.device)
        equal = (required(context.targets).to(aims)[:, None] == aims).all(dim=2)
        if not bool(equal.any(dim=1).all()):
            raise InputError(
                "targets hold a label vector that no training image has, and uap learns its perturbations from "
                "those: draw targets from the training labels (draw_targets)"
            )
        return equal.int().argmax(dim=1)

    def _find(
        self, model: Model, change: Tensor, context: AttackContext, target: Tensor | None
    ) -> tuple[Tensor, int, int]:
        """The perturbation (C, H, W) from none, and the steps at which its gradient was zero or not finite."""
        if self.random_start:
            noise = keyed_uniform(torch.tensor([0]), tuple(change.shape), "uap start", self.seed)[0]
            change = self.epsilon * (2.0 * noise - 1.0).to(change)
        direction = OPTIMIZERS[self.optimizer]()
        zero = nonfinite = 0
        for step in range(self.steps):
            if context.before_step is not None:
                context.before_step(0, step)
            gradient = self._gradient(model, change, step, context, target)
            finite = gradient.isfinite()
            gradient = torch.where(finite, gradient, 0.0)
            nonfinite += int(not finite.all())
            zero += int((gradient == 0).all())
            move = self.step_size_at(step) * direction(gradient[None])[0]
            change = (change - move).clamp(-self.epsilon, self.epsilon)
        return change, zero, nonfinite

    def _gradient(
        self, model: Model, change: Tensor, step: int, context: AttackContext, target: Tensor | None
    ) -> Tensor:
        """Of the objective summed over the training images of a step, by the perturbation (C, H, W)."""
        labels = required(context.train_labels)
        order = torch.randperm(len(labels), generator=keyed_generator("uap images", self.seed, step))
        rows = order[: self.fit_batch]
        images = training_images(context, rows).to(change)
        with torch.no_grad():
            outputs = call_model(model, images)
        clean = Clean(images, outputs, hard_codes(outputs))
        targets = None if target is None else target.expand(len(rows), -1)
        state = self.prepare(clean.codes, labels[rows], replace(context, targets=targets))
        changed = project(images + change, *ball(images, self.epsilon)).requires_grad_(True)
        z = call_model(model, changed)
        u = self.relax(z, alpha_at(self.alpha, step, self.steps, z))
        return input_gradient(self.objective(u, changed, clean, state).sum(), changed).sum(dim=0)
