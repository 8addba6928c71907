"""Models that were not made here as run folders, so that they are indexed, attacked and audited like our own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hashrobust.datasets import RetrievalDataset, load_dataset
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.config import slug
from hashrobust.experiments.environment import choose_device, record_environment
from hashrobust.experiments.files import file_digest
from hashrobust.experiments.store import Folder, config_hash
from hashrobust.experiments.training_runs import load_run
from hashrobust.models import ForeignModel, Hasher, HashModel, import_model, load_foreign_weights, sign
from hashrobust.rules import feedback_scale, feedback_seed, rule_of

TASK = "foreign"
PYTHON = "python:"
_PROBES = 32


def import_foreign(
    model: str,
    dataset: str,
    results: Path,
    *,
    weights: Path | None = None,
    image_size: int | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> Folder:
    """The run folder of a model that `package.module:factory` makes, its weights from a safetensors file.

    Raises:
        InputError: the factory, the weights or the model's answers are not usable.
    """
    data = load_dataset(dataset, data_dir=data_dir, image_size=image_size)
    loaded = _load(model, weights, data.image_shape)
    source = {
        "model": model,
        "dataset": dataset,
        "image_size": image_size,
        "weights": "none" if weights is None else str(weights.resolve()),
        "weights_digest": "" if weights is None else file_digest(weights),
    }
    return _create(loaded.to(choose_device(device)), data, results, source)


def foreign_run(
    model: HashModel | Callable[[Tensor], Tensor],
    data: RetrievalDataset,
    results: Path,
    *,
    name: str = "model",
    device: str = "auto",
) -> tuple[Folder, Hasher]:
    """The run folder of a live model, and the model wrapped for attack.

    The folder's name holds a digest of the model's codes on some validation images: another model under
    the same name gets another folder.

    Raises:
        InputError: the model's answers are not usable.
    """
    wrapped = model if isinstance(model, HashModel) else ForeignModel(model, data.image_shape)
    wrapped.to(choose_device(device)).eval()
    return _create(wrapped, data, results, {"model": f"{PYTHON}{name}", "dataset": data.name}), wrapped


def load_any(run: Folder) -> Hasher:
    """The model of a run, fine-tuned here or imported, in eval mode.

    Raises:
        StoreError: see `load_run`; or the model was given in Python, or its code or weights changed.
    """
    config = run.config
    if config.get("task") != TASK:
        return load_run(run)
    name = str(config["model"])
    if name.startswith(PYTHON):
        raise StoreError(
            f"run '{run.path}' is of a model that was given in Python: audit it from there, by hashrobust.audit"
        )
    weights = None if config["weights"] == "none" else Path(config["weights"])
    if weights is not None and (not weights.is_file() or file_digest(weights) != config["weights_digest"]):
        raise StoreError(f"weights '{weights}' of run '{run.path}' are gone or were changed: put them back")
    channels, height, width = config["input_shape"]
    return _load(name, weights, (channels, height, width))


def _load(name: str, weights: Path | None, input_shape: tuple[int, int, int]) -> Hasher:
    made = import_model(name)
    if weights is not None:
        load_foreign_weights(made, weights)
    return made.eval() if isinstance(made, HashModel) else ForeignModel(made, input_shape)


def _create(model: Hasher, data: RetrievalDataset, results: Path, source: dict[str, Any]) -> Folder:
    if model.input_shape[0] != data.image_shape[0]:
        raise InputError(
            f"the model takes images of {model.input_shape[0]} channels, {data.name} has {data.image_shape[0]}: "
            "choose the dataset that it was made for"
        )
    stem = "".join(c if c.isalnum() else "-" for c in source["model"].removeprefix(PYTHON)).strip("-")
    rule = rule_of(model)
    described = {
        "task": TASK,
        **source,
        "backbone": stem,
        "objective": TASK,
        "bits": model.bits,
        "rule": rule,
        "feedback_scale": "xavier" if rule == "bp" else feedback_scale(model),
        "seed": 0 if rule == "bp" else feedback_seed(model),
        "input_shape": list(data.image_shape),
        "codes_digest": _codes_digest(model, data),
    }
    folder = Folder.create(
        results / f"{slug(data.name)}-{stem}-{model.bits}-{config_hash(described)}", described
    )
    record_environment(folder, device=model.device, fingerprint=data.fingerprint)
    return folder


def _codes_digest(model: Hasher, data: RetrievalDataset) -> str:
    """Tells one model from another; empty for a model that answers at random."""
    images = data.validation.load(range(min(_PROBES, len(data.validation))))
    with torch.random.fork_rng(devices=[]):
        first, second = (sign(model.outputs(images)) for _ in range(2))
    if not torch.equal(first, second):
        return ""
    return hashlib.sha256(first.numpy().tobytes()).hexdigest()[:16]


def is_plain_callable(model: Hasher) -> bool:
    """Whether the model is a foreign callable that is no module, and so cannot be copied in another precision."""
    return isinstance(model, ForeignModel) and not isinstance(model.function, nn.Module)
