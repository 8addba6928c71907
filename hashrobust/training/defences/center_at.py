"""Adversarial training with center codes: Wang et al. 2022 (CgAT), Yuan et al. 2023 (SAAT)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hashrobust.attacks import ball, center_codes, project, uniform_noise
from hashrobust.datasets import Split
from hashrobust.errors import InputError
from hashrobust.models import Network, frozen, sign
from hashrobust.rules import exact_gradient
from hashrobust.seeding import key_seed
from hashrobust.training.defences import Defence, defences
from hashrobust.training.parallel import by_shares


@defences.register("center-at")
@dataclass(kw_only=True)
class CenterAdversarialTraining(Defence):
    """Adversarial training: images driven away from their center code are to keep it all the same.

    SAAT, Yuan et al., arXiv 2310.14637; CgAT, Wang et al., arXiv 2204.10779. With u = tanh(z), c the center
    code of an image's labels (see `attacks.center_codes`) among the training codes at the start of the epoch,
    and A(x) = mean of u(x) o c over bits: the attacker seeks x' in the ball around x where A is low, the
    model is trained to make A(x') high. Added to the loss is

    -weight * mean of A(x') over the batch + quantization_weight * mean of norm2(u(x') - sign u(x'))^2.

    x' is the last of `steps` sign steps down the gradient of A from a random start in the ball, with the model in
    eval mode; the loss is taken in training mode. The attacker's gradient is the exact one, whatever rule the model
    is trained by, unless `gradient` is "rule": whether a rule's own is enough to train against is a question to ask.

    Args:
        weight: lambda; 0 leaves the loss as it is, at the full cost.
        epsilon: radius of the ball in pixel units.
        steps: gradient steps of the attacker.
        step_size: of each, in pixel units.
        quantization_weight: SAAT takes 1e-4.
        gradient: the attacker's in training, "exact" or "rule".
        seed: keys the random starts, with the step and the sample id.

    Raises:
        InputError: a value out of range.
    """

    name: ClassVar[str] = "center-at"

    weight: float = 1.0
    epsilon: float = 8 / 255
    steps: int = 7
    step_size: float = 2 / 255
    quantization_weight: float = 0.0
    gradient: str = "exact"
    seed: int = 0
    _codes: Tensor = field(init=False, repr=False)
    _labels: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("weight", "quantization_weight"):
            self._check(name, lambda value: 0 <= value < math.inf, "give a weight of 0 or more")
        for name in ("epsilon", "step_size"):
            self._check(name, lambda value: 0 < value <= 1, "pixels are in [0, 1], give one such as 8/255")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(
                f"steps of defence {self.name} is {self.steps!r}: give a whole number of 1 or more"
            )
        if self.gradient not in ("exact", "rule"):
            raise InputError(f"gradient of defence {self.name} is {self.gradient!r}: give exact or rule")

    def _check(self, name: str, fits: Callable[[float], bool], mend: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, int | float) or not fits(value):
            raise InputError(f"{name} of defence {self.name} is {value!r}: {mend}")

    def start_epoch(self, model: Network, train: Split) -> None:
        """Encode the training images, not augmented, in eval mode: center codes are taken from these."""
        self._codes = sign(by_shares(model.outputs, train)).to(model.device, torch.float32)
        self._labels = train.labels.to(model.device)

    def loss(self, model: Network, images: Tensor, labels: Tensor, ids: Tensor, step: int) -> Tensor:
        """See the class."""
        centers = self.centers(labels)
        u = torch.tanh(model(self.adversarial(model, images, centers, ids, step)).float())
        # The attacker took agreement away, the model is to win it back: the sign is opposite to the attacker's.
        loss = -self.weight * agreement(u, centers).mean()
        if self.quantization_weight:
            loss = loss + self.quantization_weight * (u.abs() - 1).square().sum(dim=1).mean()
        return loss

    def centers(self, labels: Tensor) -> Tensor:
        """Center codes (B, K) of label vectors (B, classes); +1 throughout for one without labels."""
        unlabelled = self._codes.new_ones(len(labels), self._codes.shape[1])
        return center_codes(labels, self._codes, self._labels, fallback=unlabelled)

    def adversarial(self, model: Network, images: Tensor, centers: Tensor, ids: Tensor, step: int) -> Tensor:
        """The attacker's images x' (B, C, H, W), for center codes (B, K)."""
        lower, upper = ball(images, self.epsilon)
        noise = uniform_noise(images, ids, "start", key_seed("center-at", self.seed, step))
        moved = project(images + self.epsilon * noise, lower, upper)
        with frozen(model), exact_gradient(model) if self.gradient == "exact" else nullcontext():
            for _ in range(self.steps):
                moved.requires_grad_()
                # Summed, so that each sample's gradient is its own.
                loss = agreement(torch.tanh(model(moved).float()), centers).sum()
                (gradient,) = torch.autograd.grad(loss, moved)
                moved = project(moved.detach() - self.step_size * gradient.sign(), lower, upper)
        return moved


def agreement(u: Tensor, centers: Tensor) -> Tensor:
    """Mean over bits of u o c, (B,): 1 where relaxed codes u (B, K) are the center codes c, -1 where opposite."""
    return (u * centers).mean(dim=1)
