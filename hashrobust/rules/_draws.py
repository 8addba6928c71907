"""Random draws that are the same on every machine, keyed by integers and names."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1 << 17  # numbers drawn at a time: they stay in the cache until they are scaled


def xavier_deviation(shape: torch.Size) -> float:
    """Standard deviation sqrt(2 / (fan_in + fan_out)) of a weight of this shape (out, in / groups, *kernel).

    Source: Glorot and Bengio, AISTATS 2010; the fans are those of torch.nn.init.
    """
    kernel = math.prod(shape[2:])
    return math.sqrt(2.0 / ((shape[0] + shape[1]) * kernel))


def xavier_bound(shape: torch.Size) -> float:
    """The a = sqrt(6 / (fan_in + fan_out)) for which U(-a, a) has the Xavier deviation."""
    return math.sqrt(3.0) * xavier_deviation(shape)


def keyed_uniform(shape: torch.Size, bound: float, *key: int | str) -> Tensor:
    """Independent float32 draws from U(-bound, bound), the same for the same key everywhere.

    They come from SFC64's raw words, whose stream numpy guarantees. That takes a third of the time of
    `torch.Tensor.uniform_`, and numpy's large arrays lie in huge pages, so that a fresh one is cheap.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    words = np.random.SFC64(int.from_bytes(digest, "little"))
    values = np.empty(math.prod(shape), dtype=np.float32)
    step = np.float32(bound / 2**31)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        integers = words.random_raw((block.size + 1) // 2).view(np.int32)[: block.size]
        np.multiply(integers, step, out=block, dtype=np.float32, casting="unsafe")
    return torch.from_numpy(values).view(shape)
