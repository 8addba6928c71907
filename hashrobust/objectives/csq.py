"""CSQ: see the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.objectives import objectives
from hashrobust.objectives._base import Objective, require_weight
from hashrobust.objectives._pairs import masked_mean


@objectives.register("csq")
class CSQ(Objective):
    """CSQ: every image moves to the hash centre of its class.

    Source: Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval",
    CVPR 2020, arXiv 1908.00347, on u = tanh(z):

        mean over images and bits BCE((1+u)/2, centre) + lambda mean over images sum (|u| - 1)^2

    Centres are rows of a Hadamard matrix where there are enough, else random codes (`hash_centres`).
    An image with several labels has the bitwise majority of their centres; equal votes take one fixed
    random bit. Images without a label have no centre and only their quantisation counts.
    The quantisation term is squared as in the authors' code (log cosh in the paper), and so is
    `quantization_weight` lambda theirs. `seed` draws the random bits.
    """

    centres: Tensor
    tie_bits: Tensor

    def __init__(
        self,
        bits: int,
        num_classes: int,
        similar_share: float,
        *,
        quantization_weight: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(bits, num_classes, similar_share)
        require_weight(quantization_weight=quantization_weight)
        self.quantization_weight = quantization_weight
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("centres", hash_centres(bits, num_classes, generator))
        self.register_buffer("tie_bits", _random_codes(1, bits, generator)[0])

    def targets(self, labels: Tensor) -> Tensor:
        """Centres (B, bits) in {-1, +1} of images with multi-hot labels (B, num_classes)."""
        votes = labels @ self.centres.to(labels)
        return torch.where(votes == 0, self.tie_bits.to(labels), votes.sign())

    def loss(self, z: Tensor, labels: Tensor, step: int) -> Tensor:
        """Cross-entropy to the centres plus the weighted quantisation error."""
        # (1 + tanh z) / 2 = sigmoid(2z), so that the logits are 2z and nothing saturates.
        bitwise = F.binary_cross_entropy_with_logits(2 * z, (1 + self.targets(labels)) / 2, reduction="none")
        labelled = (labels.sum(dim=1) > 0).to(z)
        quantization = (torch.tanh(z).abs() - 1).square().sum(dim=1).mean()
        return masked_mean(bitwise.mean(dim=1), labelled) + self.quantization_weight * quantization


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
