"""Objectives: what makes the codes of like images close and those of unlike images far."""

from __future__ import annotations

from typing import Any

from hashrobust.objectives._base import Objective
from hashrobust.objectives._pairs import similar_share
from hashrobust.registry import Registry

__all__ = ["Objective", "build_objective", "objectives", "similar_share"]

objectives: Registry[Objective] = Registry("objective", __name__)


def build_objective(name: str, *, bits: int, num_classes: int, similar_share: float, **own: Any) -> Objective:
    """The objective called `name` for codes of `bits` bits.

    `similar_share` is the share of pairs of training images that share a label (function
    `similar_share`); `own` are the parameters of that objective alone.

    Raises:
        UnknownNameError: no such objective.
        InputError: a parameter that it does not take, or a value that it cannot use.
    """
    return objectives.build(name, bits=bits, num_classes=num_classes, similar_share=similar_share, **own)
