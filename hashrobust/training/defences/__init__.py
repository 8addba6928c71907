"""Defences: what fine-tuning adds to its objective's loss, so that a model withstands attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hashrobust.errors import InputError
from hashrobust.registry import Registry
from hashrobust.training.defences._base import Defence

__all__ = ["Defence", "build_defence", "defences"]

defences: Registry[Defence] = Registry("defence", __name__)


def build_defence(name: str, params: Mapping[str, Any], *, seed: int) -> Defence | None:
    """The defence called `name` with parameters of its own, or None for `none`; `seed` keys its draws.

    Raises:
        UnknownNameError: no such defence.
        InputError: a parameter that it does not take, or a value that it cannot use.
    """
    if "seed" in params:
        raise InputError("defence parameter 'seed' is that of the training: leave it out")
    if name != "none":
        return defences.build(name, seed=seed, **params)
    if params:
        raise InputError(
            f"defence_params {', '.join(sorted(params))} without a defence: name one, or drop them"
        )
    return None
