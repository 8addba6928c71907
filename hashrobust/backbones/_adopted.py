"""Networks of other libraries as backbones, under the names that their published weights bear."""

from __future__ import annotations

import types
from typing import Any, ClassVar

from torch import Tensor, nn

from hashrobust.backbones._base import Backbone


class AdoptedBackbone(Backbone):
    """A backbone that becomes a network of another library in its `__init__`, by `_become`.

    It then has the network's layers, attributes and methods as its own. A wrapper would put a prefix before
    the names of layers and weights, by which published weights, stored runs and drawn feedback are found.
    """

    registered_name: ClassVar[str]
    """The name that builds it, which its class does not tell once it has become a network."""
    adopted: ClassVar[type[nn.Module]]

    def _become(self, network: nn.Module) -> None:
        own = {"channels": self.channels, "image_size": self.image_size}
        vars(self).update(vars(network) | own)
        self.__class__ = _joined(type(self), type(network))

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, feature_dim) of normalised images (B, channels, H, W)."""
        features: Tensor = self.adopted.forward(self, images)
        return features


def subclass(name: str, *bases: type, **attributes: Any) -> type[Any]:
    """A class made of others and class attributes."""
    return types.new_class(name, bases, exec_body=lambda namespace: namespace.update(attributes))


def _joined(kind: type[AdoptedBackbone], network: type[nn.Module]) -> type[AdoptedBackbone]:
    """A class with the methods of both; where both have one, that of the backbone."""
    return subclass(
        kind.__name__, kind, network, adopted=network, __module__=kind.__module__, __doc__=kind.__doc__
    )
