"""How far outputs are from their signs."""

from __future__ import annotations

import torch
from torch import Tensor


def quantization_error(outputs: Tensor) -> float:
    """Mean of (|z| - 1)^2 over outputs z (N, K), scaled to a mean square of 1: 0 for codes, below 2 always."""
    return float((scaled(outputs).abs() - 1).square().mean())


def scaled(outputs: Tensor) -> Tensor:
    """Outputs by one factor for all, so that their mean square is 1; zeros stay zeros."""
    size = outputs.square().mean().sqrt()
    return outputs / size.clamp(min=torch.finfo(outputs.dtype).tiny)
