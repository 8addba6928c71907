"""Where the weights of convolutions lie in memory: values change by rounding alone, since sums have another order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hashrobust.models.image_model import frozen
from hashrobust.models.network import Network


@contextmanager
def training_layout(network: Network) -> Iterator[None]:
    """Channels last within the block, where the backbone trains faster so on the CPU; torch's own layout after it."""
    if not getattr(network.backbone, "channels_last", False):  # a plugin's may be any module
        yield
        return
    stay_channels_last(network)
    try:
        yield
    finally:
        _lay_out(network, torch.contiguous_format)


def stay_channels_last(network: Network) -> None:
    """On the CPU, lay out the weights of 2D convolutions channels last, in place: convolutions take less time so.

    Values and parameters are the same. A network that cannot compute so, as one that takes a view of its maps, stays
    as it is.
    """
    if network.device.type != "cpu":
        return
    _lay_out(network, torch.channels_last)
    if not _answers(network):
        _lay_out(network, torch.contiguous_format)


def _lay_out(network: nn.Module, memory_format: torch.memory_format) -> None:
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            # With one channel `contiguous` takes either layout for the other, and outputs then lie as they did.
            laid_out = torch.empty_like(tensor.data, memory_format=memory_format)
            if laid_out.stride() != tensor.stride():
                tensor.data = laid_out.copy_(tensor.data)


def _answers(network: Network) -> bool:
    """Whether the forward pass of two images works."""
    try:
        with frozen(network), torch.no_grad():
            network(torch.zeros(2, *network.input_shape))
    except RuntimeError:
        return False
    return True
