"""What training keeps between epochs, and what it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from hashrobust.models import Network


@dataclass
class TrainingState:
    """All that the loop needs to go on after an epoch: tensors, and plain values."""

    tensors: dict[str, Tensor]
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    alignment: list[dict[str, Any]] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """The plain values, for JSON."""
        return {name: value for name, value in self.__dict__.items() if name != "tensors"}


class Checkpoints(Protocol):
    """Where the loop keeps its state between epochs.

    The tensors and lists of a state are those that the loop goes on working with: copy what is to stay.
    """

    def load(self) -> TrainingState | None:
        """The state after the last finished epoch, if any."""

    def save(self, state: TrainingState, model: Network) -> None:
        """Keep the state and the model as they are after an epoch."""


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves besides the model, which holds the weights of the best epoch.

    `history` has a row an epoch: epoch, loss, validation_map or validation_accuracy (None without
    validation), learning_rate. `alignment` has a row an epoch and layer: angle between feedback and forward
    weights in degrees, and the ratio of their norms.
    """

    history: list[dict[str, float]]
    alignment: list[dict[str, Any]]
    best_epoch: int
