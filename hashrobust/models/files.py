"""Models as safetensors files that describe themselves; pickles are never opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hashrobust.errors import InputError, UnknownNameError, UnwritableError
from hashrobust.models.network import Classifier, HashModel, Network, Rotation
from hashrobust.options import MOST_IMAGE_SIZE

_METADATA = "hashrobust"
_KINDS: Mapping[str, type[HashModel] | type[Classifier]] = {"hash": HashModel, "classifier": Classifier}
_MOST = {"outputs": 2**16, "channels": 2**10, "image_size": MOST_IMAGE_SIZE}
"""What a stored model may tell of itself: far more than any has."""


def save_tensors(tensors: Mapping[str, Tensor], path: Path, description: Mapping[str, Any]) -> None:
    """Write tensors as safetensors with a JSON description in the header.

    Raises:
        UnwritableError: the file cannot be written.
    """
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata={_METADATA: json.dumps(description, sort_keys=True)})
    except SafetensorError as error:
        raise UnwritableError(
            f"'{path}' cannot be written ({error}): make room or choose another folder"
        ) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description (empty for files of other makers) of a safetensors file.

    Raises:
        InputError: the file is missing, or is not safetensors (pickles are never opened).
    """
    if not path.is_file():
        raise InputError(f"model file '{path}' does not exist: check the path")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
        if not isinstance(description, dict):
            raise ValueError("its description is no table of names and values")
        return load_file(path), description
    except PermissionError:
        raise
    except Exception as error:  # readers of damaged files raise whatever they come upon
        raise InputError(
            f"model file '{path}' is not a readable safetensors file ({error}): pickled models (.pt, .pth) "
            "are not opened, convert them with safetensors.torch.save_file"
        ) from error


def save_model(model: Network, path: str | Path) -> None:
    """Write a model and its description to one safetensors file.

    What a learning rule drew is no part of it: see `rules.feedback_state`.

    Raises:
        UnwritableError: the file cannot be written.
    """
    save_tensors(model.state_dict(), Path(path), model.spec)


def load_model(path: str | Path) -> HashModel | Classifier:
    """Read a model that `save_model` wrote, plain (rule "bp") and in eval mode.

    Raises:
        InputError: no safetensors file, not made by hashrobust, or its tensors do not fit.
    """
    path = Path(path)
    tensors, spec = load_tensors(path)
    if not _describes_model(spec):
        raise InputError(
            f"model file '{path}' holds no description of a hashrobust model: "
            "give a model.safetensors of a run, or use it as --weights"
        )
    subject = f"model file '{path}'"
    try:
        # Without memory first, since a description may be of any size. Some networks cannot be built so.
        with suppress(RuntimeError), torch.device("meta"):
            _check_tensors(_built(spec, tensors), tensors, subject)
        model = _built(spec, tensors)
    except (UnknownNameError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{subject} describes no model that can be built ({error})") from error
    _load_strict(model, tensors, subject)
    return model.eval()


def _describes_model(spec: Mapping[str, Any]) -> bool:
    """Whether a description has all that a model is built from, and nothing that none could have."""
    return (
        spec.get("kind") in tuple(_KINDS)
        and isinstance(spec.get("backbone"), str)
        and isinstance(spec.get("rotation", ""), str)
        and all(type(spec.get(name)) is int and 0 < spec[name] <= most for name, most in _MOST.items())
    )


def _built(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> HashModel | Classifier:
    """A fresh model as described, with a place for each of the tensors that its kind of model may have."""
    with torch.random.fork_rng(devices=[]):
        model = _KINDS[spec["kind"]](
            spec["backbone"], spec["outputs"], channels=spec["channels"], image_size=spec["image_size"]
        )
    if isinstance(model, HashModel) and "rotation" in spec:
        model.rotation = Rotation(torch.eye(model.bits))
        model.spec["rotation"] = spec["rotation"]
    _repeat_grey_as(tensors, model)
    return model


def load_weights(model: Network, path: str | Path, *, head: bool = False) -> tuple[str, ...]:
    """Start a model's backbone, and with `head` its last layer, from a file.

    Returns the names of the tensors in it that were not used (old heads).

    The file is a saved model (its normalisation is taken over too) or plain weights under the
    backbone's own names, such as a torchvision state dict saved as safetensors.

    Raises:
        InputError: it does not fit; the message names the keys.
    """
    tensors, spec = load_tensors(Path(path))
    for fact in ("backbone", "channels"):
        if fact in spec and spec[fact] != model.spec[fact]:
            raise InputError(
                f"weights '{path}' are of a model with {fact} {spec[fact]}, and this one has {fact} "
                f"{model.spec[fact]}: start from weights of the same architecture"
            )
    _repeat_grey_as(tensors, model)
    whole = any(name.startswith("backbone.") for name in tensors)
    target: nn.Module = model if whole else model.backbone
    kept = {} if head else _head_of(target)
    expected = target.state_dict().keys() - kept.keys()
    used = {name: tensor for name, tensor in tensors.items() if name in expected}
    if not used:
        raise InputError(
            f"weights '{path}' share no tensor name with backbone '{model.spec['backbone']}': "
            f"it has {', '.join(sorted(expected)[:3])}, the file {', '.join(sorted(tensors)[:3])}"
        )
    _load_strict(target, used | kept, f"weights '{path}'")
    return tuple(sorted(set(tensors) - set(used)))


def _repeat_grey_as(tensors: Mapping[str, Tensor], model: Network) -> None:
    """Let the model repeat grey images as the one whose tensors these are, if that does."""
    mean = tensors.get("normalize.mean")
    if mean is not None and mean.numel() == 3 and model.normalize.mean.numel() == 1:
        model.repeat_grey()


def _head_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if name.startswith("head.")}


def _load_strict(module: nn.Module, tensors: Mapping[str, Tensor], subject: str) -> None:
    _check_tensors(module, tensors, subject)
    module.load_state_dict(dict(tensors))


def _check_tensors(module: nn.Module, tensors: Mapping[str, Tensor], subject: str) -> None:
    """Refuse tensors that are not those of the module, by name and shape."""
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
