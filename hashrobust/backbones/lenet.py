"""LeNet: see the class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.backbones import backbones
from hashrobust.backbones._base import Backbone

NATIVE_SIZE = 32


@backbones.register("lenet")
class LeNet(Backbone):
    """LeNet with ReLU and max-pooling, as BioTorch's, up to the layer before the classifier.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998; layers of
    BioTorch's LeNetMNIST (Sanfiz and Akrout, arXiv 2108.13446): convolutions 6, 16, 120 (5x5), linear 84.
    At 32 pixels it is that network. Smaller images are padded with zeros to 32 by the first convolution,
    as LeCun did for 28; of larger ones the last map is averaged over positions.
    """

    feature_dim = 84
    minimum_image_size = 8
    channels_last = True

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        padding = max(0, (NATIVE_SIZE - image_size + 1) // 2)
        self.conv1 = nn.Conv2d(channels, 6, kernel_size=5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.conv3 = nn.Conv2d(16, 120, kernel_size=5)
        self.fc1 = nn.Linear(120, self.feature_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 84) of normalised images (B, channels, H, W)."""
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        maps = F.adaptive_avg_pool2d(F.relu(self.conv3(maps)), 1)
        return F.relu(self.fc1(maps.flatten(1)))
