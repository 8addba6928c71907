"""How to train: the options of the loop, free of torch so that configurations can hold them."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from hashrobust.errors import InputError

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine", "step")
"""Of the learning rate; `step` divides it by 10 after half of the steps and again after three quarters."""
AUGMENTATIONS = ("none", "flip", "crop", "crop-flip")

LARGEST_RATE = 1e35
"""Steps much above it are beyond what float32 holds."""


def added(default: Any) -> Any:
    """A field that configurations got later: left out of what is stored, and so of the names of folders,
    while it has its default, so that older folders keep their names."""
    return field(default_factory=lambda: copy(default), metadata={"added": default})


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
        for name, value, least in (("epochs", self.epochs, 1), ("batch_size", self.batch_size, 2)):
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}: give a whole number of at least {least}")
        for name, rate in (
            ("learning_rate", self.learning_rate),
            ("head_learning_rate_factor", self.head_learning_rate_factor),
            ("learning_rate of the head", self.learning_rate * self.head_learning_rate_factor),
        ):
            if not 0 < rate <= LARGEST_RATE:
                raise InputError(f"{name} is {rate}: give a number above 0, such as 1e-4")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}: give a finite number of 0 or more")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience is {self.patience}: give at least 1 epoch, or 0 to never stop early")
        if self.max_steps is not None and (not isinstance(self.max_steps, int) or self.max_steps < 0):
            raise InputError(f"max_steps is {self.max_steps!r}: give a whole number of 0 or more, or none")
        for name, choice, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("augmentation", self.augment, AUGMENTATIONS),
        ):
            if choice not in known:
                raise InputError(f"unknown {name} '{choice}': use one of {', '.join(known)}")
