"""The networks of `prosgan`: fully convolutional, for images of any size and any number of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 16
MAPS = 4
SIDE = 8


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape (B, width, H, W)."""
        changed: Tensor = self.second(F.relu(self.first(F.relu(features))))
        return features + changed


class Generator(nn.Module):
    """Images (B, C, H, W) and prototype codes (B, K) to changes (B, C, H, W) in [-1, 1].

    A linear layer draws the code as a few small maps, which are enlarged and stacked onto the image; then
    down by two, residual blocks, and up again. No layer looks across the batch.
    """

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.condition = nn.Linear(bits, MAPS * SIDE * SIDE)
        self.enter = nn.Conv2d(channels + MAPS, WIDTH, 3, padding=1)
        self.down = nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Residual(2 * WIDTH), Residual(2 * WIDTH))
        self.up = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)
        self.leave = nn.Conv2d(WIDTH, channels, 3, padding=1)

    def forward(self, images: Tensor, prototypes: Tensor) -> Tensor:
        """See the class."""
        size = images.shape[-2:]
        maps = self.condition(prototypes).view(-1, MAPS, SIDE, SIDE)
        drawn = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        wide = F.relu(self.enter(torch.cat([images - 0.5, drawn], dim=1)))
        deep = self.blocks(self.down(wide))
        back = self.up(F.interpolate(F.relu(deep), size=size, mode="nearest"))
        return torch.tanh(self.leave(F.relu(back + wide)))


class Discriminator(nn.Sequential):
    """Images (B, C, H, W) to one score a patch: near 1 for genuine images, near 0 for changed ones."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, WIDTH, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * WIDTH, 1, 3, padding=1),
        )
