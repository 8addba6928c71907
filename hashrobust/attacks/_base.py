"""What all attacks share: the call and its checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

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
    version: ClassVar[int] = 1
    """Raised with every change of defaults, presets or formulas that changes numbers, so that stored ones are not taken
    for those of today. A change of a base class raises it in the classes below that it reaches."""
    fits: ClassVar[bool] = False
    """Whether the attack learns something once per model, see `fit`."""
    follows_gradient: ClassVar[bool] = True
    """Whether the result depends on the model's gradient; False for attacks that only ask or draw."""
    tasks: ClassVar[frozenset[str]] = frozenset({"hashing"})
    """Which tasks of `AttackContext` the attack serves."""

    def __post_init__(self) -> None:
        # Such an attack would move nothing, and its model look robust.
        for name, value in vars(self).items():
            if isinstance(value, Real) and not math.isfinite(value):
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
    def called(self) -> str:
        """The name that it is registered by; of one that is not, its class's."""
        names = (name for name in attacks if attacks[name] is type(self))
        return next(names, type(self).__name__)

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
            InputError: the context lacks what the attack needs, or does not fit together, or `check_mode` refuses.
        """
        check_mode(model)
        training = replace(context, targets=None, sample_ids=None, start_images=None, fitted=None)
        needs = self.needs - {"labels", "targets"}
        _, training = resolve(self.called, needs, 0, None, training)
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
        and parameters are left as they are. Followed is the gradient that it gives: of one that was converted to a
        learning rule that is the rule's, and the exact one within `exact_gradient(model)`. `labels` are multi-hot
        (B, classes) or integers (B,). Without a context an attack that serves one task alone takes its models for such.

        Raises:
            InputError: images, labels or context do not fit what the attack needs, it does not serve the task, or
                `check_mode` refuses the model.
        """
        if context is None and len(self.tasks) == 1:
            context = AttackContext(task=next(iter(self.tasks)))
        self.check_task((context or AttackContext()).task)
        check_mode(model)
        check_images(images)
        images = images.detach()
        labels, known = resolve(self.called, self.needs, len(images), labels, context)
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
            raise HashRobustError(f"attack {self.called} left its ball: this is a bug, report it")
        return replace(result, bounded=self.bounded)

    def check_task(self, task: str) -> None:
        """Raise InputError unless the attack serves the task; the message names attacks that do."""
        if task not in self.tasks:
            serving = [name for name in attacks if task in getattr(attacks[name], "tasks", ())]
            own = " or ".join(sorted(self.tasks))
            raise InputError(
                f"attack {self.called} is not made for {task}: use one of {', '.join(serving)}; if the model is for "
                f"{own}, say so by context=AttackContext(task='{own}')"
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


def check_mode(model: Model) -> None:
    """Raise InputError if a module is left in training mode with layers that behave otherwise there.

    BatchNorm would mix the samples of a batch, and change its statistics at each step; dropout would have attack and
    judge see different networks. A network in eval mode may hold parts that are not, as random defences do.
    """
    layers = (_BatchNorm, _DropoutNd)
    if isinstance(model, nn.Module) and model.training:
        for name, part in model.named_modules():
            if isinstance(part, layers) and part.training:
                raise InputError(
                    f"the model is in training mode, in which its layer '{name}' ({type(part).__name__}) answers by "
                    "chance or by the batch: call model.eval() first"
                )


def check_count(name: str, count: object, least: int = 1, of: str = "") -> None:
    """Raise InputError unless `count` is a whole number, of any integer type, and not below `least`."""
    if not isinstance(count, Integral) or int(count) < least:
        raise InputError(f"{name} is {count!r}: give a whole number of {least} or more{of and ' ' + of}")


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
