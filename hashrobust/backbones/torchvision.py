"""Torchvision's networks for classification without their classifier, under torchvision's parameter names."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hashrobust.backbones import backbones
from hashrobust.backbones._adopted import AdoptedBackbone, subclass
from hashrobust.backbones._torchvision_families import FAMILIES, Family
from hashrobust.errors import InputError

WEIGHTS = ("IMAGENET1K_V1", "IMAGENET1K_SWAG_LINEAR_V1")
"""Torchvision's first weights; the second were trained on images of Instagram first, where there are no others."""

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# DenseNet's published weights bear names that torch no longer allows.
_OLD_NAMES = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


class TorchvisionBackbone(AdoptedBackbone):
    """A network of torchvision; its features are the input of its last classifier layer."""

    family: ClassVar[Family]
    classifier_name: str
    # MNASNet's own refuses weights that do not tell their version, as safetensors do not.
    _load_from_state_dict = nn.Module._load_from_state_dict

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        # Imported here because it takes a second and most commands need none of it.
        from torchvision.models import get_model

        try:
            network = get_model(self.registered_name, weights=None, **self.family.arguments(image_size))
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"{self.registered_name} cannot see images of {image_size} pixels ({error}): choose another size"
            ) from error
        self._become(network)
        self.classifier_name, classifier = _classifier_layer(self)
        # A weight has a row an output and a column an input.
        self.feature_dim = classifier.weight.shape[1]
        parent, _, name = self.classifier_name.rpartition(".")
        setattr(self.get_submodule(parent), name, nn.Identity())
        if channels == 3:
            self.imagenet_normalization = self._imagenet_normalization()
        else:
            self._see(channels)

    def _see(self, channels: int) -> None:
        """Give the first convolution other channels, its weights as random and its outputs as large as before."""
        first = next(layer for layer in self.modules() if isinstance(layer, nn.Conv2d))
        spread = float(first.weight.detach().std()) * (first.in_channels / channels) ** 0.5
        fresh = first.weight.new_empty(first.out_channels, channels, *first.kernel_size)
        first.in_channels = channels
        first.weight = nn.Parameter(nn.init.normal_(fresh, std=spread))

    @classmethod
    def imagenet_file(cls) -> Path:
        """The file in torch's hub folder."""
        return Path(str(torch.hub.get_dir()), "checkpoints", cls._imagenet_weights().url.rpartition("/")[2])

    def imagenet_state(self, *, progress: bool = False) -> dict[str, Tensor]:
        """Torchvision's first ImageNet weights, hash-checked, kept in torch's hub folder.

        Raises:
            InputError: these channels have none, or the download failed.
        """
        self._check_colour()
        weights = self._imagenet_weights()
        try:
            state = weights.get_state_dict(progress=progress, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"cannot get the ImageNet weights of {self.registered_name} ({error}): "
                f"fetch {weights.url} elsewhere and put it at {self.imagenet_file()}"
            ) from error
        return dict(state)

    def load_imagenet(self, state: Mapping[str, Tensor] | None = None) -> None:
        """Load a torchvision state dict, `imagenet_state()` unless given; all but its classifiers must fit.

        Position embeddings of vision transformers are interpolated to the image size.

        Raises:
            InputError: names or shapes that differ, or channels that the weights do not serve.
        """
        self._check_colour()
        given = self.imagenet_state() if state is None else state
        skipped = (f"{self.classifier_name}.", *_AUXILIARY)
        fitting = {
            _OLD_NAMES.sub(r"\1\2", name): value
            for name, value in given.items()
            if not name.startswith(skipped)
        }
        try:
            if "encoder.pos_embedding" in fitting:
                from torchvision.models.vision_transformer import interpolate_embeddings

                patch_size = self.get_parameter("conv_proj.weight").shape[-1]
                fitting = interpolate_embeddings(self.image_size, patch_size, fitting)
            self.load_state_dict(fitting)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the weights do not fit {self.registered_name}: {error}; give torchvision's own state dict"
            ) from error

    @classmethod
    def _imagenet_weights(cls) -> Any:
        from torchvision.models import get_model_weights

        known = get_model_weights(cls.registered_name)
        return known[next(name for name in WEIGHTS if name in known.__members__)]

    def _imagenet_normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.family.normalization is not None:
            return self.family.normalization
        preset = self._imagenet_weights().transforms()
        return tuple(preset.mean), tuple(preset.std)


def _classifier_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The last linear layer and its name, or the last convolution of a network that has none."""
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    name = next((name for name in reversed(layers) if isinstance(layers[name], nn.Linear)), list(layers)[-1])
    return name, layers[name]


for _family in FAMILIES:
    for _name in _family.networks:
        _kind = subclass(
            _name,
            TorchvisionBackbone,
            registered_name=_name,
            family=_family,
            minimum_image_size=_family.minimum_image_size,
            __module__=__name__,
            __doc__=f"{_family.title} without its classifier, as in torchvision.\n\nSource: {_family.source}.",
        )
        backbones.register(_name)(_kind)
