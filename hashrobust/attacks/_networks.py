"""Networks that attacks train for themselves: weights by seed, to tensors and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from hashrobust.errors import InputError
from hashrobust.seeding import key_seed

from ._context import AttackContext, fitted_part

Net = TypeVar("Net", bound=nn.Module)


def seeded(build: Callable[[], Net], *key: int | str) -> Net:
    """A network whose first weights depend on the key alone; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_seed(*key))  # that of the CPU alone
        return build()


def packed(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The weights of a network, for what `fit` returns."""
    return {f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()}


def unpacked(build: Callable[[], Net], context: AttackContext, prefix: str, like: Tensor) -> Net:
    """The network whose weights were `packed` into `context.fitted`, on the device of `like`.

    Raises:
        InputError: the weights are not there or are those of another network.
    """
    with torch.device("meta"):
        network = build()
    weights = {
        name: fitted_part(context, f"{prefix}.{name}").to(like.device) for name in network.state_dict()
    }
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"context.fitted holds weights '{prefix}' of other shapes: fit the attack to this model and "
            "training set"
        ) from error
    return network.eval()
