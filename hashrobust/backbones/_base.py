"""What all backbones share: their contract and the smallest image that they can see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from hashrobust.errors import InputError

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class Backbone(nn.Module, ABC):
    """A network from normalised images to features; a subclass writes `forward`.

    `feature_dim` is the length of its features. `imagenet_normalization` is the (mean, std) per channel
    that its ImageNet weights were trained with, None where there are no weights for these channels.
    """

    feature_dim: int
    minimum_image_size: ClassVar[int]
    channels_last: ClassVar[bool] = False
    """Whether a training step on the CPU was measured to take less time in that layout (docs/performance.md)."""
    imagenet_normalization: Normalization | None = None
    imagenet_extra: ClassVar[str | None] = None
    """The extra of this package that brings the ImageNet weights; None: they are downloaded on first use."""

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"channels is {channels}: an image has at least one channel")
        if image_size < self.minimum_image_size:
            raise InputError(
                f"image_size is {image_size}, and {type(self).__name__} needs at least "
                f"{self.minimum_image_size} pixels: enlarge the images or choose a backbone for small ones"
            )
        self.channels = channels
        self.image_size = image_size

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, feature_dim) of normalised images (B, channels, H, W)."""

    @classmethod
    def imagenet_file(cls) -> Path | None:
        """Where its ImageNet weights lie, whether or not they are there; None if there are none."""
        return None

    def imagenet_state(self, *, progress: bool = False) -> dict[str, Tensor]:
        """ImageNet weights as published, for `load_imagenet`; downloaded on first use if no extra brings them.

        Raises:
            InputError: none exist for this backbone, or they are not here and cannot be fetched.
        """
        raise self._no_imagenet_weights()

    def load_imagenet(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Load ImageNet weights as published, classifier layer included; `imagenet_state()` unless given.

        Raises:
            InputError: none exist for this backbone or its channels, or `state` does not fit.
        """
        raise self._no_imagenet_weights()

    def _no_imagenet_weights(self) -> InputError:
        return InputError(
            f"there are no ImageNet weights for {type(self).__name__}: pretrain it or load a weight file"
        )

    def _check_colour(self) -> None:
        """Refuse ImageNet weights for anything but colour images; a model repeats grey ones."""
        if self.channels != 3:
            raise InputError(
                f"ImageNet weights of {type(self).__name__} serve colour images, or grey ones that the model "
                f"repeats in three channels, not {self.channels}: pretrain it, or convert the images"
            )
