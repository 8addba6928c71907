"""Torchvision's networks without their classifier, under torchvision's parameter names."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from hashrobust.backbones import backbones
from hashrobust.backbones._base import Backbone
from hashrobust.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TorchvisionBackbone(Backbone):
    """A torchvision network up to the layer before its classifier; a subclass names which.

    ImageNet weights serve three channels, and one: the input weights are summed over colours, which is
    the network on a grey image repeated in red, green and blue and normalised alike.
    """

    architecture: ClassVar[str]
    head: ClassVar[str]
    first: ClassVar[str]

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        # Imported here because it takes a second and most commands need none of it.
        from torchvision.models import get_model

        network = get_model(self.architecture, weights=None)
        for name, layer in network.named_children():
            if name == self.head:
                continue
            if name == self.head.partition(".")[0]:
                self.add_module(name, layer[:-1])
            else:
                self.add_module(name, layer)
            if name == "avgpool":
                self.add_module("flatten", nn.Flatten())
        if channels != 3:
            self._rebuild_first(channels)
        self.imagenet_normalization = _imagenet_normalization(channels)

    def _rebuild_first(self, channels: int) -> None:
        first = self.get_submodule(self.first)
        assert isinstance(first, nn.Conv2d)
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))
        first.reset_parameters()
        # Torchvision starts the convolutions of VGG and ResNet like this, AlexNet's with torch's default.
        if self.architecture != "alexnet":
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
            if first.bias is not None:
                nn.init.zeros_(first.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, feature_dim) of normalised images (B, channels, H, W)."""
        features = images
        for layer in self.children():
            features = layer(features)
        return features

    @classmethod
    def imagenet_file(cls) -> Path:
        """The file in torch's hub folder."""
        from torchvision.models import get_model_weights

        url: str = get_model_weights(cls.architecture)["IMAGENET1K_V1"].url
        return Path(str(torch.hub.get_dir()), "checkpoints", url.rpartition("/")[2])

    def imagenet_state(self, *, progress: bool = False) -> dict[str, Tensor]:
        """Torchvision's first ImageNet weights (IMAGENET1K_V1), hash-checked, kept in torch's hub folder.

        Raises:
            InputError: these channels have none, or the download failed.
        """
        self._check_channels()
        from torchvision.models import get_model_weights

        weights = get_model_weights(self.architecture)["IMAGENET1K_V1"]
        try:
            state = weights.get_state_dict(progress=progress, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"cannot get the ImageNet weights of {self.architecture} ({error}): "
                f"fetch {weights.url} elsewhere and give it with --weights FILE"
            ) from error
        return dict(state)

    def load_imagenet(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Load a torchvision state dict, `imagenet_state()` unless given; all but its classifier must fit.

        Raises:
            InputError: names or shapes that differ, or channels that the weights do not serve.
        """
        key = f"{self.first}.weight"
        given = self.imagenet_state() if state is None else state
        state = {name: value for name, value in given.items() if not name.startswith(f"{self.head}.")}
        if key in state and state[key].shape[1] != self.channels:
            self._check_channels()
            state[key] = state[key].sum(dim=1, keepdim=True)
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"the weights do not fit {self.architecture}: {error}; give torchvision's own state dict"
            ) from error

    def _check_channels(self) -> None:
        if self.imagenet_normalization is None:
            raise InputError(
                f"ImageNet weights of {self.architecture} serve images of 1 or 3 channels, "
                f"not {self.channels}: pretrain it, or convert the images to grey or colour"
            )


@backbones.register("alexnet")
class AlexNet(TorchvisionBackbone):
    """AlexNet up to its second linear layer (fc7): 57 million parameters, 4096 features.

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
    arXiv 1404.5997, as in torchvision.
    """

    architecture = "alexnet"
    head = "classifier.6"
    first = "features.0"
    feature_dim = 4096
    minimum_image_size = 63


@backbones.register("vgg16")
class VGG16(TorchvisionBackbone):
    """VGG-16 up to its second linear layer (fc7): 134 million parameters, 4096 features.

    Source: Simonyan and Zisserman, arXiv 1409.1556, configuration D, as in torchvision.
    """

    architecture = "vgg16"
    head = "classifier.6"
    first = "features.0"
    feature_dim = 4096
    minimum_image_size = 32


class TorchvisionResNet(TorchvisionBackbone):
    """A ResNet up to its pooled features.

    Smaller images than its stride of 32 would run, but the last stage would see little but padding.
    """

    head = "fc"
    first = "conv1"
    feature_dim = 512
    minimum_image_size = 32


@backbones.register("resnet18")
class ResNet18(TorchvisionResNet):
    """ResNet-18 for ImageNet-sized images: 11 million parameters, 512 features.

    Source: He et al., arXiv 1512.03385, as in torchvision.
    """

    architecture = "resnet18"


@backbones.register("resnet34")
class ResNet34(TorchvisionResNet):
    """ResNet-34 for ImageNet-sized images: 21 million parameters, 512 features.

    Source: He et al., arXiv 1512.03385, as in torchvision.
    """

    architecture = "resnet34"


@backbones.register("resnet50")
class ResNet50(TorchvisionResNet):
    """ResNet-50 for ImageNet-sized images: 24 million parameters, 2048 features.

    Source: He et al., arXiv 1512.03385, as in torchvision (stride in the 3x3 convolution).
    """

    architecture = "resnet50"
    feature_dim = 2048


def _imagenet_normalization(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    if channels == 1:
        return (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)
    return None
