"""Models that were not made here as run folders, so that they are indexed, attacked and audited like our own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashrobust.datasets import ClassificationDataset, LabelledDataset, load_classification, load_dataset
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.config import slug
from hashrobust.experiments.environment import choose_device, record_environment
from hashrobust.experiments.files import file_digest
from hashrobust.experiments.imported_runs import load_imported
from hashrobust.experiments.scaled_gradient import scaled_gradient
from hashrobust.experiments.store import EXPORTED, FOREIGN, Folder, config_hash
from hashrobust.experiments.trained_runs import load_run
from hashrobust.models import (
    Classifier,
    ClassifyingModel,
    ForeignClassifier,
    ForeignModel,
    Hasher,
    HashModel,
    Network,
    import_model,
    load_foreign_weights,
    sign,
)
from hashrobust.options import ALL_LAYERS
from hashrobust.rules import feedback_scale, feedback_seed, layers_of, rule_of
from hashrobust.seeding import keyed_generator

PYTHON = "python:"
_PROBES, _GRADIENT_PROBES = 32, 4
_LOADERS: Mapping[str, Callable[..., LabelledDataset]] = {
    "hashing": load_dataset,
    "classification": load_classification,
}


def import_foreign(
    model: str,
    dataset: str,
    results: Path,
    *,
    task: str = "hashing",
    weights: Path | None = None,
    image_size: int | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> Folder:
    """The run folder of a model that `package.module:factory` makes, its weights from a safetensors file.

    Raises:
        InputError: an unknown task, or the factory, the weights or the model's answers are not usable.
    """
    data = load_for(task, dataset, data_dir=data_dir, image_size=image_size)
    loaded = _load(model, weights, data.image_shape, classifies=_is_for_classes(data))
    source = {
        "model": model,
        "dataset": dataset,
        "image_size": image_size,
        "weights": "none" if weights is None else str(weights.resolve()),
        "weights_digest": "" if weights is None else file_digest(weights),
    }
    return _create(loaded.to(choose_device(device)), data, results, source)


def foreign_run(
    model: Callable[[Tensor], Tensor],
    data: LabelledDataset,
    results: Path,
    *,
    name: str = "model",
    device: str = "auto",
) -> tuple[Folder, Hasher | ClassifyingModel]:
    """The run folder of a live model, and the model wrapped for attack: it hashes or classifies, as the data asks.

    The folder's name holds a digest of the model's weights, and of its codes (logits) and gradient on some validation
    images: another model under the same name gets another folder.

    Raises:
        InputError: the model's answers are not usable.
    """
    wrapped = _wrapped(model, data.image_shape, classifies=_is_for_classes(data))
    wrapped.to(choose_device(device)).eval()
    return _create(wrapped, data, results, {"model": f"{PYTHON}{name}", "dataset": data.name}), wrapped


def load_for(task: str, name: str, **given: Any) -> LabelledDataset:
    """The dataset called `name`, by the protocol of a task.

    Raises:
        InputError: the task is neither hashing nor classification; or see `load_dataset`.
    """
    if task not in _LOADERS:
        raise InputError(f"unknown task '{task}': use {' or '.join(_LOADERS)}")
    return _LOADERS[task](name, **given)


def load_any(run: Folder) -> Hasher:
    """The hashing model of a run, fine-tuned here or imported, in eval mode.

    Raises:
        StoreError: see `load_run` and `load_foreign`.
    """
    if run.config.get("task") != FOREIGN:
        return load_run(run)
    model = load_foreign(run)
    assert isinstance(model, Hasher)
    return model


def load_foreign(run: Folder) -> Hasher | ClassifyingModel:
    """The imported model of a run, in eval mode.

    Raises:
        StoreError: the model was given in Python, or its weights changed.
    """
    config = run.config
    name = str(config["model"])
    if name == EXPORTED:
        return load_imported(run)
    if name.startswith(PYTHON):
        raise StoreError(
            f"run '{run.path}' is of a model that was given in Python: audit it from there, by hashrobust.audit"
        )
    weights = None if config["weights"] == "none" else Path(config["weights"])
    if weights is not None and (not weights.is_file() or file_digest(weights) != config["weights_digest"]):
        raise StoreError(f"weights '{weights}' of run '{run.path}' are gone or were changed: put them back")
    channels, height, width = config["input_shape"]
    model = _load(name, weights, (channels, height, width), classifies=run.classifies)
    # Absent from runs of older versions, and where the weights are in a file.
    if config.get("state_digest") not in (None, _state_digest(model)):
        raise StoreError(
            f"factory '{name}' makes another model than run '{run.path}' was made with: give its weights as a file "
            "(--weights), or audit what it makes now as a run of its own (--model)"
        )
    return model


def _load(
    name: str, weights: Path | None, input_shape: tuple[int, int, int], *, classifies: bool
) -> Hasher | ClassifyingModel:
    made = import_model(name)
    if weights is not None:
        load_foreign_weights(made, weights)
    return _wrapped(made, input_shape, classifies=classifies).eval()


def _is_for_classes(data: LabelledDataset) -> bool:
    return isinstance(data, ClassificationDataset)


def _wrapped(
    model: Callable[[Tensor], Tensor], input_shape: tuple[int, int, int], *, classifies: bool
) -> Hasher | ClassifyingModel:
    """The model itself if it is of this library and for the task, else wrapped.

    Raises:
        InputError: it is of this library and for the other task, or its answers are not usable.
    """
    if isinstance(model, Classifier if classifies else HashModel):
        return model
    if isinstance(model, Network):
        asked, other = ("classification", "hashing") if classifies else ("hashing", "classification")
        raise InputError(
            f"the model is a {type(model).__name__}, which is for {other}, and the data are for {asked}: "
            f"give the data and the task of {other}"
        )
    return (ForeignClassifier if classifies else ForeignModel)(model, input_shape)


def _create(
    model: Hasher | ClassifyingModel, data: LabelledDataset, results: Path, source: dict[str, Any]
) -> Folder:
    if model.input_shape[0] != data.image_shape[0]:
        raise InputError(
            f"the model takes images of {model.input_shape[0]} channels, {data.name} has {data.image_shape[0]}: "
            "choose the dataset that it was made for"
        )
    if isinstance(model, ClassifyingModel) and model.output_count != len(data.classes):
        raise InputError(
            f"the model gives logits of {model.output_count} classes, {data.name} has {len(data.classes)}: "
            "choose the dataset that it was made for"
        )
    stem = "".join(c if c.isalnum() else "-" for c in source["model"].removeprefix(PYTHON)).strip("-")
    rule, classifies = rule_of(model), isinstance(model, ClassifyingModel)
    # First, as a model is found when it is loaded: some count how often they are asked.
    state = "" if source.get("weights_digest") else _state_digest(model)
    answers = _answers_digest(model, data)
    described = {
        "task": FOREIGN,
        **source,
        "backbone": stem,
        "objective": FOREIGN,
        **({"protocol": "classification"} if classifies else {"bits": model.output_count}),
        "rule": rule,
        "feedback_scale": "xavier" if rule == "bp" else feedback_scale(model),
        **({} if layers_of(model) == ALL_LAYERS else {"layers": layers_of(model)}),
        "seed": 0 if rule == "bp" else feedback_seed(model),
        "input_shape": list(data.image_shape),
        "logits_digest" if classifies else "codes_digest": answers,
        # A model with the same answers and another backward pass is another model to an attacker.
        "gradient_digest": _gradient_digest(model, data) if answers else "",
        # Both look at a few images: the weights tell apart what is alike there.
        **({"state_digest": state} if state else {}),
    }
    kind = "classifier" if classifies else model.output_count
    path = results / f"{slug(data.name)}-{stem}-{kind}-{config_hash(described)}"
    if Folder(path).has("environment.json"):
        return Folder.open(path, described)
    with Folder.held(path, described, wait=True) as folder:
        record_environment(folder, device=model.device, fingerprint=data.fingerprint)
    return folder


def _state_digest(model: Hasher | ClassifyingModel) -> str:
    """SHA-256 of parameters and buffers with their names; empty if there are none, as of a plain function."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16] if state else ""


