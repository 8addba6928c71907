"""Rotations: orthogonal maps of a trained model's outputs that bring them nearer to their signs."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hashrobust.registry import Registry
from hashrobust.rotations._error import quantization_error

__all__ = ["Fit", "quantization_error", "rotation_fit", "rotations"]

rotations: Registry[Tensor] = Registry("rotation", __name__)


class Fit(Protocol):
    """Finds a rotation."""

    def __call__(self, outputs: Tensor, *, seed: int) -> Tensor:
        """An orthogonal matrix R (K, K) for outputs z (N, K) of training images, which become z R.

        `seed` keys what is drawn.
        """


def rotation_fit(name: str) -> Fit | None:
    """What fits the rotation called `name`, or None for `none`.

    Raises:
        UnknownNameError: no such rotation.
    """
    return None if name == "none" else rotations[name]
