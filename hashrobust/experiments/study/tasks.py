"""What a study can train: one entry a task, with all that differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hashrobust.datasets import LabelledDataset, RetrievalDataset, load_classification, load_dataset
from hashrobust.experiments.classifier_runs import ACCURACY, classify_run, evaluate_classifier
from hashrobust.experiments.config import ClassifierConfig, FinetuneConfig
from hashrobust.experiments.retrieval_runs import METRICS, evaluate_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.models import Classifier, HashModel
from hashrobust.progress import Progress
from hashrobust.training import build_defence, finetune, finetune_classifier, objective_for

TrainedConfig = FinetuneConfig | ClassifierConfig
"""Of a training by rule."""


@dataclass(frozen=True)
class Task:
    """One task.

    `train` makes the run of a `config`, `evaluate` its file `measured`; `load` gives the data, `pretraining` the
    settings that pre-training on them has to have. With `coded` the networks give codes: they have an
    objective and bits. `attacks_pretrained` says that the pre-trained network itself is evaluated and attacked too,
    before any training by rule. `fit` trains a fresh `network` in memory, for a measurement of time.
    """

    config: type[FinetuneConfig] | type[ClassifierConfig]
    train: Callable[..., Folder]
    evaluate: Callable[..., object]
    measured: str
    load: Callable[..., LabelledDataset]
    pretraining: Mapping[str, Any]
    coded: bool
    attacks_pretrained: bool
    network: Callable[..., HashModel | Classifier]
    fit: Callable[..., object]


def _hash_model(config: FinetuneConfig, data: LabelledDataset, **shape: Any) -> HashModel:
    return HashModel(config.backbone, config.bits, **shape)


def _classifier(config: ClassifierConfig, data: LabelledDataset, **shape: Any) -> Classifier:
    return Classifier(config.backbone, len(data.classes), **shape)


def _fit_hashing(
    model: HashModel, data: RetrievalDataset, config: FinetuneConfig, progress: Progress
) -> object:
    objective = objective_for(data, config.objective, config.bits, config.objective_params, seed=config.seed)
    defence = build_defence(config.defence, config.defence_params, seed=config.seed)
    return finetune(
        model, data, objective=objective, defence=defence, options=config.options, progress=progress
    )


def _fit_classifier(model: Classifier, data: Any, config: ClassifierConfig, progress: Progress) -> object:
    return finetune_classifier(model, data, options=config.options, progress=progress)


TASKS: Mapping[str, Task] = {
    "hashing": Task(
        config=FinetuneConfig,
        train=finetune_run,
        evaluate=evaluate_run,
        measured=METRICS,
        load=load_dataset,
        pretraining={},
        coded=True,
        attacks_pretrained=False,
        network=_hash_model,
        fit=_fit_hashing,
    ),
    "classification": Task(
        config=ClassifierConfig,
        train=classify_run,
        evaluate=evaluate_classifier,
        measured=ACCURACY,
        load=load_classification,
        pretraining={"protocol": "classification"},
        coded=False,
        attacks_pretrained=True,
        network=_classifier,
        fit=_fit_classifier,
    ),
}
