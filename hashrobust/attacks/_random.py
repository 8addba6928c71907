"""Random numbers that depend on a key alone: not on the machine, the batch or what was drawn before."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.seeding import keyed_generator


def keyed_uniform(sample_ids: Tensor, shape: tuple[int, ...], purpose: str, *key: int) -> Tensor:
    """Uniform float32 draws in [0, 1), (B, *shape), on the CPU: a generator of its own for each sample."""
    rows = [
        torch.rand(shape, generator=keyed_generator(purpose, *key, sample), dtype=torch.float32)
        for sample in sample_ids.tolist()
    ]
    return torch.stack(rows)


def uniform_noise(like: Tensor, sample_ids: Tensor, purpose: str, *key: int) -> Tensor:
    """Uniform draws in [-1, 1) shaped like images (B, C, H, W)."""
    return (2.0 * keyed_uniform(sample_ids, tuple(like.shape[1:]), purpose, *key) - 1.0).to(like)
