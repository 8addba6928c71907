"""Random search over single pixels: the plain baseline of the square attack, arXiv 1912.00049."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import attacks

from ._search import SearchAttack


@attacks.register("random-search")
@dataclass(frozen=True, kw_only=True)
class RandomSearch(SearchAttack):
    """Random search: scattered pixels of +-epsilon, kept if not worse; knows the model's answers alone.

    The square attack (Andriushchenko et al., arXiv 1912.00049) without its squares and stripes: starts
    from a random sign for each pixel and channel; each proposal redraws the signs of a random share of
    the pixels. The loop, and what it minimises, are those of `SearchAttack`, as are the parameters.
    """

    def start_numbers(self, shape: torch.Size) -> int:
        """One for each pixel of each channel."""
        return shape.numel()

    def start(self, numbers: Tensor, shape: torch.Size) -> Tensor:
        """Random signs (B, C, H, W)."""
        return (numbers < 0.5).view(-1, *shape)

    def proposal_numbers(self, shape: torch.Size) -> int:
        """One for each pixel's turn to change, and one for each of its signs."""
        return shape[1] * shape[2] + shape.numel()

    def propose(self, numbers: Tensor, share: float, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The share of the pixels, at least one, (B, 1, H, W), and the signs (B, C, H, W)."""
        pixels = shape[1] * shape[2]
        turns, signs = numbers[:, :pixels], numbers[:, pixels:]
        places = turns.topk(max(round(share * pixels), 1), dim=1).indices
        chosen = torch.zeros_like(turns, dtype=torch.bool).scatter(1, places, True)
        return chosen.view(-1, 1, *shape[1:]), (signs < 0.5).view(-1, *shape)
