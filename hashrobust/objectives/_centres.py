"""Hash centres: one code a class, far from each other, which the images of the class are drawn to."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.objectives._base import Objective


class CentreObjective(Objective):
    """An objective whose classes have fixed centres; `seed` draws their random bits."""

    centres: Tensor
    tie_bits: Tensor

    def __init__(self, bits: int, num_classes: int, similar_share: float, *, seed: int) -> None:
        super().__init__(bits, num_classes, similar_share)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("centres", hash_centres(bits, num_classes, generator))
        self.register_buffer("tie_bits", _random_codes(1, bits, generator)[0])

    def targets(self, labels: Tensor) -> Tensor:
        """Targets (B, bits) in {-1, +1} of images with multi-hot labels (B, num_classes).

        An image with several labels has the bitwise majority of their centres; equal votes take one
        fixed random bit. Images without a label have no target: see `labelled`.
        """
        votes = labels @ self.centres.to(labels)
        return torch.where(votes == 0, self.tie_bits.to(labels), votes.sign())


def labelled(labels: Tensor) -> Tensor:
    """Mask (B,) of the images that have a label, in labels' dtype."""
    return (labels.sum(dim=1) > 0).to(labels)


def hash_centres(bits: int, num_classes: int, generator: torch.Generator) -> Tensor:
    """Centres (num_classes, bits) in {-1, +1}, far from each other.

    With bits a power of two and at most 2 bits classes: rows of the Hadamard matrix H, then of -H,
    at least bits/2 apart (Yuan et al., algorithm 1). Else random codes, as there, each one the
    farthest from all chosen before it among a few thousand (all of them up to 12 bits).

    Raises:
        InputError: more classes than codes.
    """
    if num_classes > 2**bits:
        raise InputError(f"{bits} bits hold no {num_classes} different centres: use more bits")
    if bits & (bits - 1) == 0 and num_classes <= 2 * bits:
        matrix = hadamard(bits)
        return torch.cat([matrix, -matrix])[:num_classes]
    if bits <= 12:
        every = (torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1
        pool = (2 * every - 1).float()[torch.randperm(2**bits, generator=generator)]
    else:
        pool = _random_codes(max(4096, 16 * num_classes), bits, generator)
    return _farthest_apart(pool, num_classes)


def hadamard(size: int) -> Tensor:
    """Sylvester's Hadamard matrix (size, size) in {-1, +1}; size is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


def _farthest_apart(pool: Tensor, count: int) -> Tensor:
    """Greedy choice of `count` codes of `pool` (M, bits): each the farthest from those before it."""
    chosen = [0]
    agreement = pool @ pool[0]
    while len(chosen) < count:
        chosen.append(int(agreement.argmin()))
        agreement = torch.maximum(agreement, pool @ pool[chosen[-1]])
    return pool[chosen]


def _random_codes(count: int, bits: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.randint(2, (count, bits), generator=generator).float() - 1
