"""Random draws that depend on a key alone: not on the machine, the batch or what was drawn before."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def keyed_generator(purpose: str, *key: int) -> torch.Generator:
    """A CPU generator seeded by the purpose and the key."""
    digest = hashlib.blake2b(repr((purpose, *(int(k) for k in key))).encode(), digest_size=8).digest()
    # torch keeps 63 bits of a seed apart on every platform.
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def uniform_noise(like: Tensor, sample_ids: Tensor, purpose: str, *key: int) -> Tensor:
    """Uniform draws in [-1, 1] shaped like images (B, C, H, W), a generator of its own for each sample."""
    rows = [
        torch.rand(like.shape[1:], generator=keyed_generator(purpose, *key, sample), dtype=torch.float32)
        for sample in sample_ids.tolist()
    ]
    return (2.0 * torch.stack(rows) - 1.0).to(like)
