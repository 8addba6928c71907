"""Training of hashing models and classifiers; queries and database are never looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.datasets import ClassificationDataset, LabelledDataset, RetrievalDataset, Split
from hashrobust.errors import InputError
from hashrobust.metrics import leave_one_out_average_precision
from hashrobust.models import Classifier, HashModel
from hashrobust.objectives import Objective, build_objective
from hashrobust.options import TrainingOptions
from hashrobust.progress import Progress, Silent
from hashrobust.rotations import Fit, quantization_error, rotation_fit
from hashrobust.seeding import key_seed
from hashrobust.training import parallel
from hashrobust.training.augmentation import augment
from hashrobust.training.defences import Defence, build_defence
from hashrobust.training.loop import Loop
from hashrobust.training.staged import StagedRule
from hashrobust.training.state import Checkpoints, TrainingResult, TrainingState

__all__ = [
    "Checkpoints",
    "Defence",
    "StagedRule",
    "TrainingResult",
    "TrainingState",
    "augment",
    "build_defence",
    "finetune",
    "finetune_classifier",
    "objective_for",
    "pretrain",
    "validation_map",
]


def finetune(
    model: HashModel,
    data: RetrievalDataset,
    *,
    objective: str | Objective = "dpsh",
    objective_params: dict[str, Any] | None = None,
    defence: str | Defence | None = "none",
    defence_params: Mapping[str, Any] | None = None,
    staged: StagedRule | None = None,
    rotate: str = "none",
    options: TrainingOptions | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainingResult:
    """Fine-tune a hashing model by whatever rule it was converted to; in place, best epoch kept.

    The best epoch is the one with the highest validation mAP; queries are never looked at.
    `defence` names what is added to the objective's loss (see `hashrobust list defences`), `rotate` how outputs
    are rotated once the best epoch is chosen (see `hashrobust list rotations`). `staged` converts the model itself,
    to one rule after the other as epochs go by.
    `overrides` are fields of `TrainingOptions`, such as `epochs=20`.

    Raises:
        InputError: an unknown objective, defence, rotation, parameter or option.
        TrainingError: the loss or a weight is not finite; the model holds the weights of the best epoch
            so far, or those that it began with.
    """
    options = _options(options, overrides)
    if isinstance(objective, str):
        objective = objective_for(data, objective, model.bits, objective_params or {}, seed=options.seed)
    elif objective_params:
        raise InputError("objective_params belong to an objective's name: give them to the objective itself")
    if isinstance(defence, str):
        defence = build_defence(defence, defence_params or {}, seed=options.seed)
    elif defence_params:
        raise InputError("defence_params belong to a defence's name: give them to the defence itself")
    fit = rotation_fit(rotate)
    objective.to(model.device)
    progress = progress or Silent()
    result = Loop(
        model,
        objective,
        data.train,
        options,
        defence=defence,
        staged=staged,
        validate=lambda: validation_map(model, data.validation),
        checkpoints=checkpoints,
        progress=progress,
    ).run()
    if fit is not None:
        _rotate(model, data, rotate, fit, seed=options.seed, progress=progress)
    codes = model.encode(data.validation)
    if bool((codes == codes[:1]).all()):
        progress.say(
            "every validation image has the same code, so mAP is at chance: start from pre-trained weights, "
            "or try another objective, learning rate or batch size"
        )
    return result


def _rotate(
    model: HashModel, data: RetrievalDataset, name: str, fit: Fit, *, seed: int, progress: Progress
) -> None:
    """Rotate a trained model's outputs by what fits those of the training images, and say what came of it."""
    before, z = validation_map(model, data.validation), model.outputs(data.train)
    matrix = fit(z, seed=seed)
    model.rotate(matrix, name)
    after = validation_map(model, data.validation)
    progress.say(
        f"rotated by {name}: quantisation error {quantization_error(z):.3f} -> {quantization_error(z @ matrix):.3f}, "
        f"validation mAP {100 * before:.2f}% -> {100 * after:.2f}%"
    )


def objective_for(
    data: RetrievalDataset, name: str, bits: int, params: dict[str, Any], *, seed: int
) -> Objective:
    """The objective called `name` for codes of a dataset; what it draws (proxies) is keyed by the seed.

    Raises:
        InputError: an unknown objective or parameter, a value that it cannot use, or labels that it cannot learn from.
    """
    facts: dict[str, Any] = {
        "bits": bits,
        "num_classes": len(data.classes),
        "similar_share": data.similar_share,
    }
    for taken in sorted(set(facts) & set(params)):
        raise InputError(f"objective parameter '{taken}' follows from the model and the data: leave it out")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_seed("objective", seed))  # that of the CPU alone
        objective = build_objective(name, **facts, **params)
    objective.check_labels(data.train.labels)
    return objective


def pretrain(
    model: Classifier,
    data: LabelledDataset,
    *,
    options: TrainingOptions | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainingResult:
    """Train a classifier on the train split alone; in place, last epoch kept.

    Cross-entropy, or binary cross-entropy per class for multi-label data. No other split is seen,
    so that models that start from it have never met an image of another.

    Raises:
        InputError: an unknown option.
        TrainingError: the loss or a weight is not finite; the model holds the weights of the last good
            epoch, or those that it began with.
    """
    return Loop(
        model,
        _multi_label if data.multi_label else _single_label,
        data.train,
        _options(options, overrides),
        validate=None,
        checkpoints=checkpoints,
        progress=progress or Silent(),
    ).run()


def finetune_classifier(
    model: Classifier,
    data: ClassificationDataset,
    *,
    staged: StagedRule | None = None,
    options: TrainingOptions | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> TrainingResult:
    """Train a classifier by whatever rule it was converted to, with cross-entropy; in place, best epoch kept.

    The best epoch is the one with the highest validation accuracy; test images are never looked at.
    `staged` as in `finetune`.

    Raises:
        InputError: an unknown option.
        TrainingError: see `finetune`.
    """
    return Loop(
        model,
        _single_label,
        data.train,
        _options(options, overrides),
        staged=staged,
        validate=lambda: float(parallel.by_shares(model.correct, data.validation).mean()),
        score="validation_accuracy",
        checkpoints=checkpoints,
        progress=progress or Silent(),
    ).run()


def _single_label(z: Tensor, labels: Tensor, step: int) -> Tensor:
    return F.cross_entropy(z, labels.argmax(dim=1))


def _multi_label(z: Tensor, labels: Tensor, step: int) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, labels.to(z.dtype))


def validation_map(model: HashModel, split: Split) -> float:
    """mAP with each image of the split ranked against all the others of it (a fraction)."""
    codes = parallel.by_shares(model.encode, split)
    return float(leave_one_out_average_precision(codes, split.labels).mean())


def _options(options: TrainingOptions | None, overrides: dict[str, Any]) -> TrainingOptions:
    try:
        return TrainingOptions(**((asdict(options) if options else {}) | overrides))
    except TypeError as error:
        raise InputError(
            f"training options: {error}; known: {', '.join(TrainingOptions.__annotations__)}"
        ) from error
