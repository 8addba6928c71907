"""The one loop of all attacks that follow a gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.registry import did_you_mean

from ._alpha import alpha_at, check_alpha
from ._ball import ball, project
from ._base import Attack, State, check_count, input_gradient
from ._best import BestIterates
from ._center import hard_codes
from ._context import AttackContext, AttackResult, Clean, Model, check_start_images, resolve
from ._optimizers import BOUNDED, BY_PIXEL, OPTIMIZERS
from ._random import uniform_noise

# From a step's number, images (B, C, H, W), gradient and relaxed objective (B,) to the next images in the ball.
Mover = Callable[[int, Tensor, Tensor, Tensor], Tensor]


MOST_STEPS = 10**6


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """The loop: start, step along the gradient, project, keep the best iterate of each sample.

    A subclass gives `objective` and, as it needs, `prepare`, `hard_objective`, `finished`, `goal_codes`.

    Args:
        epsilon: radius of the ball in pixel units, such as 8/255.
        seed: keys the random starts, with the sample id and the restart.
        steps: gradient steps of each restart.
        step_size: of every step: pixel units for "sign" and "adam", where None starts at epsilon and falls linearly
            (see `step_size_at`); 2-norm of an image for "normalized", learning rate for "gradient" and "momentum".
        random_start: start anywhere in the ball rather than at the clean image.
        restarts: runs of which each sample keeps the best.
        optimizer: "sign", "gradient", "normalized", "momentum" or "adam".
        alpha: of u = tanh(alpha z): a number, "A10" (see `alpha_at`) or "auto" (see `auto_alpha`).
        eot: passes whose mean gradient a step follows, for models or feedback that answer at random
            (expectation over transformation, Athalye et al., arXiv 1707.07397).

    Raises:
        InputError: a value out of range, a step size that is missing, or steps x step_size cannot cross the ball.
    """

    steps: int = 100
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    optimizer: str = "sign"
    alpha: float | str = "auto"
    eot: int = 1

    version = 2  # alpha "auto" follows the images
    must_cross: ClassVar[bool] = True
    """Whether all steps together must be able to cross the ball."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "restarts", "eot"):
            check_count(name, getattr(self, name))
            if getattr(self, name) > MOST_STEPS:
                raise InputError(
                    f"{name} is more than {MOST_STEPS}: nobody would see the end of it, give fewer"
                )
        if self.restarts > 1 and not self.random_start:
            raise InputError("restarts repeat the same run from the clean image: set random_start=True")
        if self.optimizer not in OPTIMIZERS:
            hint = did_you_mean(self.optimizer, list(OPTIMIZERS))
            raise InputError(f"unknown optimizer '{self.optimizer}': {hint}")
        check_alpha(self.alpha)
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"step_size {self.step_size:g} moves nothing: give a value above 0")
        if self.step_size is None and self.optimizer not in BY_PIXEL:
            raise InputError(
                f"the step size of optimizer '{self.optimizer}' depends on the size of gradients or images, so that it "
                "has no default: give step_size, or take 'sign' or 'adam'"
            )
        reach = sum(self.step_size_at(step) for step in range(self.steps))
        if self.must_cross and self.optimizer in BOUNDED and reach < 2 * self.epsilon * (1 - 1e-9):
            raise InputError(
                f"{self.steps} steps of {self.step_size:.3g} cannot cross a ball of radius "
                f"{self.epsilon:.3g}: take more steps, or leave step_size unset"
            )

    def step_size_at(self, step: int) -> float:
        """The step size of step 0 ... steps - 1: the one given, or else falling linearly from the first one.

        The first is epsilon, and more for the fewest of steps, so that together they cross the ball, 2 epsilon.
        """
        if self.step_size is not None:
            return self.step_size
        return self.epsilon * max(1.0, 4.0 / (self.steps + 1)) * (1.0 - step / self.steps)

    @property
    def descents(self) -> int:
        """How often the loop starts and goes down, of which each sample keeps the best."""
        return self.restarts

    @property
    def gradient_steps(self) -> int:
        """The most gradients that a sample gets."""
        return self.steps * self.descents * self.eot

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
        """Samples (B,) with nothing left to gain: they stand still and leave the batch."""
        return torch.zeros(len(u), dtype=torch.bool, device=u.device)

    def at_goal(self, u: Tensor, clean: Clean, state: State) -> Tensor:
        """Samples (B,) for which the objective asks no more at these u (B, K), so that a zero gradient is none lost."""
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
        labels, known = resolve(self.called, self.needs, len(clean_codes), labels, context)
        codes = clean_codes.to(torch.get_default_dtype())
        return self.goal_codes(codes, self.prepare(codes, labels, known))

    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        check_start_images(context.start_images, clean.images)
        state = self.prepare(clean.codes, labels, context)
        best = self.iterates(clean, state, context)
        for descent in range(self.descents):
            self._descend(model, clean, self.state_of(state, descent), best, descent, context)
        return best.result()

    def iterates(self, clean: Clean, state: State, context: AttackContext) -> BestIterates:
        """Keeps the best iterate of each sample: by the objective on hard codes, ties by the relaxed one."""

        def scores(images: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            hard = self.hard_objective(hard_codes(outputs), clean, state)
            return hard, self.objective(self.relax(outputs, 1.0), images, clean, state)

        return BestIterates(clean, scores)

    def mover(self, lower: Tensor, upper: Tensor) -> Mover:
        """How the images of one descent move between the bounds of the ball: by the optimizer, then projected."""
        direction = OPTIMIZERS[self.optimizer]()

        def move(step: int, images: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
            return project(images - self.step_size_at(step) * direction(gradient), lower, upper)

        return move

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
        images = self._start(clean, descent, context)
        move = self.mover(lower, upper)
        for step in range(self.steps):
            if best.finished.all():
                return
            images = images.detach().requires_grad_(True)
            gradient, value = self._mean_gradient(model, images, clean, state, best, (descent, step), context)
            moved = move(step, images.detach(), best.usable(gradient, self.eot), value)
            images = torch.where(best.finished[:, None, None, None], images.detach(), moved)
        with torch.no_grad():
            best.offer(images, best.outputs(model, images))

    def _start(self, clean: Clean, descent: int, context: AttackContext) -> Tensor:
        """Where a descent begins: where the context says, anywhere in the ball, or at the clean images."""
        if descent == 0 and context.start_images is not None:
            return project(context.start_images.to(clean.images), *ball(clean.images, self.epsilon))
        if not self.random_start:
            return clean.images
        noise = uniform_noise(clean.images, context.ids, "start", self.seed, descent)
        return project(clean.images + self.epsilon * noise, *ball(clean.images, self.epsilon))

    def _mean_gradient(
        self,
        model: Model,
        images: Tensor,
        clean: Clean,
        state: State,
        best: BestIterates,
        place: tuple[int, int],
        context: AttackContext,
    ) -> tuple[Tensor, Tensor]:
        """The mean over `eot` passes at a place (descent, step), and the relaxed objective (B,) of the first.

        The first pass tells how good the images are.
        """
        total = torch.zeros_like(images)
        for draw in range(self.eot):
            if context.before_step is not None:
                context.before_step(*place, *([draw] if draw else []))
            outputs = best.outputs(model, images)
            u = self.relax(outputs, alpha_at(self.alpha, place[1], self.steps, outputs))
            if draw == 0:
                value = best.offer(images, outputs)
                best.finished |= self.finished(u.detach(), clean, state)
                best.at_goal = self.at_goal(u.detach(), clean, state)
            # Summed, so that each sample's gradient is its own.
            loss = self.objective(u, images, clean, state).sum()
            total = total + input_gradient(loss, images)
        return total / self.eot, value
