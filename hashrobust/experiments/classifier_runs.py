"""Classifiers as run folders: trained by a rule from a pre-trained network or from scratch, loaded, evaluated."""

from __future__ import annotations

from pathlib import Path

import torch

from hashrobust.datasets import ClassificationDataset
from hashrobust.errors import StoreError
from hashrobust.experiments.checkpoints import FolderCheckpoints
from hashrobust.experiments.config import ClassifierConfig
from hashrobust.experiments.environment import choose_device
from hashrobust.experiments.foreign_runs import load_foreign
from hashrobust.experiments.store import CLASSIFY, FOREIGN, Folder
from hashrobust.experiments.trained_runs import load_data, load_run_data, load_trained
from hashrobust.experiments.training_runs import check_names, rule_run, shape_of, start_from
from hashrobust.experiments.weights import MODEL, resolve_weights, run_of
from hashrobust.metrics import bootstrap_interval
from hashrobust.models import Classifier, ClassifyingModel, ImageModel, load_model, load_weights
from hashrobust.progress import Progress, Silent
from hashrobust.seeding import key_seed
from hashrobust.training import StagedRule, TrainingResult, finetune_classifier

ACCURACY = "accuracy.json"
_MADE_BY = "hashrobust finetune --task classification"


def classify_run(
    config: ClassifierConfig,
    results: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Train a classifier with a learning rule, from weights or from scratch; its run folder.

    Weights of a run that classified the same data set keep their last layer, others get a new one.

    Raises:
        InputError: an unknown name or impossible value, before any folder is made.
        TrainingError: the loss is not finite.
    """
    progress = progress or Silent()
    check_names(config)
    data = load_data(config, data_dir, classify=True, progress=progress)
    assert isinstance(data, ClassificationDataset)
    config, weights = resolve_weights(config, results)
    with torch.random.fork_rng():
        torch.manual_seed(key_seed("init", config.seed))
        model = Classifier(config.backbone, len(data.classes), **shape_of(data), mean=data.mean, std=data.std)
    run = None if weights is None else run_of(weights)
    if run is not None and run.classifies and run.config["dataset"] == config.dataset:
        load_weights(model, run.path / MODEL, head=True)
    else:
        start_from(model, config, weights)

    def train(checkpoints: FolderCheckpoints | None, staged: StagedRule | None) -> TrainingResult:
        return finetune_classifier(
            model, data, staged=staged, options=config.options, checkpoints=checkpoints, progress=progress
        )

    return rule_run(
        config, CLASSIFY, model, data, train, results, device=device, overwrite=overwrite, progress=progress
    )


def load_classifier(folder: Folder) -> ClassifyingModel:
    """The classifier of a run, made elsewhere or by the rule that it was trained with, in eval mode.

    Raises:
        StoreError: no finished run of a classifier, or damaged files; or see `load_foreign`.
    """
    if not folder.classifies:
        raise StoreError(f"run '{folder.path}' holds no classifier: name a run of `{_MADE_BY}`")
    model: ImageModel
    if folder.config["task"] == FOREIGN:
        model = load_foreign(folder)
    elif folder.config["task"] == CLASSIFY:
        model = load_trained(folder, ClassifierConfig.from_dict(folder.config))
    else:
        model = load_model(folder.file(MODEL, made_by="pretrain"))
    assert isinstance(model, ClassifyingModel)
    return model


def evaluate_classifier(
    folder: Folder,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, float]:
    """Top-1 accuracy on the test images with its 95% interval over them (fractions), stored in the run.

    Raises:
        StoreError: see `load_classifier`; or the data has changed.
    """
    if folder.has(ACCURACY) and not overwrite:
        stored: dict[str, float] = folder.read_json(ACCURACY, made_by="evaluate")
        return stored
    with folder.lock():
        data = load_run_data(folder, data_dir)
        assert isinstance(data, ClassificationDataset)
        model = load_classifier(folder).to(choose_device(device))
        correct = model.correct(data.test).numpy()
        low, high = bootstrap_interval(correct)
        metrics = {
            "accuracy": float(correct.mean()),
            "accuracy_low": low,
            "accuracy_high": high,
            "chance_accuracy": 1 / len(data.classes),
            "validation_accuracy": model.accuracy(data.validation),
            "queries": len(correct),
        }
        folder.write_json(ACCURACY, metrics)
        return metrics
