"""ResNet-20: see the class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.backbones import backbones
from hashrobust.backbones._base import Backbone

WIDTHS = (16, 32, 64)
BLOCKS_PER_STAGE = 3


@backbones.register("resnet20")
class ResNet20(Backbone):
    """ResNet-20 for small images: 0.27 million parameters, 64 features.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385,
    section 4.2, with its parameter-free shortcuts (option A) and He's normal initialisation.
    """

    feature_dim = WIDTHS[-1]
    minimum_image_size = 8
    channels_last = True

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self.conv1 = _convolution(channels, WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = (WIDTHS[0], *WIDTHS)
        self.stages = nn.Sequential(*(_stage(inputs[i], width) for i, width in enumerate(WIDTHS)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 64) of normalised images (B, channels, H, W)."""
        maps = self.stages(F.relu(self.bn1(self.conv1(images)), inplace=True))
        return F.adaptive_avg_pool2d(maps, 1).flatten(1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that subsamples and fills new channels with zeros."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if channels == width else 2
        self.new_channels = width - channels
        self.conv1 = _convolution(channels, width, self.stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, width, H / stride, W / stride) of maps (B, channels, H, W)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)), inplace=True)))
        return F.relu(residual + self._shortcut(maps), inplace=True)

    def _shortcut(self, maps: Tensor) -> Tensor:
        if not self.new_channels:
            return maps
        before = self.new_channels // 2
        # Subsamples as a slice does, but its gradient lies in memory as the maps do.
        subsampled = F.avg_pool2d(maps, kernel_size=1, stride=self.stride)
        return F.pad(subsampled, (0, 0, 0, 0, before, self.new_channels - before))


def _stage(channels: int, width: int) -> nn.Sequential:
    first = BasicBlock(channels, width)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(BLOCKS_PER_STAGE - 1)))


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
