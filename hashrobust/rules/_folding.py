"""Layers that a BatchNorm is folded into: their feedback changes as their weights do."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Folding:
    """What became of a convolution y = W x + b when y -> gain o y + shift, a factor a channel, was folded into it.

    It computes (gain o W) x + ... and must send back (gain o V)^T delta: what V^T sends back of gain o delta.
    V is still that of W.
    """

    weight: Tensor
    """W, before the folding."""
    gain: Tensor
    """(outputs, 1, ...), one factor an output channel."""
