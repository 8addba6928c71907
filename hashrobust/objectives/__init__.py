"""Objectives: what makes the codes of like images close and those of unlike images far."""

from __future__ import annotations

from typing import Any

from hashrobust.objectives._base import Objective
from hashrobust.registry import Registry

__all__ = ["Objective", "build_objective", "objectives"]

objectives: Registry[Objective] = Registry("objective", __name__)


def build_objective(name: str, *, bits: int, num_classes: int, similar_share: float, **own: Any) -> Objective:
    """The objective called `name` for codes of `bits` bits.

    `similar_share` is the share of similar pairs (a common label) among all pairs of two different training
    images; `own` are the parameters of that objective alone.

    Raises:
        UnknownNameError: no such objective.
        InputError: a parameter that it does not take, or a value that it cannot use.
    """
    return objectives.build(name, bits=bits, num_classes=num_classes, similar_share=similar_share, **own)
