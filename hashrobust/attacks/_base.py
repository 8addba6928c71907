"""What all attacks share: the call and its checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hashrobust.attacks import attacks
from hashrobust.errors import HashRobustError, InputError

from ._ball import inside_ball
from ._center import hard_codes
from ._context import AttackContext, AttackResult, Clean, Model, check_bits, check_images, resolve

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Images to adversarial images with |x' - x| <= epsilon in every pixel and all pixels in [0, 1].

    `epsilon` is in pixel units, such as 8/255; all random draws are keyed by (`seed`, sample id).

    Raises:
        InputError: epsilon is not in (0, 1], or a parameter of any attack is infinite or not a number.
    """

    epsilon: float = 8 / 255
    seed: int = 0

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    fits: ClassVar[bool] = False
    """Whether the attack learns something once per model, see `fit`."""
    follows_gradient: ClassVar[bool] = True
    """Whether the result depends on the model's gradient; False for attacks that only ask or draw."""
    tasks: ClassVar[frozenset[str]] = frozenset({"hashing"})
    """Which tasks of `AttackContext` the attack serves."""

    def __post_init__(self) -> None:
        # Such an attack would move nothing, and its model look robust.
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name} is {value:g}: give a finite number")
        if self.epsilon > 1:
            raise InputError(
                f"epsilon {self.epsilon:g} is not in pixel units of [0, 1]: for {self.epsilon:g} of 255 "
                f"grey levels give {self.epsilon:g}/255, the usual budget is 8/255"
            )
        if not self.epsilon > 0:
            raise InputError(f"epsilon {self.epsilon:g} leaves nothing to attack: give a value above 0")

    @property
    def needs(self) -> frozenset[str]:
        """Which of labels, train_codes, train_images, database_codes and targets it cannot do without."""
        return frozenset()

    @property
    def goal(self) -> str:
        """Either "non-targeted" or "targeted"."""
        return "non-targeted"

    @property
    def bounded(self) -> bool:
        """Whether the images keep to the ball of radius epsilon; if not, they keep to [0, 1] alone."""
        return True

    def fit(self, model: Model, context: AttackContext) -> dict[str, Tensor]:
        """What the attack learns once per model, to be handed back as `AttackContext.fitted`.

        Without it each call of `run` fits anew and finds the same. It depends on the seed, the model and
        the training part of `context`, never on queries; float32 and int64 tensors on the CPU.

        Raises:
            InputError: the context lacks what the attack needs, or does not fit together.
        """
        training = replace(context, targets=None, sample_ids=None, start_images=None, fitted=None)
        needs = self.needs - {"labels", "targets"}
        _, training = resolve(type(self).__name__, needs, 0, None, training)
        with torch.enable_grad():
            learned = self.learn(model, training)
        return {
            name: tensor.detach().cpu().to(torch.float32 if tensor.is_floating_point() else torch.int64)
            for name, tensor in learned.items()
        }

    def learn(self, model: Model, context: AttackContext) -> State:
        """The fitting itself, for attacks that set `fits`; the context comes checked, without any query."""
        return {}

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

        `model` maps images (B, C, H, W) in [0, 1] to outputs z (B, K) before tanh, or to logits; its mode
        and parameters are left as they are. `labels` are multi-hot (B, classes) or integers (B,).

        Raises:
            InputError: images, labels or context do not fit what the attack needs, or it does not serve the task.
        """
        self.check_task((context or AttackContext()).task)
        check_images(images)
        images = images.detach()
        labels, known = resolve(type(self).__name__, self.needs, len(images), labels, context)
        if self.fits and known.fitted is None:
            known = replace(known, fitted=self.fit(model, known))
        with torch.no_grad():
            outputs = call_model(model, images)
        if known.task == "hashing":
            check_bits(known, outputs.shape[1])
        clean = Clean(images, outputs, hard_codes(outputs))
        with torch.enable_grad():
            result = self.perturb(model, clean, labels, known)
        if not inside_ball(result.images, images, self.epsilon if self.bounded else 1.0):
            raise HashRobustError(f"attack {type(self).__name__} left its ball: this is a bug, report it")
        return replace(result, bounded=self.bounded)

    def check_task(self, task: str) -> None:
        """Raise InputError unless the attack serves the task; the message names attacks that do."""
        if task not in self.tasks:
            serving = [name for name in attacks if task in getattr(attacks[name], "tasks", ())]
            raise InputError(
                f"attack {type(self).__name__} is not made for {task}: use one of {', '.join(serving)}"
            )

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
    found = torch.autograd.grad(loss, images, allow_unused=True)[0] if loss.requires_grad else None
    if found is None:
        raise InputError(
            "the model's outputs carry no gradient: let it run without torch.no_grad() and detach() inside"
        )
    return found
