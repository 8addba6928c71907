"""What all objectives share: their contract, their checks, and codes from network outputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.errors import InputError

# Cosines are exact for rows longer than this; shorter ones (an output of zero) keep bounded gradients.
SHORTEST_ROW = 1e-3


class Objective(nn.Module, ABC):
    """A loss on a batch of network outputs; a subclass writes `loss`.

    `own_learning_rate` is the learning rate of the objective's own parameters, None if it has none;
    `single_label` says that it needs images of exactly one label.
    """

    own_learning_rate: float | None = None
    single_label: bool = False

    def __init__(self, bits: int, num_classes: int, similar_share: float) -> None:
        super().__init__()
        if bits < 1:
            raise InputError(f"bits is {bits}: a code has at least one bit")
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}: give at least one class")
        if not 0 <= similar_share <= 1:
            raise InputError(f"similar_share is {similar_share}: give a share of pairs between 0 and 1")
        self.bits = bits
        self.num_classes = num_classes
        self.similar_share = similar_share

    def forward(self, z: Tensor, labels: Tensor, step: int = 0) -> Tensor:
        """The loss, a scalar.

        Args:
            z: network outputs before tanh, (B, bits).
            labels: multi-hot (B, num_classes) of any dtype, or integer classes (B,).
            step: training steps done so far, for objectives that change with time.

        Raises:
            InputError: shapes or classes that do not fit; see `check_labels`.
        """
        if z.dim() != 2 or z.shape[1] != self.bits:
            raise InputError(f"z has shape {tuple(z.shape)}: the objective needs (batch, {self.bits})")
        if labels.shape[:1] != z.shape[:1]:
            raise InputError(f"labels hold {len(labels)} images and z {len(z)}: give one label row per image")
        hot = multi_hot(labels, self.num_classes)
        self.check_labels(hot)
        return self.loss(z, hot.to(z), step)

    def check_labels(self, labels: Tensor) -> None:
        """Refuse multi-hot labels (N, num_classes) that the objective cannot learn from.

        Raises:
            InputError: it needs one label an image, and an image has another number.
        """
        if not self.single_label:
            return
        counts = labels.sum(dim=1)
        if bool((counts != 1).any()):
            raise InputError(
                f"{type(self).__name__} needs exactly one label an image, and here an image has "
                f"{int(counts[counts != 1][0])}: use another objective, such as csq or orthohash"
            )

    @abstractmethod
    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """The loss of outputs z (B, bits) and labels (B, num_classes) in {0, 1} of z's dtype."""


def multi_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (N, num_classes) of any dtype or integer classes (N,) as booleans (N, num_classes).

    Raises:
        InputError: another shape, classes that are not integers, or out of range.
    """
    if labels.dim() == 2 and labels.shape[1] == num_classes:
        return labels > 0
    if labels.dim() != 1:
        raise InputError(
            f"labels have shape {tuple(labels.shape)}: give (N, {num_classes}) multi-hot or (N,) classes"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"classes of dtype {labels.dtype} are ambiguous: give integers or multi-hot labels")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise InputError(
            f"classes run from {int(labels.min())} to {int(labels.max())}: "
            f"they must lie in 0 .. {num_classes - 1}"
        )
    return F.one_hot(labels.long(), num_classes).bool()


def hard_codes(z: Tensor) -> Tensor:
    """Codes in {-1, +1} of z's shape and dtype, without gradient; the sign of 0 is +1."""
    return torch.where(z.detach() >= 0, 1.0, -1.0).to(z)


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1, so that inner products are cosines (see SHORTEST_ROW)."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    scaled: Tensor = vectors / length.clamp(min=SHORTEST_ROW)
    return scaled


def require_positive(**values: float) -> None:
    """Raise InputError for the first value that is not a positive finite number."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}: give a positive number")


def require_weight(**values: float) -> None:
    """Raise InputError for the first value that is not a finite number of at least 0."""
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}: give a weight of 0 or more")
