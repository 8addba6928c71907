"""What all models share, made here or not: images in [0, 1] to outputs, codes or classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hashrobust.datasets import Split
from hashrobust.errors import InputError


class ImageModel(nn.Module, ABC):
    """A model, made here or not: images (B, C, H, W) in [0, 1] to outputs (B, K)."""

    input_shape: tuple[int, int, int]
    """Channels, height and width of the images."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU if there are none."""
        for parameter in self.parameters():
            return parameter.device
        return torch.device("cpu")

    def outputs(self, images: Tensor | Split, batch_size: int = 100) -> Tensor:
        """Outputs z (N, K) of many images, in eval mode, without gradients, on the CPU.

        Images in float64 are rounded to float32 for a model that computes so.

        Raises:
            InputError: images that are not float (N, C, H, W) in [0, 1] with the model's channels.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: give at least 1")
        if isinstance(images, Split):
            batches: Iterator[Tensor] = (batch for batch, _ in images.batches(batch_size))
        elif isinstance(images, Tensor):
            batches = iter(torch.split(images, batch_size))
        else:
            raise InputError(
                f"images are a {type(images).__name__}: give a tensor, as torch.as_tensor makes one, or a split"
            )
        with _evaluating(self), torch.inference_mode():
            found = [self(self._checked(batch).to(self.device)).cpu() for batch in batches]
        return torch.cat(found) if found else torch.empty(0, self.output_count)

    @property
    @abstractmethod
    def output_count(self) -> int:
        """The number of outputs K."""

    def _checked(self, images: Tensor) -> Tensor:
        channels = self.input_shape[0]
        if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
            raise InputError(
                f"images have shape {tuple(images.shape)} and type {images.dtype}: "
                f"this model takes float images (N, {channels}, H, W) in [0, 1]"
            )
        if images.numel() > 0:
            low, high = torch.aminmax(images)  # of one pass, and not a number if any value is none
            if not bool((low >= 0) & (high <= 1)):
                raise InputError("images hold values outside [0, 1]: divide bytes by 255, do not normalise")
        precise = images.dtype == torch.float64 and torch.float32 in {own.dtype for own in self.parameters()}
        return images.float() if precise else images


class Hasher(ImageModel):
    """What all hashing models share, made here or not: outputs are z, whose signs are the code."""

    @property
    def bits(self) -> int:
        """The code length K."""
        return self.output_count

    def encode(self, images: Tensor | Split, batch_size: int = 100) -> Tensor:
        """Codes (N, K) int8 in {-1, +1} of images (N, C, H, W) in [0, 1] or of a dataset's split."""
        return sign(self.outputs(images, batch_size))


class ClassifyingModel(ImageModel):
    """What all classifiers share, made here or not: outputs are the logits of classes."""

    def predict(self, images: Tensor | Split, batch_size: int = 100) -> Tensor:
        """Classes (N,) int64 of images (N, C, H, W) in [0, 1] or of a dataset's split: the largest logit."""
        return self.outputs(images, batch_size).argmax(dim=1)

    def correct(self, split: Split, batch_size: int = 100) -> Tensor:
        """1 for each image (N,) whose largest logit is one of its labels, else 0; float64."""
        predicted = self.predict(split, batch_size)
        return split.labels.gather(1, predicted[:, None])[:, 0].double()

    def accuracy(self, split: Split, batch_size: int = 100) -> float:
        """Share of images whose largest logit is one of their labels."""
        return float(self.correct(split, batch_size).mean())


def sign(z: Tensor) -> Tensor:
    """Codes int8 in {-1, +1}; sign(0) is +1."""
    return torch.where(z >= 0, 1, -1).to(torch.int8)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode within the block; each module has its own back after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients within the block, as an attack needs; restored after it."""
    needed = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with _evaluating(model):
        model.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, need in needed.items():
                parameter.requires_grad_(need)
