"""Backbones: from normalised images to features."""

from __future__ import annotations

from hashrobust.backbones._base import Backbone
from hashrobust.registry import Registry

__all__ = ["Backbone", "backbones", "build_backbone"]

backbones: Registry[Backbone] = Registry("backbone", __name__)


def build_backbone(name: str, *, channels: int, image_size: int) -> Backbone:
    """The backbone called `name`, freshly initialised, for square images of `image_size` pixels.

    Raises:
        UnknownNameError: no such backbone.
        InputError: no channels, or images smaller than it can see.
    """
    return backbones.build(name, channels=channels, image_size=image_size)
