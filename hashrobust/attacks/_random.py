"""Random noise that depends on a key alone: not on the machine, the batch or what was drawn before."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.seeding import keyed_generator


def uniform_noise(like: Tensor, sample_ids: Tensor, purpose: str, *key: int) -> Tensor:
    """Uniform draws in [-1, 1] shaped like images (B, C, H, W), a generator of its own for each sample."""
    rows = [
        torch.rand(like.shape[1:], generator=keyed_generator(purpose, *key, sample), dtype=torch.float32)
        for sample in sample_ids.tolist()
    ]
    return (2.0 * torch.stack(rows) - 1.0).to(like)
