"""Models that were not made here: any callable from images to outputs or logits, attacked as it is."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import hashrobust
from hashrobust.datasets import Split
from hashrobust.errors import HashRobustError, InputError, ModelError, lacks_memory
from hashrobust.models.files import load_tensors
from hashrobust.models.image_model import ClassifyingModel, Hasher, ImageModel


class _Foreign(ImageModel):
    """A callable from images (B, C, H, W) in [0, 1] to outputs (B, K).

    A module is held as a submodule, so that it is put into eval mode, moved and frozen as our own are.

    Raises:
        InputError: the callable fails on a batch of two images, or answers with another shape or NaN.
    """

    answer = "answer"
    columns = "outputs"

    def __init__(self, function: Callable[[Tensor], Tensor], input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if not callable(function):
            raise InputError(
                f"the model is of type {type(function).__name__}: give a callable from images to outputs"
            )
        self.function = function
        self.input_shape = input_shape
        self._count: int | None = None  # until the first answer
        self.eval()
        with torch.no_grad():
            self._count = self._probe(torch.rand(2, *input_shape, device=self.device)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (B, K); a shape other than that of the first answer is an InputError.

        Raises:
            ModelError: the callable raises an error.
        """
        with told_of(self.function):
            z = self.function(images)
        fits = isinstance(z, Tensor) and z.ndim == 2 and len(z) == len(images)
        if not fits or self._count not in (None, z.shape[1]):
            raise InputError(
                f"the model answers {len(images)} images with {_described(z)}: "
                f"it must give outputs of shape ({len(images)}, {self._count or self.columns})"
            )
        return z

    def outputs(self, images: Tensor | Split, batch_size: int = 100) -> Tensor:
        """As `ImageModel.outputs`.

        Raises:
            InputError: outputs that are not numbers, which answer nothing.
        """
        z = super().outputs(images, batch_size)
        broken = int((~z.isfinite()).any(dim=1).sum())
        if broken:
            raise InputError(
                f"the model's outputs are NaN or infinite for {broken} of {len(z)} images: "
                f"mend the model, such outputs have no {self.answer}"
            )
        return z

    @property
    def output_count(self) -> int:
        """The number of outputs K."""
        assert self._count is not None
        return self._count

    def _probe(self, images: Tensor) -> Tensor:
        try:
            z: Tensor = self(images)
        except InputError:
            raise
        except ModelError as error:
            own = error.__cause__
            raise InputError(
                f"the model fails on images of shape {tuple(images.shape)} ({type(own).__name__}: {own}): "
                "choose --dataset and --image-size as the model needs them"
            ) from own
        if not bool(z.isfinite().all()):
            raise InputError("the model answers random images in [0, 1] with NaN or infinity: mend the model")
        return z


@contextmanager
def told_of(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Tell errors that a model of somebody else raises as its own, in one sentence with their place.

    Raises:
        ModelError: there is one; it is the cause.
    """
    try:
        yield
    except HashRobustError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        function = model.function if isinstance(model, _Foreign) else model
        name = getattr(function, "__qualname__", type(function).__qualname__)
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelError(f"the model {name} fails{_place(error)} ({said}): mend the model") from error


def _place(error: Exception) -> str:
    """The last line that is neither torch's nor ours, if there is one."""
    libraries = tuple(str(Path(package).parent) for package in (torch.__file__, hashrobust.__file__))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*libraries, "<"))
    ]
    return f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


class ForeignModel(_Foreign, Hasher):
    """A callable from images (B, C, H, W) in [0, 1] to outputs z (B, K), whose signs are the code."""

    answer = "code"
    columns = "bits"


class ForeignClassifier(_Foreign, ClassifyingModel):
    """A callable from images (B, C, H, W) in [0, 1] to the logits (B, K) of classes."""

    answer = "class"
    columns = "classes"


def import_model(name: str) -> Callable[[Tensor], Tensor]:
    """The model that `package.module:factory` makes; the working directory is searched as well.

    Raises:
        InputError: the module cannot be imported, has no such factory, or the factory fails.
    """
    module_name, colon, factory_name = name.partition(":")
    if not colon or not module_name or not factory_name:
        raise InputError(f"model '{name}' is not of the form package.module:factory, such as mymodels:resnet")
    with _working_directory_on_path():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise InputError(
                f"module '{module_name}' cannot be imported ({type(error).__name__}: {error}): "
                "run from the folder that holds it, or install it"
            ) from error
        factory = getattr(module, factory_name, None)
        if factory is None:
            raise InputError(f"module '{module_name}' has no '{factory_name}': check the factory's name")
        try:
            model: Callable[[Tensor], Tensor] = factory()
        except Exception as error:
            raise InputError(
                f"factory '{name}' fails ({type(error).__name__}: {error}): it must make a model without arguments"
            ) from error
    if not callable(model):
        raise InputError(f"factory '{name}' makes a {type(model).__name__}: it must return a model")
    return model


def load_foreign_weights(model: Callable[[Tensor], Tensor], path: Path) -> None:
    """Load a safetensors state dict into a module.

    Raises:
        InputError: the model is no module, or the file is unreadable or of another architecture.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"weights '{path}' have nowhere to go: the factory makes a {type(model).__name__}, no nn.Module; "
            "let it load its own weights"
        )
    tensors, _ = load_tensors(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(f"weights '{path}' do not fit the model: {first}") from error


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """Modules beside the user are found, as with `python -m`."""
    here = str(Path.cwd())
    present = here in sys.path
    if not present:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if not present:
            sys.path.remove(here)


def _described(answer: object) -> str:
    return f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
