"""Universal adversarial perturbation: the idea of Moosavi-Dezfooli et al., CVPR 2017, arXiv 1610.08401."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, AttackResult, Clean, attacks, ball, project
from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._alpha import alpha_at
from ._base import call_model, input_gradient
from ._center import hard_codes
from ._context import Model, required
from ._optimizers import OPTIMIZERS
from ._random import keyed_uniform
from .center import Center


@dataclass(frozen=True)
class _Fitted:
    """A perturbation (C, H, W), and at how many steps its gradient was zero or not finite."""

    change: Tensor
    zero: int
    nonfinite: int


@attacks.register("uap")
@dataclass(frozen=True, kw_only=True)
class Universal(Center):
    """One perturbation for all images, fitted on training images; knows training images, labels, codes.

    The idea of Moosavi-Dezfooli et al., arXiv 1610.08401, by plain gradient steps: each step descends the
    `center` objective summed over `fit_batch` training images, drawn by (seed, step). Every image gets the
    same perturbation, then clipped to [0, 1], whether or not it helps there; targeted, the same for all
    images with the same target. It depends on the seed and the training images alone and is fitted
    anew by each call, at the cost of attacking `fit_batch` images by `center`.
    The shared parameters are those of `Center`, `random_start` that of the perturbation.

    Args:
        fit_batch: training images a step.
    """

    fit_batch: int = 64

    presets = {}  # noqa: RUF012 - those of `Center` were published for single images

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts != 1:
            raise InputError("attack uap fits a single perturbation: leave restarts at 1")
        if self.eot != 1:
            raise InputError("attack uap takes a mean over training images, not over passes: leave eot at 1")
        if not isinstance(self.fit_batch, int) or self.fit_batch < 1:
            raise InputError(f"fit_batch is {self.fit_batch!r}: give a whole number of 1 or more images")

    @property
    def needs(self) -> frozenset[str]:
        """Training images and codes, and the targets to reach."""
        return frozenset({"train_codes", "train_images"} | ({"targets"} if self.targeted else set()))

    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        if self.targeted:
            targets, which = torch.unique(required(context.targets), dim=0, return_inverse=True)
            fitted = [self._fit(model, clean.images, context, target) for target in targets]
        else:
            which = torch.zeros(len(clean.images), dtype=torch.int64, device=clean.images.device)
            fitted = [self._fit(model, clean.images, context, None)]
        change = torch.stack([fit.change for fit in fitted])[which]
        images = project(clean.images + change, *ball(clean.images, self.epsilon))
        with torch.no_grad():
            codes = hard_codes(call_model(model, images))
        state = self.prepare(clean.codes, labels, context)
        return AttackResult(
            images=images,
            objective=self.hard_objective(codes, clean, state),
            clean_objective=self.hard_objective(clean.codes, clean, state),
            gradient_evaluations=torch.full_like(which, self.steps),
            finished=torch.zeros_like(which, dtype=torch.bool),
            zero_gradients=which.new_tensor([fit.zero for fit in fitted])[which],
            nonfinite_gradients=which.new_tensor([fit.nonfinite for fit in fitted])[which],
            queries=torch.zeros_like(which),
        )

    def _fit(self, model: Model, like: Tensor, context: AttackContext, target: Tensor | None) -> _Fitted:
        """The perturbation for images of the shape, type and device of `like` (B, C, H, W)."""
        change = torch.zeros_like(like[0])
        if self.random_start:
            noise = keyed_uniform(torch.tensor([0]), tuple(change.shape), "uap start", self.seed)[0]
            change = self.epsilon * (2.0 * noise - 1.0).to(like)
        update = OPTIMIZERS[self.optimizer](self.resolved_step_size)
        zero = nonfinite = 0
        for step in range(self.steps):
            if context.before_step is not None:
                context.before_step(0, step)
            gradient = self._gradient(model, change, step, context, target)
            finite = gradient.isfinite()
            gradient = torch.where(finite, gradient, 0.0)
            nonfinite += int(not finite.all())
            zero += int((gradient == 0).all())
            change = (change - update(gradient[None])[0]).clamp(-self.epsilon, self.epsilon)
        return _Fitted(change, zero, nonfinite)

    def _gradient(
        self, model: Model, change: Tensor, step: int, context: AttackContext, target: Tensor | None
    ) -> Tensor:
        """Of the objective summed over the training images of a step, by the perturbation (C, H, W)."""
        labels, source = required(context.train_labels), context.train_images
        order = torch.randperm(len(labels), generator=keyed_generator("uap images", self.seed, step))
        rows = order[: self.fit_batch]
        assert source is not None
        images = (source[rows] if isinstance(source, Tensor) else source(rows)).to(change)
        with torch.no_grad():
            outputs = call_model(model, images)
        clean = Clean(images, outputs, hard_codes(outputs))
        targets = None if target is None else target.expand(len(rows), -1)
        state = self.prepare(clean.codes, labels[rows], replace(context, targets=targets))
        changed = project(images + change, *ball(images, self.epsilon)).requires_grad_(True)
        u = self.relax(call_model(model, changed), alpha_at(self.alpha, step, self.steps, outputs))
        return input_gradient(self.objective(u, changed, clean, state).sum(), changed).sum(dim=0)
