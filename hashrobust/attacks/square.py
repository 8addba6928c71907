"""Square attack: Andriushchenko et al., ECCV 2020, arXiv 1912.00049, for the L-infinity ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import attacks

from ._search import SearchAttack


@attacks.register("square")
@dataclass(frozen=True, kw_only=True)
class Square(SearchAttack):
    """Square attack: random squares of +-epsilon, kept if not worse; knows the model's answers alone.

    Andriushchenko et al., ECCV 2020, arXiv 1912.00049. Starts from vertical stripes; each proposal sets a
    square at a random place to +epsilon or -epsilon, a sign for each channel. The loop, and what it
    minimises, are those of `SearchAttack`, as are the parameters; the defaults are AutoAttack's
    (arXiv 2003.01690), the preset "original" is the paper's for ImageNet.
    """

    presets = {"original": {"epsilon": 0.05, "budget": 10_000, "share": 0.05}}  # noqa: RUF012

    def start_numbers(self, shape: torch.Size) -> int:
        """One for each column of each channel."""
        return shape[0] * shape[2]

    def start(self, numbers: Tensor, shape: torch.Size) -> Tensor:
        """Vertical stripes (B, C, 1, W)."""
        return (numbers < 0.5).view(-1, shape[0], 1, shape[2])

    def proposal_numbers(self, shape: torch.Size) -> int:
        """A row, a column, and a sign for each channel."""
        return 2 + shape[0]

    def propose(self, numbers: Tensor, share: float, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """A square of about the share of the pixels, (B, 1, H, W), and the signs (B, C, 1, 1)."""
        height, width = shape[1:]
        side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
        inside = [_stretch(numbers[:, axis], side, length) for axis, length in enumerate((height, width))]
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return square[:, None], (numbers[:, 2:] < 0.5)[:, :, None, None]


def _stretch(number: Tensor, side: int, length: int) -> Tensor:
    """Which of `length` places lie in a stretch of `side` places that begins at random, (B, length)."""
    first = (number * (length - side + 1)).long()[:, None]
    places = torch.arange(length, device=number.device)[None, :]
    return (places >= first) & (places < first + side)
