"""What all attacks share: the call and its checks, and the one loop of those that follow a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hashrobust.errors import HashRobustError, InputError
from hashrobust.registry import did_you_mean

from ._alpha import alpha_at, check_alpha
from ._ball import ball, inside_ball, project
from ._best import BestIterates
from ._center import hard_codes
from ._context import AttackContext, AttackResult, Clean, Model, check_images, resolve
from ._optimizers import BOUNDED, OPTIMIZERS
from ._random import uniform_noise

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Images to adversarial images with |x' - x| <= epsilon in every pixel and all pixels in [0, 1].

    `epsilon` is in pixel units, such as 8/255; all random draws are keyed by (`seed`, sample id).

    Raises:
        InputError: epsilon is not in (0, 1].
    """

    epsilon: float = 8 / 255
    seed: int = 0

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        if self.epsilon > 1:
            raise InputError(
                f"epsilon {self.epsilon:g} is not in pixel units of [0, 1]: for {self.epsilon:g} of 255 "
                f"grey levels give {self.epsilon:g}/255, the usual budget is 8/255"
            )
        if not self.epsilon > 0:
            raise InputError(f"epsilon {self.epsilon:g} leaves nothing to attack: give a value above 0")

    @property
    def needs(self) -> frozenset[str]:
        """Which of labels, train_codes, database_codes and targets the attack cannot do without."""
        return frozenset()

    @property
    def goal(self) -> str:
        """Either "non-targeted" or "targeted"."""
        return "non-targeted"

    def __call__(
        self,
        model: Model,
        images: Tensor,
        *,
        labels: Tensor | None = None,
        context: AttackContext | None = None,
    ) -> Tensor:
        """The adversarial images of `run`, shaped like `images`."""
        return self.run(model, images, labels=labels, context=context).images

    def run(
        self,
        model: Model,
        images: Tensor,
        *,
        labels: Tensor | None = None,
        context: AttackContext | None = None,
    ) -> AttackResult:
        """Attack a batch.

        `model` maps images (B, C, H, W) in [0, 1] to outputs z (B, K) before tanh; its mode and
        parameters are left as they are. `labels` are multi-hot (B, classes) or integers (B,).

        Raises:
            InputError: images, labels or context do not fit what the attack needs.
        """
        check_images(images)
        images = images.detach()
        labels, known = resolve(type(self).__name__, self.needs, len(images), labels, context)
        with torch.no_grad():
            outputs = call_model(model, images)
        clean = Clean(images, outputs, hard_codes(outputs))
        with torch.enable_grad():
            result = self.perturb(model, clean, labels, known)
        if not inside_ball(result.images, images, self.epsilon):
            raise HashRobustError(f"attack {type(self).__name__} left its ball: this is a bug, report it")
        return result

    @abstractmethod
    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """The attack itself; `labels` and `context` come checked and multi-hot."""

    def theory_codes(
        self, clean_codes: Tensor, labels: Tensor | None = None, context: AttackContext | None = None
    ) -> Tensor | None:
        """The codes (B, K) that full success would reach, or None if the attack aims at none."""
        return None


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """The loop: start, step along the gradient, project, keep the best iterate of each sample.

    A subclass gives `objective` and, as it needs, `prepare`, `hard_objective`, `finished`, `goal_codes`.

    Args:
        epsilon: radius of the ball in pixel units, such as 8/255.
        seed: keys the random starts, with the sample id and the restart.
        steps: gradient steps of each restart.
        step_size: pixel units for "sign" and "adam", 2-norm of an image for "normalized", learning rate
            for "gradient" and "momentum"; None is max(1/255, 2.5 epsilon / steps).
        random_start: start anywhere in the ball rather than at the clean image.
        restarts: runs of which each sample keeps the best.
        optimizer: "sign", "gradient", "normalized", "momentum" or "adam".
        alpha: of u = tanh(alpha z): a number, "A10" or "auto" (see `alpha_at`).

    Raises:
        InputError: a value out of range, or steps x step_size cannot cross the ball.
    """

    steps: int = 100
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    optimizer: str = "sign"
    alpha: float | str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "restarts"):
            count = getattr(self, name)
            if not isinstance(count, int) or count < 1:
                raise InputError(f"{name} is {count!r}: give a whole number of 1 or more")
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts repeat the same run from the clean image: set random_start=True")
        if self.optimizer not in OPTIMIZERS:
            hint = did_you_mean(self.optimizer, list(OPTIMIZERS))
            raise InputError(f"unknown optimizer '{self.optimizer}': {hint}")
        check_alpha(self.alpha)
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"step_size {self.step_size:g} moves nothing: give a value above 0")
        reach = self.steps * self.resolved_step_size
        if self.optimizer in BOUNDED and reach < 2 * self.epsilon * (1 - 1e-9):
            raise InputError(
                f"{self.steps} steps of {self.resolved_step_size:.3g} cannot cross a ball of radius "
                f"{self.epsilon:.3g}: take more steps, or leave step_size unset"
            )

    @property
    def resolved_step_size(self) -> float:
        """The step size, or the rule max(1/255, 2.5 epsilon / steps) if none is given."""
        return max(1 / 255, 2.5 * self.epsilon / self.steps) if self.step_size is None else self.step_size

    @property
    def descents(self) -> int:
        """How often the loop starts and goes down, of which each sample keeps the best."""
        return self.restarts

    @property
    def gradient_steps(self) -> int:
        """The most gradients that a sample gets."""
        return self.steps * self.descents

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """Constants of a batch such as guide codes, from the clean hard codes (B, K)."""
        return {}

    def state_of(self, state: State, descent: int) -> State:
        """The constants of one of the descents, for an attack whose descents differ."""
        return state

    @abstractmethod
    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """What is minimised, (B,), for relaxed codes u (B, K) of the images."""

    def hard_objective(self, codes: Tensor, clean: Clean, state: State) -> Tensor:
        """The objective on hard codes alone, (B,): picks the best iterate."""
        return self.objective(codes, clean.images, clean, state)

    def finished(self, u: Tensor, clean: Clean, state: State) -> Tensor:
        """Samples (B,) with nothing left to gain: they are frozen."""
        return torch.zeros(len(u), dtype=torch.bool, device=u.device)

    def goal_codes(self, codes: Tensor, state: State) -> Tensor | None:
        """The codes that full success would reach, from the clean hard codes (B, K)."""
        return None

    def relax(self, outputs: Tensor, alpha: float | Tensor) -> Tensor:
        """Relaxed codes u (B, K) of outputs z."""
        return torch.tanh(alpha * outputs)

    def theory_codes(
        self, clean_codes: Tensor, labels: Tensor | None = None, context: AttackContext | None = None
    ) -> Tensor | None:
        """See `Attack.theory_codes`."""
        labels, known = resolve(type(self).__name__, self.needs, len(clean_codes), labels, context)
        codes = clean_codes.to(torch.get_default_dtype())
        return self.goal_codes(codes, self.prepare(codes, labels, known))

    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        state = self.prepare(clean.codes, labels, context)

        def scores(images: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            hard = self.hard_objective(hard_codes(outputs), clean, state)
            return hard, self.objective(self.relax(outputs, 1.0), images, clean, state)

        best = BestIterates(clean, scores)
        for descent in range(self.descents):
            self._descend(model, clean, self.state_of(state, descent), best, descent, context)
        return best.result()

    def _descend(
        self,
        model: Model,
        clean: Clean,
        state: State,
        best: BestIterates,
        descent: int,
        context: AttackContext,
    ) -> None:
        """One way down from one start."""
        lower, upper = ball(clean.images, self.epsilon)
        images = clean.images
        if self.random_start:
            noise = uniform_noise(images, context.ids, "start", self.seed, descent)
            images = project(images + self.epsilon * noise, lower, upper)
        update = OPTIMIZERS[self.optimizer](self.resolved_step_size)
        for step in range(self.steps):
            if best.finished.all():
                return
            if context.before_step is not None:
                context.before_step(descent, step)
            images = images.detach().requires_grad_(True)
            outputs = call_model(model, images)
            best.offer(images, outputs)
            u = self.relax(outputs, alpha_at(self.alpha, step, self.steps, clean.outputs))
            best.finished |= self.finished(u.detach(), clean, state)
            # Summed, so that each sample's gradient is its own.
            loss = self.objective(u, images, clean, state).sum()
            move = update(best.usable(input_gradient(loss, images)))
            moved = project(images.detach() - move, lower, upper)
            images = torch.where(best.finished[:, None, None, None], images.detach(), moved)
        with torch.no_grad():
            best.offer(images, call_model(model, images))


def call_model(model: Model, images: Tensor) -> Tensor:
    """Outputs z (B, K) of the model; InputError if they have another shape."""
    outputs = model(images)
    if outputs.ndim != 2 or len(outputs) != len(images):
        raise InputError(
            f"the model gives outputs of shape {tuple(outputs.shape)}: (batch, bits) is expected"
        )
    return outputs.to(images.dtype)


def input_gradient(loss: Tensor, images: Tensor) -> Tensor:
    """Gradient of the summed loss with respect to the images alone."""
    if not loss.requires_grad:
        raise InputError("the model's outputs carry no gradient: let it run without torch.no_grad() inside")
    return torch.autograd.grad(loss, images)[0]
