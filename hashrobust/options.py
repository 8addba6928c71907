"""How to train: the options of the loop, free of torch so that configurations can hold them."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field, fields
from itertools import pairwise
from numbers import Real
from typing import Any

from hashrobust.errors import InputError

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine", "step")
"""Of the learning rate; `step` divides it by 10 after half of the steps and again after three quarters."""
AUGMENTATIONS = ("none", "flip", "crop", "crop-flip")

LARGEST_RATE = 1e35
"""Steps much above it are beyond what float32 holds."""


MOST_BITS = 2**12
MOST_THREADS = 2**12
MOST_IMAGE_SIZE = 2**14
"""Far more than anybody has use for; beyond them there is no memory, or no such thread."""
MOST_DIGITS = 18
"""Of a number that 64 bits hold; Python reads thousands only where it is told to."""
WHOLE_BITS = 64
"""Of a whole number with its sign: what TOML, NumPy and torch have room for."""


def check_at_most(name: str, value: int | None, most: int) -> None:
    """Refuse a value above `most`.

    Raises:
        InputError: it is.
    """
    if value is not None and value > most:
        raise InputError(f"{name} is {value}: give at most {most}")


def fits(value: object) -> bool:
    """Whether a value is anything but a whole number of more than 64 bits, which may be too long to be printed even."""
    return not isinstance(value, int) or value.bit_length() < WHOLE_BITS


def check_fit(config: Any) -> None:
    """Refuse numbers of more than 64 bits in the fields of a configuration.

    Raises:
        InputError: there is one.
    """
    for f in fields(config):
        if not fits(getattr(config, f.name)):
            raise InputError(f"{f.name} is more than 64 bits hold: give a smaller number")


def added(default: Any) -> Any:
    """A field that configurations got later: left out of what is stored, and so of the names of folders,
    while it has its default, so that older folders keep their names."""
    return field(default_factory=lambda: copy(default), metadata={"added": default})


BACKPROPAGATION = "bp"
ALL_LAYERS = "*"
"""All that a learning rule can convert."""


@dataclass(frozen=True)
class Stage:
    """A part of a training: the learning rule, and the last epoch that it holds for (None: to the end)."""

    rule: str
    until: int | None = None


def parse_stages(text: str, epochs: int | None = None) -> tuple[Stage, ...]:
    """`frsf`, or `bp@5,frsf`: by bp up to epoch 5, by frsf after it; any number of stages.

    Raises:
        InputError: a malformed text, epochs that do not ascend, the same rule twice in a row, or a last stage that
            would begin after all `epochs`.
    """
    *switched, last = text.split(",")
    stages: list[Stage] = []
    for part in switched:
        rule, _, epoch = part.partition("@")
        is_number = epoch.isascii() and epoch.isdigit() and len(epoch) <= MOST_DIGITS
        until = int(epoch) if is_number else 0
        if not rule or until <= (stages[-1].until or 0 if stages else 0):
            raise InputError(
                f"rule '{text}' is malformed at '{part}': write each rule but the last with the epoch that it ends "
                "with, ascending, such as bp@5,frsf"
            )
        stages.append(Stage(rule, until))
    if not last or "@" in last:
        raise InputError(f"rule '{text}' has no last stage without an epoch: write it like bp@5,frsf")
    stages.append(Stage(last))
    for before, after in pairwise(stages):
        if before.rule == after.rule:
            raise InputError(f"rule '{text}' switches from {after.rule} to itself: name it once")
    begins = stages[-2].until or 0 if len(stages) > 1 else 0
    if epochs is not None and begins >= epochs:
        raise InputError(
            f"rule '{text}' never comes to {last}, as there are {epochs} epochs: give more, or switch earlier"
        )
    return tuple(stages)


def own_feedback(rule: str, layers: str = ALL_LAYERS) -> str:
    """How an attacker names the feedback of a run trained by `rule`, in `rule:NAME`: that of its last stage, as
    `frsf`, or `frsf:backbone.*` where only some layers follow it (patterns joined by +)."""
    last = parse_stages(rule)[-1].rule
    if last == BACKPROPAGATION or layers == ALL_LAYERS:
        return last
    return f"{last}:{layers.replace(',', '+')}"


def _whole(value: object) -> bool:
    """Whether a value is a whole number; True is one to Python alone."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_rate(name: str, rate: object) -> None:
    if not isinstance(rate, Real) or not 0 < float(rate) <= LARGEST_RATE:
        raise InputError(f"{name} is {rate!r}: give a number above 0, such as 1e-4")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of the training loop; values are checked here, before any work.

    `patience` is the number of epochs without a better validation score after which training stops
    (None: never); `head_learning_rate_factor` multiplies the learning rate of the last layer.
    `max_steps` ends training after so many steps of what the epochs would be, and keeps the weights of the
    last one: whatever the patience, no epoch is chosen. Schedule and data order are those of the whole
    training, so that short runs are the beginnings of long ones; 0 keeps the weights as they start.

    Raises:
        InputError: a value out of range or an unknown name.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    head_learning_rate_factor: float = 10.0
    weight_decay: float = 5e-4
    schedule: str = "constant"
    patience: int | None = 10
    augment: str = "none"
    mixed_precision: bool = False
    seed: int = 0
    max_steps: int | None = added(None)

    def __post_init__(self) -> None:
        check_fit(self)
        for name, value, least in (("epochs", self.epochs, 1), ("batch_size", self.batch_size, 2)):
            if not _whole(value) or value < least:
                raise InputError(f"{name} is {value!r}: give a whole number of at least {least}")
        for name, rate in (
            ("learning_rate", self.learning_rate),
            ("head_learning_rate_factor", self.head_learning_rate_factor),
        ):
            _check_rate(name, rate)
        _check_rate("learning_rate of the head", self.learning_rate * self.head_learning_rate_factor)
        if not isinstance(self.weight_decay, Real) or not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay!r}: give a finite number of 0 or more")
        if self.patience is not None and not (_whole(self.patience) and self.patience >= 1):
            raise InputError(
                f"patience is {self.patience!r}: give at least 1 epoch, or None (0 in commands and studies) to "
                "never stop early"
            )
        if self.max_steps is not None and not (_whole(self.max_steps) and self.max_steps >= 0):
            raise InputError(f"max_steps is {self.max_steps!r}: give a whole number of 0 or more, or none")
        if not _whole(self.seed):
            raise InputError(f"seed is {self.seed!r}: give a whole number")
        for name, choice, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("augmentation", self.augment, AUGMENTATIONS),
        ):
            if choice not in known:
                raise InputError(f"unknown {name} '{choice}': use one of {', '.join(known)}")
