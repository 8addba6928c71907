"""Random numbers keyed by what they are for, so that order, batching, resuming and machines do not matter."""

from __future__ import annotations

import hashlib
import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def key_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of the key and on nothing else, as the type of a number."""
    plain = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded with `key_seed(*key)`."""
    import torch

    return torch.Generator().manual_seed(key_seed(*key))