def _answers_digest(model: Hasher | ClassifyingModel, data: LabelledDataset) -> str:
    """Tells one model from another; empty for a model that answers at random.

    Of a classifier the logits count: good classifiers agree on classes.
    """
    images = data.validation.load(range(min(_PROBES, len(data.validation))))
    with torch.random.fork_rng(devices=[]):
        outputs = [model.outputs(images) for _ in range(2)]
    first, second = outputs if isinstance(model, ClassifyingModel) else map(sign, outputs)
    if not torch.equal(first, second):
        return ""
    return hashlib.sha256(first.numpy().tobytes()).hexdigest()[:16]


def _gradient_digest(model: Hasher | ClassifyingModel, data: LabelledDataset) -> str:
    """The direction of the exact input gradient at some validation images, coarse enough to survive rounding."""
    images = data.validation.load(range(min(_GRADIENT_PROBES, len(data.validation))))
    with torch.random.fork_rng(devices=[]):
        found = scaled_gradient(model, images)
    if found is None:
        return "none"
    gradient = found.cpu().double().flatten()
    norm = float(gradient.norm())
    if norm == 0 or not math.isfinite(norm):
        return "zero" if norm == 0 else "not finite"
    rays = torch.randn(8, len(gradient), generator=keyed_generator("gradient digest"), dtype=torch.float64)
    shares = [round(float(share), 1) + 0.0 for share in rays @ gradient / norm]
    return hashlib.sha256(repr(shares).encode()).hexdigest()[:16]
