"""Images in [0, 1] to outputs: normalise, backbone, head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hashrobust.backbones import Backbone, backbones, build_backbone
from hashrobust.errors import InputError
from hashrobust.models.image_model import ClassifyingModel, Hasher, ImageModel


class Normalize(nn.Module):
    """(x - mean) / std per channel; part of the model, so that attacks stay in pixel units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32).clone().view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images of the same shape (B, C, H, W)."""
        return (images - self.mean) / self.std


class RepeatGrey(Normalize):
    """Grey images (B, 1, H, W), repeated in as many channels as there are means, and normalised."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W)."""
        # As a data set's images lie, whose convolutions take half the time on the CPU; broadcasting loses it.
        return super().forward(images).contiguous(memory_format=torch.channels_last)


class Network(ImageModel):
    """Normalise + backbone + linear head: images (B, C, H, W) in [0, 1] to outputs (B, K).

    Args:
        backbone: a registered name, or a module with a `feature_dim` such as a `Backbone`, whose own
            `channels` and `image_size` then count.
        outputs: the number of outputs K.
        channels: image channels C.
        image_size: height and width of the images that the backbone is built for.
        mean: per channel, of the images; 0.5 unless given.
        std: likewise.

    Raises:
        UnknownNameError: no such backbone.
        InputError: fewer than one output, or a shape that the backbone cannot see.
    """

    kind = "network"

    def __init__(
        self,
        backbone: str | Backbone,
        outputs: int,
        *,
        channels: int = 1,
        image_size: int = 32,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if outputs < 1:
            raise InputError(f"a {self.kind} model with {outputs} outputs: give at least 1")
        if isinstance(backbone, str):
            name = backbone
            backbone = build_backbone(name, channels=channels, image_size=image_size)
        else:
            name = _registered_name(backbone)
            channels = getattr(backbone, "channels", channels)
            image_size = getattr(backbone, "image_size", image_size)
        if not isinstance(getattr(backbone, "feature_dim", None), int):
            raise InputError(f"backbone {name} has no feature_dim: set it to the length of its features")
        self.input_shape = channels, image_size, image_size
        self.spec: dict[str, Any] = {
            "kind": self.kind,
            "backbone": name,
            "outputs": outputs,
            "channels": channels,
            "image_size": image_size,
        }
        halves = [0.5] * channels
        self.normalize = Normalize(halves if mean is None else mean, halves if std is None else std)
        self.backbone = backbone
        self.head = nn.Linear(self.backbone.feature_dim, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs z (B, K) of images (B, C, H, W) in [0, 1]; for codes, before tanh and sign."""
        z: Tensor = self.head(self.backbone(self.normalize(images)))
        return z

    def use_imagenet_weights(self) -> None:
        """Start the backbone from ImageNet weights, and take over their normalisation.

        If the images are grey and the weights are for colour, see `repeat_grey`.

        Raises:
            InputError: the backbone has none, or they cannot be downloaded.
        """
        backbone, normalize = self.backbone, Normalize
        grey = self.input_shape[0] == 1 and backbone.imagenet_normalization is None
        if grey and self.spec["backbone"] in backbones:
            backbone, normalize = self._backbone_for_colour(), RepeatGrey
        backbone.load_imagenet()
        self.backbone = backbone
        if backbone.imagenet_normalization is not None:
            self.normalize = normalize(*backbone.imagenet_normalization).to(self.device)

    def repeat_grey(self) -> None:
        """Let a backbone for colour, built anew, see the grey images repeated in three channels."""
        self.backbone = self._backbone_for_colour()
        self.normalize = RepeatGrey([0.5] * 3, [0.5] * 3).to(self.device)

    def _backbone_for_colour(self) -> Backbone:
        with torch.random.fork_rng(devices=[]):
            backbone = build_backbone(self.spec["backbone"], channels=3, image_size=self.input_shape[1])
        return backbone.to(self.device).train(self.training)

    @property
    def output_count(self) -> int:
        """The number of outputs K."""
        return self.head.out_features


class Rotation(nn.Module):
    """A fixed orthogonal map of outputs, z -> z R.

    It has nothing to learn, and no learning rule converts it: errors pass through its exact derivative R^T.
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, z: Tensor) -> Tensor:
        """Rotated outputs of the same shape (B, K)."""
        return z @ self.matrix


class HashModel(Network, Hasher):
    """A network whose K outputs are hashed: codes sign(z), one bit an output.

    The hash layer starts at N(0, 0.01), as in deep-hashing practice (arXiv 2502.05925). Behind it may stand a
    rotation, see `rotate`.
    """

    kind = "hash"

    def __init__(self, backbone: str | Backbone, bits: int, **shape: Any) -> None:
        super().__init__(backbone, bits, **shape)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.rotation: nn.Module = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs z (B, K) of images (B, C, H, W) in [0, 1], rotated where the model is; before tanh and sign."""
        z: Tensor = self.rotation(super().forward(images))
        return z

    def rotate(self, matrix: Tensor, name: str) -> None:
        """Multiply all outputs by an orthogonal matrix (K, K) from now on, after what rotates them already.

        `name`, that of how the matrix was found, goes into the model's description.

        Raises:
            InputError: a matrix of another shape, or not orthogonal.
        """
        unit = torch.eye(self.bits)
        matrix = matrix.detach().cpu().float()
        if matrix.shape != unit.shape or not torch.allclose(matrix @ matrix.T, unit, atol=1e-3):
            raise InputError(
                f"rotation '{name}' of shape {tuple(matrix.shape)} is not orthogonal: "
                f"give an orthogonal ({self.bits}, {self.bits}) matrix"
            )
        matrix = matrix.to(self.head.weight)
        before = self.rotation
        self.rotation = Rotation(before.matrix @ matrix if isinstance(before, Rotation) else matrix)
        self.spec["rotation"] = name


class Classifier(Network, ClassifyingModel):
    """A network whose outputs are class logits."""

    kind = "classifier"

    def __init__(self, backbone: str | Backbone, classes: int, **shape: Any) -> None:
        super().__init__(backbone, classes, **shape)


def _registered_name(backbone: Backbone) -> str:
    """The name that builds this backbone again, or its class's name if there is none."""
    known: str | None = getattr(backbone, "registered_name", None)
    names = [known] if known else [name for name in backbones if backbones[name] is type(backbone)]
    return names[0] if names else type(backbone).__name__
