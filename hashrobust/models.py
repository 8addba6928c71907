"""Images in [0, 1] to outputs: normalise, backbone, head; saved as safetensors with their own description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hashrobust.backbones import Backbone, build_backbone
from hashrobust.datasets import Split
from hashrobust.errors import InputError

_METADATA = "hashrobust"


class Normalize(nn.Module):
    """(x - mean) / std per channel; part of the model, so that attacks stay in pixel units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images of the same shape (B, C, H, W)."""
        return (images - self.mean) / self.std


class Network(nn.Module):
    """Normalise + backbone + linear head: images (B, C, H, W) in [0, 1] to outputs (B, K).

    Args:
        backbone: a registered name, or a module with a `feature_dim`.
        outputs: the number of outputs K.
        channels: image channels C.
        image_size: height and width of the images that the backbone is built for.
        mean: per channel, of the images; 0.5 unless given.
        std: likewise.
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
        self.spec = {
            "kind": self.kind,
            "backbone": backbone if isinstance(backbone, str) else type(backbone).__name__,
            "outputs": outputs,
            "channels": channels,
            "image_size": image_size,
        }
        self.normalize = Normalize(mean or [0.5] * channels, std or [0.5] * channels)
        self.backbone = (
            build_backbone(backbone, channels=channels, image_size=image_size)
            if isinstance(backbone, str)
            else backbone
        )
        self.head = nn.Linear(self.backbone.feature_dim, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs z (B, K) of images (B, C, H, W) in [0, 1]; for codes, before tanh and sign."""
        z: Tensor = self.head(self.backbone(self.normalize(images)))
        return z

    def use_imagenet_weights(self) -> None:
        """Start the backbone from ImageNet weights, and take over their normalisation.

        Raises:
            InputError: the backbone has none, or they cannot be downloaded.
        """
        self.backbone.load_imagenet()
        normalization = self.backbone.imagenet_normalization
        if normalization is not None:
            channels = len(self.normalize.mean)
            mean, std = (v if len(v) == channels else [sum(v) / len(v)] * channels for v in normalization)
            self.normalize = Normalize(mean, std)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.head.weight.device

    def outputs(self, images: Tensor | Split, batch_size: int = 500) -> Tensor:
        """Outputs z (N, K) of many images, in eval mode, without gradients, on the CPU."""
        batches: Iterator[Tensor]
        if isinstance(images, Split):
            batches = (batch for batch, _ in images.batches(batch_size))
        else:
            batches = iter(torch.split(images, batch_size))
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                return torch.cat([self(batch.to(self.device)).cpu() for batch in batches])
        finally:
            self.train(was_training)


class HashModel(Network):
    """A network whose K outputs are hashed: codes sign(z), one bit an output.

    The hash layer starts at N(0, 0.01), as in deep-hashing practice (arXiv 2502.05925).
    """

    kind = "hash"

    def __init__(self, backbone: str | Backbone, bits: int, **shape: Any) -> None:
        super().__init__(backbone, bits, **shape)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @property
    def bits(self) -> int:
        """The code length K."""
        return self.head.out_features

    def encode(self, images: Tensor | Split, batch_size: int = 500) -> Tensor:
        """Codes (N, K) int8 in {-1, +1} of images (N, C, H, W) in [0, 1] or of a dataset's split."""
        return sign(self.outputs(images, batch_size))


class Classifier(Network):
    """A network whose outputs are class logits."""

    kind = "classifier"

    def __init__(self, backbone: str | Backbone, classes: int, **shape: Any) -> None:
        super().__init__(backbone, classes, **shape)

    def accuracy(self, split: Split, batch_size: int = 500) -> float:
        """Share of images whose largest logit is one of their labels."""
        predicted = self.outputs(split, batch_size).argmax(dim=1)
        return float(split.labels.gather(1, predicted[:, None]).double().mean())


def sign(z: Tensor) -> Tensor:
    """Codes int8 in {-1, +1}; sign(0) is +1."""
    return torch.where(z >= 0, 1, -1).to(torch.int8)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients within the block, as an attack needs; restored after it."""
    modes = {module: module.training for module in model.modules()}
    needed = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, need in needed.items():
            parameter.requires_grad_(need)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, description: Mapping[str, Any]) -> None:
    """Write tensors as safetensors with a JSON description in the header."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(ready, path, metadata={_METADATA: json.dumps(description, sort_keys=True)})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description (empty for files of other makers) of a safetensors file.

    Raises:
        InputError: the file is missing, or is not safetensors (pickles are never opened).
    """
    if not path.is_file():
        raise InputError(f"model file '{path}' does not exist: check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), json.loads(metadata.get(_METADATA, "{}"))
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"model file '{path}' is not a readable safetensors file ({error}): pickled models (.pt, .pth) "
            "are not opened, convert them with safetensors.torch.save_file"
        ) from error


def save_model(model: Network, path: Path) -> None:
    """Write a model and its description to one safetensors file."""
    save_tensors(model.state_dict(), path, model.spec)


def load_model(path: Path) -> HashModel | Classifier:
    """Read a model that `save_model` wrote, in eval mode.

    Raises:
        InputError: no safetensors file, not made by hashrobust, or its tensors do not fit.
    """
    tensors, spec = load_tensors(path)
    kinds: dict[str, type[HashModel] | type[Classifier]] = {"hash": HashModel, "classifier": Classifier}
    if spec.get("kind") not in kinds:
        raise InputError(
            f"model file '{path}' holds no description of a hashrobust model: "
            "give a model.safetensors of a run, or use it as --weights"
        )
    model = kinds[spec["kind"]](
        spec["backbone"], spec["outputs"], channels=spec["channels"], image_size=spec["image_size"]
    )
    _load_strict(model, tensors, f"model file '{path}'")
    return model.eval()


def load_weights(model: Network, path: Path) -> tuple[str, ...]:
    """Start a model's backbone from a file; names of the tensors in it that were not used (old heads).

    The file is a saved model (its normalisation is taken over too) or plain weights under the
    backbone's own names, such as a torchvision state dict saved as safetensors.

    Raises:
        InputError: it does not fit; the message names the keys.
    """
    tensors, _ = load_tensors(path)
    whole = any(name.startswith("backbone.") for name in tensors)
    if whole:
        parts = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
        target: nn.Module = model
    else:
        parts, target = tensors, model.backbone
    expected = {name for name in target.state_dict() if not name.startswith("head.")}
    used = {name: tensor for name, tensor in parts.items() if name in expected}
    if not used:
        raise InputError(
            f"weights '{path}' share no tensor name with backbone '{model.spec['backbone']}': "
            f"it has {', '.join(sorted(expected)[:3])}, the file {', '.join(sorted(tensors)[:3])}"
        )
    keep = {name: tensor for name, tensor in target.state_dict().items() if name.startswith("head.")}
    _load_strict(target, used | keep, f"weights '{path}'")
    return tuple(sorted(set(tensors) - set(used)))


def _load_strict(module: nn.Module, tensors: Mapping[str, Tensor], subject: str) -> None:
    own = module.state_dict()
    missing = sorted(set(own) - set(tensors))
    unexpected = sorted(set(tensors) - set(own))
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, needed {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    for problem, keys in (("lacks", missing), ("has unknown", unexpected), ("has wrong shapes:", shapes)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise InputError(
                f"{subject} {problem} {', '.join(keys[:3])}{more}: it belongs to another architecture, "
                "image size or number of channels"
            )
    module.load_state_dict(dict(tensors))
